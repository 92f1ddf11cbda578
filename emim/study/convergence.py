"""Does pre-training make fine-tuning faster? "1.40 times" of arXiv 2204.11716, in a form one can test."""

from __future__ import annotations

import math
import statistics

from emim.study.arm import Arm, Study
from emim.study.compare import spread
from emim.study.dice import compare_dice, dice_table
from emim.study.methods import CONTRASTIVE, EMIM, MAE, PLAIN, SWIN, VIT
from emim.study.plots import curves, dots, figure, looks
from emim.study.report import Report, Table, cell
from emim.study.results import Outcome, Results

ARMS = (
    Arm("scratch", "residual U-Net, no pre-training", None),
    Arm("emim", "residual U-Net, E-MIM", EMIM, control="scratch"),
    Arm("plain", "residual U-Net, plain masked image modelling", PLAIN, control="scratch"),
    Arm("contrastive", "residual U-Net, contrast of crops", CONTRASTIVE, control="scratch"),
    Arm("vit-scratch", "ViT, no pre-training", None, both=VIT),
    Arm("vit-mae", "ViT, MAE", MAE, both=VIT, control="vit-scratch"),
    Arm("vit-simmim", "ViT, SimMIM", {**PLAIN, "decoder": "linear"}, both=VIT, control="vit-scratch"),
    Arm("swin-scratch", "Swin, no pre-training", None, both=SWIN),
    Arm("swin-simmim", "Swin, SimMIM", {**PLAIN, "decoder": "linear"}, both=SWIN, control="swin-scratch"),
    Arm("swin-emim", "Swin, E-MIM", EMIM, both=SWIN, control="swin-scratch"),
)


def report(results: Results) -> Report:
    told = Report()
    for labelled in results.plan.labelled:
        for arm in results.arms:
            if arm.control is None:
                continue
            told.verdict += _speed_in_words(results, arm, labelled)
            told.verdict += compare_dice(results, arm, arm.control, labelled)
    told.tables = [_speed_table(results), dice_table(results)]
    look = looks([a.name for a in results.arms])
    for labelled in results.plan.labelled:
        told.figures[f"convergence-labelled{labelled}"] = (
            figure(
                curves(
                    {
                        a.name: [o.finetuning.curve("dice") for o in results.of(a, labelled)]
                        for a in results.arms
                    },
                    "step of fine-tuning",
                    "validation Dice",
                    look=look,
                ),
                dots(
                    {a.name: speedups(results, a, labelled)[0] for a in results.arms if a.control},
                    "times faster to scratch's best validation Dice",
                    1.0,
                    look,
                ),
            ),
            f"{labelled} labelled cases. Left: validation Dice; faint: each seed. Right: how many times "
            "fewer steps than from scratch; seeds that never reached that Dice are missing.",
        )
    return told


def speedups(results: Results, arm: Arm, labelled: int) -> tuple[list[float], int]:
    """Of the seeds that reached their scratch's best validation Dice, by which factor sooner; and how many
    seeds could be compared."""
    factors, compared = [], 0
    for outcome, target in _pairs(results, arm, labelled):
        compared += 1
        reached = outcome.finetuning.step_reaching(target[1])
        if reached:
            factors.append(target[0] / reached)
    return factors, compared


def _pairs(results: Results, arm: Arm, labelled: int) -> list[tuple[Outcome, tuple[int, float]]]:
    """Finished outcomes with step and value of the best Dice of the same seed from scratch."""
    control = {o.seed: o for o in results.of(arm.control, labelled)} if arm.control else {}
    return [
        (o, best)
        for o in results.of(arm, labelled)
        if o.finished
        and o.seed in control
        and control[o.seed].finished
        and (best := control[o.seed].finetuning.best())
        and best[1] > 0  # what never learnt anything is no mark to reach
    ]


def _speed_table(results: Results) -> Table:
    rows = []
    for labelled in results.plan.labelled:
        for arm in results.arms:
            outcomes = results.of(arm, labelled)
            bests = [b for o in outcomes if (b := o.finetuning.best())]
            per_step = spread([o.finetuning.seconds_per_step for o in outcomes])
            row = [labelled, arm.name, spread([b[1] for b in bests]), spread([float(b[0]) for b in bests], 0)]
            if arm.control is None:
                rows.append([*row, "-", "-", "-", per_step, "-"])
                continue
            pairs = _pairs(results, arm, labelled)
            steps = [o.finetuning.step_reaching(best[1]) for o, best in pairs]
            seconds = [
                s * o.finetuning.seconds_per_step if s and o.finetuning.seconds_per_step else None
                for s, (o, _) in zip(steps, pairs, strict=True)
            ]
            each = ", ".join(cell(s) if s else "never" for s in steps) or "-"
            before = spread([o.pretraining.seconds for o in outcomes], 0)
            factors = ", ".join(f"{f:.2f}" for f in speedups(results, arm, labelled)[0]) or "-"
            rows.append([*row, each, spread(seconds, 0), factors, per_step, before])
    return Table(
        "Steps and seconds to the best validation Dice of training from scratch",
        ["labelled", "arm", "best validation Dice", "at step", "steps to scratch's best", "seconds",
         "times faster", "s per step", "pre-training s"],
        rows,
        "By seed, against the same seed from scratch with the same network. Steps are known to within one "
        "interval of validation. Scratch's best is the highest of many noisy values, which favours scratch.",
    )  # fmt: skip


def _speed_in_words(results: Results, arm: Arm, labelled: int) -> list[str]:
    factors, compared = speedups(results, arm, labelled)
    if not compared:
        return []
    start = f"{labelled} labelled, {arm.name} against {arm.control}: "
    if not factors:
        return [f"{start}scratch's best validation Dice is not reached in any of {compared} seeds."]
    mean = math.exp(statistics.fmean(map(math.log, factors)))
    each = ", ".join(f"{f:.2f}" for f in factors)
    if len(factors) < compared:
        return [
            f"{start}scratch's best validation Dice is reached in {len(factors)} of {compared} seeds, "
            f"there {mean:.2f} times faster ({each}); over all seeds it cannot be called faster."
        ]
    faster = sum(f > 1 for f in factors)
    said = f"faster in {faster} of {compared} seeds"
    return [f"{start}scratch's best validation Dice is reached {mean:.2f} times faster ({each}); {said}."]


STUDY = Study(
    "convergence",
    "In how many steps and seconds does fine-tuning reach the best validation Dice of training from scratch?",
    ARMS,
    report,
)
