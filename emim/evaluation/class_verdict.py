"""From the validation of a classification run to plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from emim.objectives.verdict import Verdict

BETTER, GUESSING, UNDECIDED = "better than guessing", "no better than guessing", "undecided"
# An AUC up to this says nothing, however many cases there are.
NEAR_CHANCE = 0.55
EARLY = 0.2  # share of the steps before which a run is not judged
NEVER_FOUND = 0.2  # recall under which a class counts as hardly ever found


def judge_classes(values: Mapping[str, Any], progress: float = 1.0) -> Verdict:
    """Judge a run by its latest validation.

    Args:
        values: of the metric event: ``auc``, ``auc_interval``, ``balanced_accuracy``, ``recall_per_class``
            and ``cases``.
        progress: share of the planned steps that is done.

    Returns:
        ``state`` is :data:`BETTER` (the whole 95 % interval of the AUC lies above 0.5), :data:`GUESSING` or
        :data:`UNDECIDED`.
    """
    area, interval = values.get("auc"), values.get("auc_interval")
    if progress < EARLY:
        return Verdict(UNDECIDED, ("Too early to tell: the run has only begun.",))
    if area is None or not math.isfinite(area):
        return Verdict(
            UNDECIDED,
            ("The validation cases are of one class only, so there is no AUC.",),
            ("Name validation cases of every class.",),
        )
    ends = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    why = [
        f"Validation AUC {area:.2f}{ends}, balanced accuracy {values['balanced_accuracy']:.2f} in "
        f"{values['cases']} cases."
    ]
    advice = []
    never = [c for c, v in values["recall_per_class"].items() if v is not None and v < NEVER_FOUND]
    if never:
        why.append(f"Hardly ever recognised: {', '.join(never)}.")
    if area <= NEAR_CHANCE:
        advice = [
            "Train longer, or give more cases.",
            "Choose train.crop (or a coarser preprocess.spacing) so that one crop shows what tells the "
            "classes apart.",
        ]
        return Verdict(GUESSING, tuple(why), tuple(advice))
    if interval and interval[0] > 0.5:
        advice = ["Usually these cases choose the step, too: judge the model by cases that took no part."]
        return Verdict(BETTER, tuple(why), tuple(advice))
    why.append("So few validation cases could give this by chance.")
    return Verdict(UNDECIDED, tuple(why), ("Validate on more cases, or test on others.",))
