"""What do voxel size and crop size do, with and without pre-training?"""

from __future__ import annotations

from emim.config import PretrainConfig
from emim.study.arm import Arm, Study
from emim.study.dice import compare_dice, compare_with_controls, dice_table
from emim.study.methods import EMIM
from emim.study.plots import dots, figure
from emim.study.report import Report
from emim.study.results import Results


def _coarser(factor: float):
    def spacing(config: PretrainConfig) -> tuple[float, ...]:
        return tuple(round(factor * s, 3) for s in config.preprocess.spacing)

    return spacing


def _side(factor: float):
    def side(config: PretrainConfig) -> int:
        return int(factor * config.train.crop)

    return side


SIZES = {
    "as-set": ("voxels and crop as set", {}),
    "voxels1.5x": ("voxels 1.5 times as wide", {"preprocess.spacing": _coarser(1.5)}),
    "voxels2x": ("voxels twice as wide", {"preprocess.spacing": _coarser(2.0)}),
    "crop0.5x": ("crops half as wide", {"train.crop": _side(0.5)}),
    "crop2x": ("crops twice as wide", {"train.crop": _side(2.0)}),
}
ARMS = tuple(
    arm
    for name, (text, settings) in SIZES.items()
    for arm in (
        Arm(f"scratch-{name}", f"no pre-training, {text}", None, both=settings),
        Arm(f"emim-{name}", f"E-MIM, {text}", EMIM, both=settings, control=f"scratch-{name}"),
    )
)


def report(results: Results) -> Report:
    told = Report(compare_with_controls(results), [dice_table(results)])
    for labelled in results.plan.labelled:
        for arm in results.arms:
            usual = f"{arm.name.split('-')[0]}-as-set"
            if arm.name != usual:
                told.verdict += compare_dice(results, arm, usual, labelled)
        outcomes = {a.name: results.of(a, labelled) for a in results.arms}
        told.figures[f"resolution-labelled{labelled}"] = (
            figure(
                dots({n: [o.dice for o in each] for n, each in outcomes.items()}, "test Dice"),
                dots(
                    {n: [o.all_seconds for o in each] for n, each in outcomes.items()}, "seconds, all steps"
                ),
            ),
            f"{labelled} labelled cases. Left: mean Dice on the test cases, on the grid of their labels. "
            "Right: time of all steps of pre-training and fine-tuning.",
        )
    return told


STUDY = Study(
    "resolution",
    "How do the size of voxels and of crops change the Dice, and what pre-training gains?",
    ARMS,
    report,
)
