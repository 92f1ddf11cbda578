"""From the numbers of a pre-training run to plain words: healthy, collapsed, or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Share of the target's variance across subjects under which the output counts as constant.
CONSTANT_OUTPUT = 0.02
# A loss within this factor of a collapse line lies on it.
ON_LINE = 1.1
# Healthy means clearly below the template line.
CLEARLY_BELOW = 0.95
# Share of the attainable effective rank (beyond 1) under which a level counts as collapsed.
LOW_RANK = 0.1

LINE_NAMES = {
    "L_a": "one constant value",
    "L_b": "one average patch",
    "L_c_unseen": "the average anatomy at each position",
    "L_c": "the average anatomy at each position",
}


@dataclass(frozen=True)
class Verdict:
    """``state`` is "healthy", "complete collapse", "dimensional collapse" or "undecided"."""

    state: str
    why: tuple[str, ...]
    advice: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(validations: Sequence[dict[str, Any]], lines: dict[str, float], progress: float = 1.0) -> Verdict:
    """Judge a run by its validation metrics.

    Args:
        validations: validation metrics in order of steps: ``reconstruction``, ``output_variance``
            and ``rank_ratio`` (one value per pyramid level); of the contrastive objective ``contrastive``,
            ``chance`` and ``rank_ratio``. The last ones count.
        lines: of the training cohort, see :mod:`emim.objectives.collapse_lines`. Validation subjects
            are unseen, so the line to be under is ``L_c_unseen``; for large cohorts it equals ``L_c``.
        progress: share of the planned steps that is done; an early run is not judged.
    """
    if not validations or progress < 0.2:
        return Verdict("undecided", ("Too early to tell: the run has only begun.",))
    lines = {name: value for name, value in lines.items() if value is not None and math.isfinite(value)}
    recent = validations[-max(1, min(3, len(validations) // 5)) :]
    if "contrastive" in recent[-1]:
        return _judge_contrastive(recent)
    loss = _mean(v.get("reconstruction") for v in recent)
    variance = _mean(v.get("output_variance") for v in recent)
    ranks = recent[-1].get("rank_ratio") or []
    if not math.isfinite(loss):
        return Verdict(
            "undecided",
            ("There is no validation loss to judge by.",),
            ("Give at least two subjects for validation, and a mask pattern that hides something.",),
        )
    template = lines.get("L_c_unseen") or lines.get("L_c")
    ratio = loss / template if template else math.nan
    compared = f"The validation loss is {loss:.3f}"
    compared += (
        f", {ratio:.2f} times what average anatomy costs on unseen subjects (L_c_unseen)."
        if math.isfinite(ratio)
        else "; too few subjects train to know what average anatomy costs."
    )
    if variance < CONSTANT_OUTPUT:
        return _complete_collapse(loss, variance, lines)
    if flat := _flat(ranks):
        return Verdict(
            "dimensional collapse",
            (compared, flat),
            (
                "Use the Barlow pyramid (regulariser.name=barlow), or raise regulariser.weight.",
                "Train on more subjects, or with a smaller network.",
            ),
        )
    depends = (
        f"The output follows the input: it carries {100 * variance:.0f} % of the differences between "
        "subjects."
        if math.isfinite(variance)
        else "Too few subjects to measure the output's variance."
    )
    if ratio < CLEARLY_BELOW and math.isfinite(variance):
        return Verdict(
            "healthy",
            (
                compared + " A network that ignores its input could not do that.",
                depends,
                "Features use their dimensions at every level.",
            ),
        )
    if ratio < CLEARLY_BELOW or not math.isfinite(ratio):
        return Verdict("undecided", (compared, depends), ("Give more subjects.",))
    return Verdict(
        "undecided",
        (compared + " That is not clearly below it yet.", depends),
        ("Train longer: more steps, or a higher train.learning_rate.",),
    )


def _judge_contrastive(recent: Sequence[dict[str, Any]]) -> Verdict:
    """Collapse shows in the rank alone; whether anything is learned, in the loss against that of chance."""
    loss, chance = (_mean(v.get(name) for v in recent) for name in ("contrastive", "chance"))
    compared = f"The contrastive loss on unseen subjects is {loss:.3f}; {chance:.3f} would be chance."
    known = math.isfinite(loss) and math.isfinite(chance)
    if flat := _flat(recent[-1].get("rank_ratio") or []):
        return Verdict(
            "dimensional collapse",
            (flat, *((compared,) if known else ())),
            (
                "Raise train.batch: with few subjects to tell apart, few features suffice.",
                "Train on more subjects, or with a smaller network.",
            ),
        )
    if not known:
        return Verdict(
            "undecided",
            ("There is no validation loss to judge by.",),
            ("Give at least two subjects for validation.",),
        )
    if loss < CLEARLY_BELOW * chance:
        return Verdict("healthy", (compared, "Features use their dimensions at every level."))
    return Verdict(
        "undecided",
        (compared + " The network does not tell subjects apart yet.",),
        ("Train longer, or with a larger train.batch.",),
    )


def _flat(ranks: Sequence[float | None]) -> str | None:
    """What to say of the flattest level, when one has collapsed."""
    flat = [i for i, r in enumerate(ranks) if r is not None and r < LOW_RANK]
    if not flat:
        return None
    worst = min(flat, key=lambda i: ranks[i])
    return (
        f"Features of level {worst + 1} use {100 * ranks[worst]:.0f} % of the dimensions they "
        f"could (collapsed: under {100 * LOW_RANK:.0f} %)."
    )


def _complete_collapse(loss: float, variance: float, lines: dict[str, float]) -> Verdict:
    near = {n: abs(math.log(loss / lines[n])) for n in LINE_NAMES if lines.get(n)}
    line = min(near, key=near.get) if near else None
    if line is None or loss > ON_LINE * max(lines[n] for n in near):
        return Verdict(
            "undecided",
            (
                f"The output hardly depends on the input ({100 * variance:.1f} % of the differences "
                f"between subjects), but the loss of {loss:.3f} is still above every collapse line.",
            ),
            ("Train longer; if the loss stays there, lower train.learning_rate.",),
        )
    return Verdict(
        "complete collapse",
        (
            f"The output no longer depends on the input: it carries {100 * variance:.1f} % of the "
            f"differences between subjects (collapsed: under {100 * CONSTANT_OUTPUT:.0f} %).",
            f"The validation loss of {loss:.3f} lies by the collapse line {line} = {lines[line]:.3f}: "
            f"what {LINE_NAMES[line]} gives for every input.",
        ),
        (
            "Use the hybrid mask pattern (mask.pattern=hybrid), so that other modalities tell what is "
            "hidden.",
            "Check that the network knows where a mask token is, and lower mask.ratio or mask.unit.",
            "If the loss never moved, train longer or raise train.learning_rate.",
        ),
    )


def _mean(values) -> float:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan
