"""How much to hide, and in how large pieces?"""

from __future__ import annotations

import statistics

import numpy as np

from emim.config import PretrainConfig
from emim.study.arm import Arm, Study
from emim.study.dice import compare_with_controls, dice_table
from emim.study.methods import EMIM
from emim.study.plots import figure, heat
from emim.study.report import Report
from emim.study.results import Results

RATIOS = (0.5, 0.75, 0.875)
FACTORS = (0.5, 1.0, 2.0)  # of the unit that the settings name


def _unit(factor: float):
    def unit(config: PretrainConfig) -> int:
        return int(config.mask.unit * factor)

    return unit


def _name(ratio: float, factor: float) -> str:
    return f"ratio{ratio:g}-unit{factor:g}x"


ARMS = (
    Arm("scratch", "no pre-training", None),
    *(
        Arm(
            _name(ratio, factor),
            f"E-MIM, {ratio:g} hidden, units {factor:g} times as wide as set",
            {**EMIM, "mask.ratio": ratio, "mask.unit": _unit(factor)},
            control="scratch",
        )
        for ratio in RATIOS
        for factor in FACTORS
    ),
)


def report(results: Results) -> Report:
    told = Report()
    told.verdict.append(
        f"{len(results.arms)} arms are compared: the best of so many is best partly by chance, and only "
        "another cohort can confirm it."
    )
    told.verdict += compare_with_controls(results)
    told.tables = [dice_table(results)]
    unit = results.plan.base("pretrain").mask.unit
    for labelled in results.plan.labelled:
        mean = {}
        for arm in results.arms:
            known = [o.dice for o in results.of(arm, labelled) if o.dice is not None]
            mean[arm.name] = statistics.fmean(known) if known else np.nan
        grid = [[mean.get(_name(r, f), np.nan) for f in FACTORS] for r in RATIOS]
        told.figures[f"masking-labelled{labelled}"] = (
            figure(
                heat(
                    grid,
                    [f"{unit * f:g}" for f in FACTORS],
                    [f"{r:g}" for r in RATIOS],
                    "side of a mask unit, voxels",
                    "share hidden",
                    "test Dice",
                )
            ),
            f"{labelled} labelled cases: mean Dice on the test cases over the seeds; scratch has "
            f"{mean.get('scratch', np.nan):.3f}.",
        )
    return told


STUDY = Study(
    "masking",
    "Which share of the units should be hidden, and how large should a unit be?",
    ARMS,
    report,
)
