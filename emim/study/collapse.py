"""Do masked models of multi-modal MRI collapse, and do E-MIM's masks and regulariser prevent it?"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from emim.objectives.verdict import CONSTANT_OUTPUT, LOW_RANK
from emim.study.arm import Arm, Study
from emim.study.compare import difference, in_words, spread
from emim.study.methods import EMIM, HYBRID, PLAIN, deepest
from emim.study.plots import curves, dots, figure, looks
from emim.study.report import Report, Table
from emim.study.results import Results, Training, by_seed

_NONE = {"objective": "mim", "regulariser.name": "none"}


def _mask(pattern: str, text: str) -> Arm:
    return Arm(pattern, text, {**_NONE, "mask.pattern": pattern}, control="random")


ARMS = (
    Arm("random", "plain masking: the same positions in every modality (also called position)", PLAIN),
    _mask("modal", "whole modalities hidden"),
    _mask("patch", "positions drawn for each modality"),
    _mask("hybrid", "E-MIM's masks (modal, position, patch), no regulariser"),
    _mask("m3ae", "masks as in M3AE, which hides 0.875, at the ratio of the other arms"),
    _mask("dirichlet", "masks as in BM-MAE"),
    Arm("barlow", "E-MIM: hybrid masks, Barlow twins at all levels but the finest", EMIM, control="hybrid"),
    Arm(
        "barlow-deepest",
        "hybrid masks, Barlow twins at the coarsest level alone",
        {**EMIM, "regulariser.levels": deepest},
        control="hybrid",
    ),
    Arm("uniformity", "hybrid masks, U-MAE's uniformity", {**HYBRID, "regulariser.name": "uniformity"},
        control="hybrid"),
    Arm("vicreg", "hybrid masks, VICReg", {**HYBRID, "regulariser.name": "vicreg"}, control="hybrid"),
)  # fmt: skip


def report(results: Results) -> Report:
    masks = [a for a in results.arms if a.control in (None, "random")]
    regularisers = [a for a in results.arms if a.name == "hybrid" or a.control == "hybrid"]
    told = Report(_verdict(results))
    look = looks([a.name for a in results.arms])
    told.tables = [_losses(results), _features(results)]
    told.figures["loss"] = (
        figure(
            curves(
                {a.name: [_relative(t) for t in results.pretrainings(a)] for a in masks},
                "step",
                "validation loss ÷ $L_c$",
                {"$L_c$": 1.0},
                look=look,
            ),
            dots(
                _by_arm(results, lambda t: t.last("output_variance")),
                "variance of the output, share of the target's",
                CONSTANT_OUTPUT,
                look,
            ),
        ),
        "Left: validation loss of each mask pattern as a share of its own collapse line. Right: how much of "
        "the differences between subjects the output carries; constant left of the dashed line.",
    )
    told.figures["rank"] = (
        figure(
            curves(
                {a.name: [_ranks(t) for t in results.pretrainings(a)] for a in regularisers},
                "pyramid level, finest first",
                "effective / attainable rank",
                {"collapsed": LOW_RANK},
                points=True,
                look=look,
            ),
            dots(_by_arm(results, lambda t: t.seconds_per_step), "seconds per step", None, look),
        ),
        "Left: effective rank of the features by level. Right: cost of a step.",
    )
    return told


def _losses(results: Results) -> Table:
    rows = []
    for arm in results.arms:
        runs = results.pretrainings(arm)
        lines = [spread([t.lines().get(n) for t in runs]) for n in ("L_a", "L_b", "L_c", "L_c_unseen")]
        rows.append(
            [
                arm.name,
                spread([t.last("reconstruction") for t in runs]),
                *lines,
                f"**{spread([t.loss_over_line for t in runs])}**",
                spread([t.last("output_variance") for t in runs]),
                _states(runs),
                ", ".join("yes" if t.still_falling else "no" for t in runs if t.state != "missing") or "-",
            ]
        )
    return Table(
        "Complete collapse: converged validation loss against the collapse lines",
        ["arm", "loss", "L_a", "L_b", "L_c", "L_c unseen", "loss ÷ L_c unseen", "output variance",
         "verdict by seed", "still falling"],
        rows,
        "Loss and lines are of the arm's own masks, so only their ratio compares arms: clearly below 1 is "
        "healthy. Mean ± standard deviation over seeds.",
    )  # fmt: skip


def _features(results: Results) -> Table:
    rows = []
    for arm in results.arms:
        runs = results.pretrainings(arm)
        count = max((len(t.levels("rank_ratio")) for t in runs), default=0)
        ratios = [spread([t.levels("rank_ratio")[i] for t in _with_levels(runs)], 2) for i in range(count)]
        ranks = [spread([t.levels("effective_rank")[i] for t in _with_levels(runs)], 1) for i in range(count)]
        deep = [statistics.fmean(t.levels("correlation")[1:] or [np.nan]) for t in _with_levels(runs)]
        cost = [t.seconds_per_step for t in runs]
        rows.append([arm.name, ", ".join(ratios) or "-", ", ".join(ranks) or "-", spread(deep), spread(cost)])
    return Table(
        "Dimensional collapse: the features' effective rank, and what a step costs",
        ["arm", "rank ratio by level", "effective rank by level", "mean correlation", "s per step"],
        rows,
        "Finest level first. Rank ratio: effective rank as a share of what the features could have. "
        "Correlation: mean over all levels but the finest.",
    )


def _verdict(results: Results) -> list[str]:
    told = []
    for arm in results.arms:
        runs = [t for t in results.pretrainings(arm) if t.state == "finished"]
        collapsed = [t for t in runs if "collapse" in t.verdict]
        ratios = [t.loss_over_line for t in runs]
        if runs:
            said = f"{len(collapsed)} of {len(runs)} runs collapsed" if collapsed else "no run collapsed"
            told.append(f"{arm.name}: loss ÷ L_c unseen {spread(ratios)}; {said}.")
    falling = [t.name for a in results.arms for t in results.pretrainings(a) if t.still_falling]
    if falling:
        told.append(f"The loss was still falling at the end of {len(falling)} runs: {', '.join(falling)}.")
    ratio = ("loss ÷ L_c unseen", lambda t: t.loss_over_line)
    rank = ("mean rank ratio beyond the finest level", _deep_rank)
    cost = ("seconds per step", lambda t: t.seconds_per_step)
    masks = [(a.name, "random", ratio) for a in results.arms if a.control == "random"]
    others = [
        (a.name, "hybrid", m) for a in results.arms if a.control == "hybrid" for m in (rank, ratio, cost)
    ]
    rivals = [("barlow", a.name, rank) for a in results.arms if a.control == "hybrid" and a.name != "barlow"]
    for arm, control, (what, value) in (*masks, *others, *rivals):
        found = difference(_by_seed(results, arm, value), _by_seed(results, control, value))
        if found:
            told.append(f"{arm} minus {control}, {what}: {in_words(found, len(results.plan.seeds))}")
    return told


def _by_seed(results: Results, arm: str, value: Callable[[Training], float | None]) -> dict[int, float]:
    """Seed to a value of the finished pre-trainings."""
    finished = [o for o in results.of(arm) if o.finished]
    return by_seed(finished, lambda o: value(o.pretraining))


def _by_arm(results: Results, value: Callable[[Training], float | None]) -> dict[str, list[float | None]]:
    return {a.name: [value(t) for t in results.pretrainings(a)] for a in results.arms}


def _deep_rank(training: Training) -> float | None:
    levels = training.levels("rank_ratio")
    return statistics.fmean(levels[1:]) if len(levels) > 1 else None


def _with_levels(runs: list[Training]) -> list[Training]:
    return [t for t in runs if t.levels("rank_ratio")]


def _relative(training: Training) -> tuple[np.ndarray, np.ndarray]:
    steps, loss = training.curve("reconstruction")
    lines = training.lines()
    line = lines.get("L_c_unseen") or lines.get("L_c")
    after = steps > 0  # an untrained network's loss would flatten the rest
    return (steps[after], loss[after] / line) if line and len(steps) else (np.array([]), np.array([]))


def _ranks(training: Training) -> tuple[np.ndarray, np.ndarray]:
    levels = training.levels("rank_ratio")
    return np.arange(1, len(levels) + 1), np.array(levels)


def _states(runs: list[Training]) -> str:
    said = [t.reason or (t.verdict if t.state == "finished" else t.state) for t in runs]
    return said[0] if len(set(said)) == 1 else "; ".join(said)


STUDY = Study(
    "collapse",
    "Does masked pre-training collapse to average anatomy or into few dimensions, and do E-MIM's hybrid "
    "masks and Barlow pyramid prevent it?",
    ARMS,
    report,
    finetunes=False,
)
