"""Does pre-training pay when labels are few?"""

from __future__ import annotations

from emim.study.arm import Arm, Study
from emim.study.dice import case_table, compare_dice, compare_with_controls, dice_by_labels, dice_table
from emim.study.methods import CONTRASTIVE, EMIM, PLAIN
from emim.study.plots import curves, figure
from emim.study.report import Report
from emim.study.results import Results

ARMS = (
    Arm("scratch", "no pre-training", None),
    Arm("emim", "pre-trained by E-MIM", EMIM, control="scratch"),
    Arm("plain", "pre-trained by plain masked image modelling", PLAIN, control="scratch"),
    Arm("contrastive", "pre-trained by contrast of crops", CONTRASTIVE, control="scratch"),
)


def report(results: Results) -> Report:
    told = Report(compare_with_controls(results), [dice_table(results), case_table(results)])
    for labelled in results.plan.labelled:
        for other in ("plain", "contrastive"):
            told.verdict += compare_dice(results, ARMS[1], other, labelled)
    told.figures["labels"] = (
        figure(
            curves(dice_by_labels(results, results.arms), "labelled training cases", "test Dice", points=True)
        ),
        "Mean Dice on the test cases by the number of labelled cases; faint: each seed.",
    )
    return told


STUDY = Study(
    "labels",
    "How much Dice does pre-training gain at each number of labelled cases, all else being equal?",
    ARMS,
    report,
    fractions=(1.0, 0.5, 0.25),
)
