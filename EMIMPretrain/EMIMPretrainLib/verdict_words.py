"""How a run is doing, as a traffic light and in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from emim.evaluation.class_verdict import BETTER, GUESSING, judge_classes
from emim.objectives.verdict import judge

from .run_metrics import RunMetrics, isNumber

COLOURS = {
    "healthy": "green",
    BETTER: "green",
    GUESSING: "red",
    "undecided": "grey",
    "dimensional collapse": "amber",
    "complete collapse": "red",
}
# Validation Dice under which structures are hardly found at all, and found only in part.
HARDLY, PARTLY = 0.1, 0.5


@dataclass(frozen=True)
class Verdict:
    """``colour`` is "green", "amber", "red" or "grey" (nothing can be said yet)."""

    colour: str
    title: str
    text: str = ""
    advice: str = ""


def pretrainingVerdict(metrics: RunMetrics, runFolder: Path | None = None) -> Verdict:
    """The core's judgement by the latest validations; of a finished run, the one in its report."""
    written = _writtenVerdict(runFolder) if metrics.result and runFolder else None
    if written is None:
        judged = judge(metrics.validation, metrics.lines, metrics.share)
        written = judged.to_dict()
    state = written.get("state", "undecided")
    titles = {
        "healthy": _("Healthy: the network learns from the images"),
        "undecided": _("Undecided"),
        "dimensional collapse": _("Features are collapsing into few dimensions"),
        "complete collapse": _("Collapsed: the output no longer depends on the input"),
    }
    colour = COLOURS.get(state, "grey")
    if state == "undecided" and metrics.result:
        colour = "amber"  # the end of a run that shows nothing is no good news
    return Verdict(
        colour,
        titles.get(state, str(state)),
        " ".join(written.get("why", ())),
        " ".join(written.get("advice", ())),
    )


def finetuningVerdict(metrics: RunMetrics) -> Verdict:
    """What the latest validation Dice says."""
    steps, dice = metrics.series("validation", "dice")
    if not metrics.validation or not dice:
        return Verdict("grey", _("Too early to tell"), _("There is no validation yet."))
    best = max(range(len(dice)), key=dice.__getitem__)
    shown = metrics.validation[-1].get("dice_per_structure") or {}
    each = ", ".join(f"{name} {value:.2f}" for name, value in shown.items() if isNumber(value))
    text = _(
        "Validation Dice {now:.2f} at step {step} ({each}); best so far {best:.2f} at step {at}."
    ).format(now=dice[-1], step=steps[-1], each=each, best=dice[best], at=steps[best])
    if metrics.share < 0.2:
        return Verdict("grey", _("Too early to tell"), text)
    hint = _("Train longer, label more cases, and check that labels and images fit each other.")
    if dice[best] < HARDLY:
        return Verdict("red", _("The structures are hardly found"), text, hint)
    weak = [name for name, value in shown.items() if isNumber(value) and value < PARTLY]
    if weak:
        title = _("Found only in part: {names}").format(names=", ".join(weak))
        return Verdict("amber", title, text, hint)
    return Verdict("green", _("The structures are found"), text)


def classificationVerdict(metrics: RunMetrics, runFolder: Path | None = None) -> Verdict:
    """The core's judgement by the latest validation; of a finished run, the one in its report."""
    if not metrics.validation:
        return Verdict("grey", _("Too early to tell"), _("There is no validation yet."))
    written = _writtenVerdict(runFolder) if metrics.result and runFolder else None
    latest = metrics.validation[-1]
    if written is None:
        written = judge_classes(latest, metrics.share).to_dict()
    state = written["state"]
    titles = {
        BETTER: _("Better than guessing"),
        GUESSING: _("No better than guessing"),
        "undecided": _("Undecided: it may be guessing"),
    }
    colour = COLOURS.get(state, "grey")
    if state == "undecided" and metrics.result:
        colour = "amber"  # the end of a run that shows nothing is no good news
    recalls = {n: v for n, v in (latest.get("recall_per_class") or {}).items() if isNumber(v)}
    each = ", ".join(f"{name} {value:.0%}" for name, value in recalls.items())
    text = " ".join(written.get("why", ()))
    if each:
        text += " " + _("Recognised: {each}.").format(each=each)
    return Verdict(colour, titles.get(state, str(state)), text, " ".join(written.get("advice", ())))


def _writtenVerdict(runFolder: Path) -> dict[str, Any] | None:
    try:
        written = json.loads((runFolder / "report" / "verdict.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(written, dict) and all(
        isinstance(written.get(k, ()), Sequence) for k in ("why", "advice")
    )
    return written if whole and isinstance(written.get("state"), str) else None
