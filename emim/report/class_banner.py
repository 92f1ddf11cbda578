"""The top of the report of a classification run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emim.evaluation.class_verdict import BETTER, GUESSING
from emim.report.banner import common_facts, light, model_link, stopped
from emim.report.markup import bullets, number, text
from emim.report.record import RunRecord

_LIGHTS = {BETTER: ("good", "✓"), GUESSING: ("bad", "✕")}


def outcome(run: RunRecord) -> str:
    """The banner: whether the latest validation is better than guessing, and where the model lies."""
    if run.state == "stopped":
        return stopped(run)
    state = run.verdict.get("state")
    if not isinstance(state, str) or not state:
        return light("plain", "…", "No validation yet", model_link(run))
    headline = state[0].upper() + state[1:] + ("" if run.state == "finished" else ", so far")
    body = ""
    for key, title in (("why", "Why"), ("advice", "What to do")):
        items = run.verdict.get(key)
        if isinstance(items, list) and items:
            body += f"<h3>{title}</h3>{bullets(items)}"
    steps, losses = run.curve("validation", "cross_entropy")
    if len(steps):
        keeps_last = run.config.get("keep") == "last"
        kept = len(steps) - 1 if keeps_last else int(np.argmin(losses))
        body += (
            f"<p>The model is that of step {number(int(steps[kept]))}, "
            + ("the last; its" if keeps_last else "the best: its")
            + f" validation cross-entropy is {losses[kept]:.3f}.</p>"
        )
    return light(*_LIGHTS.get(state, ("unsure", "?")), headline, body + model_link(run))


def facts(run: RunRecord) -> list[tuple[str, str, str]]:
    """The numbers below the banner: name, value and a note of each."""
    source = run.transfer.get("source")
    start = "pre-trained" if run.config.get("init") else "from scratch"
    found = [("Start", start, text(Path(str(source)).name) if source else "")]
    settings = run.config.get("classification")
    mode = settings.get("mode") if isinstance(settings, dict) else None
    names = {"full": "whole network", "linear": "linear probe", "knn": "nearest neighbours"}
    found.append(("Trained", names.get(str(mode), "–"), ""))
    for name, title in (("balanced_accuracy", "Balanced accuracy"), ("auc", "AUC")):
        _, values = run.curve("validation", name)
        found.append((title, number(values[-1]) if len(values) else "–", "last validation"))
    return found + common_facts(run)
