"""The top of the page: how the run stands, in a banner with a traffic light and a few numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from emim.objectives.verdict import CONSTANT_OUTPUT, LOW_RANK
from emim.report import tables
from emim.report.markup import bullets, duration, number, text
from emim.report.record import RunRecord, is_number

# State of the verdict: class of the banner, sign in the traffic light, headline.
_LIGHTS = {
    "healthy": ("good", "✓", "Healthy"),
    "undecided": ("unsure", "?", "Undecided"),
    "complete collapse": ("bad", "✕", "Complete collapse"),
    "dimensional collapse": ("bad", "✕", "Dimensional collapse"),
}
_MEANING = {
    "healthy": "The network has learned to work out what is hidden from what is visible.",
    "undecided": "The numbers do not tell yet whether the network learns something useful.",
    "complete collapse": "The network prints nearly the same picture whatever it is shown; "
    "it is of no use for fine-tuning.",
    "dimensional collapse": "The network's features all say nearly the same thing; "
    "much of its capacity is unused.",
}
_MEANING_OF_CONTRAST = {
    **_MEANING,
    "healthy": "The network tells crops of one subject from those of others, with features that have not "
    "collapsed. How much they are worth, fine-tuning shows.",
}

# The name of a collapse line in a sentence of the verdict.
_LINE_NAME, _LINE_HTML = re.compile(r"\bL_([abc])\b"), r"<i>L</i><sub>\1</sub>"


def light(kind: str, sign: str, headline: str, body: str) -> str:
    """A box with a traffic light; ``kind`` is good, bad, unsure or plain, ``body`` HTML."""
    return (
        f'<section class="verdict {kind}" id="verdict" aria-label="Verdict">'
        f'<div class="light" aria-hidden="true">{sign}</div>'
        f"<div><h2>{text(headline)}</h2>{body}</div></section>"
    )


def verdict(run: RunRecord) -> str:
    if run.state == "stopped":
        return stopped(run)
    state = run.verdict.get("state")
    if state not in _LIGHTS:
        return light("plain", "…", "No verdict yet", "<p>It is given once the run has been validated.</p>")
    kind, sign, headline = _LIGHTS[state]
    if run.state != "finished":
        headline += ", so far"
    body = f"<p>{text((_MEANING_OF_CONTRAST if run.contrastive else _MEANING)[state])}</p>"
    for key, title in (("why", "Why"), ("advice", "What to do")):
        items = run.verdict.get(key)
        if isinstance(items, list) and items:
            body += f"<h3>{title}</h3>{_LINE_NAME.sub(_LINE_HTML, bullets(items))}"
    return light(kind, sign, headline, body)


def stopped(run: RunRecord) -> str:
    """The banner of a run that an error ended."""
    error = run.errors[-1]
    lines = [f"<p>{text(error.get('what', ''))}</p>"]
    lines += [f"<p><code>{text(error['where'])}</code></p>"] if error.get("where") else []
    lines += [f"<p>{text(error['hint'])}</p>"] if error.get("hint") else []
    return light("bad", "✕", "Stopped by an error", "".join(lines))


def model_link(run: RunRecord) -> str:
    """Where the model lies, once there is one."""
    if not (run.folder / "model").is_dir():
        return ""
    return '<p>The model package: <a href="../model/">folder <code>model</code> of this run</a>.</p>'


def outcome(run: RunRecord) -> str:
    """The banner of a fine-tuning run: how good it is so far, and where the model lies."""
    if run.state == "stopped":
        return stopped(run)
    steps, values = run.curve("validation", "dice")
    model = model_link(run)
    if not len(steps):
        return light("plain", "…", "No validation yet", model)
    best, last = int(np.argmax(values)), len(steps) - 1
    keeps_last = run.config.get("keep") == "last"
    shown, other = (last, best) if keeps_last else (best, last)
    headline = f"Validation Dice {values[shown]:.3f}" + ("" if run.state == "finished" else ", so far")
    which = "at the last step" if keeps_last else "best at step"
    body = f"<p>Mean over structures and validation cases, {which} {number(int(steps[shown]))}"
    if best != last:
        body += f"; {values[other]:.3f} at {'the best' if keeps_last else 'the last'} validation"
    body += "."
    if not keeps_last:
        body += " The best step is chosen on these same cases, so expect a little less on new patients."
    body += " Judge by cases that took no part.</p>"
    return light("plain", "◎", headline, body + model)


def fact_list(facts: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{value}<small>{note}</small></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def common_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    """What is told of every run."""
    training, validation = len(tables.ids_of(run, "training")), len(tables.ids_of(run, "validation"))
    planned = run.steps_planned
    rate = tables.speed(run)
    elapsed = duration(run.times[1] - run.times[0]) if run.times else "–"
    return [
        ("Steps", number(run.steps_done), f"of {number(planned)}" if planned else ""),
        ("Cases", number(training + validation), f"{training} training, {validation} validation"),
        ("Modalities", number(len(run.modalities)), text(", ".join(run.modalities))),
        ("Time", elapsed, rate or ""),
    ]


def pretrain_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    facts = _contrast_facts(run) if run.contrastive else _reconstruction_facts(run)
    ranks = {k: v[1][-1] for k, v in run.curves("validation", "rank_ratio").items()}
    if ranks:
        worst = min(ranks, key=lambda k: ranks[k])
        note = f"of what is attainable (level {int(worst) + 1}); under {LOW_RANK:g} is collapsed"
        facts.append(("Lowest effective rank", number(ranks[worst], 2), note))
    return facts + common_facts(run)


def _contrast_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    losses, chances, found = (run.curve("validation", n)[1] for n in ("contrastive", "chance", "found"))
    chance = f"{chances[-1]:.3f} would be chance" if len(chances) else ""
    return [
        ("Validation loss", number(losses[-1]) if len(losses) else "–", chance),
        ("Partners found", number(found[-1], 2) if len(found) else "–", "share of unseen crops"),
    ]


def _reconstruction_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    _, losses = run.curve("validation", "reconstruction")
    _, variances = run.curve("validation", "output_variance")
    # Validation subjects are unseen; the verdict goes by this line, too.
    template = run.collapse_lines.get("L_c_unseen") or run.collapse_lines.get("L_c")
    ratio = ""
    if len(losses) and is_number(template) and template > 0:
        share = f"{losses[-1] / template:.2f} × <i>L</i><sub>c</sub> on unseen subjects"
        ratio = f"{share}; healthy is clearly below&nbsp;1"
    return [
        ("Validation loss", number(losses[-1]) if len(losses) else "–", ratio),
        (
            "Output variance",
            number(variances[-1]) if len(variances) else "–",
            f"of the target's; under {CONSTANT_OUTPUT:g} is collapsed",
        ),
    ]


def finetune_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    source = run.transfer.get("source")
    start = "pre-trained" if run.config.get("init") else "from scratch"
    facts = [("Start", start, text(Path(str(source)).name) if source else "")]
    for name, (_, values) in list(run.curves("validation", "dice_per_structure").items())[:4]:
        facts.append((f"Dice, {name}", number(values[-1]), "last validation"))
    return facts + common_facts(run)
