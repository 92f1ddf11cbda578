"""Which masks teach a network to do without modalities?"""

from __future__ import annotations

import statistics

import numpy as np

from emim.study.arm import Arm, Study
from emim.study.compare import difference, in_words, spread
from emim.study.dice import dice_table
from emim.study.methods import EMIM, PLAIN
from emim.study.plots import curves, figure, heat
from emim.study.report import Report, Table
from emim.study.results import Outcome, Results, by_seed

ARMS = (
    Arm("scratch", "no pre-training", None),
    Arm("emim", "E-MIM: hybrid masks", EMIM, control="scratch"),
    # The masks alone, since the masks of others come without E-MIM's regulariser, too.
    Arm("hybrid", "E-MIM's masks, no regulariser", {**PLAIN, "mask.pattern": "hybrid"}, control="scratch"),
    Arm("m3ae", "masks as in M3AE, 0.875 hidden", {**PLAIN, "mask.pattern": "m3ae", "mask.ratio": 0.875},
        control="hybrid"),
    Arm("dirichlet", "masks as in BM-MAE", {**PLAIN, "mask.pattern": "dirichlet"}, control="hybrid"),
)  # fmt: skip


def report(results: Results) -> Report:
    told = Report()
    for labelled in results.plan.labelled:
        for arm in results.arms:
            for what, value in (
                ("mean Dice over all subsets", _mean_dice),
                ("mean Dice with one modality", lambda o: _by_count(o).get(1)),
            ):
                found = difference(
                    by_seed(results.of(arm, labelled), value),
                    by_seed(results.of(arm.control, labelled), value) if arm.control else {},
                )
                if found:
                    said = in_words(found, len(results.plan.seeds))
                    told.verdict.append(
                        f"{labelled} labelled, {arm.name} minus {arm.control}, {what}: {said}"
                    )
        subsets, names = _subsets(results, labelled)
        grid = [[_mean(results, a, labelled, s) for a in results.arms] for s in subsets]
        told.tables.append(
            Table(
                f"Dice on the test cases with every subset of the modalities, {labelled} labelled",
                ["modalities", *(a.name for a in results.arms)],
                [
                    [n, *(float(v) if np.isfinite(v) else None for v in g)]
                    for n, g in zip(names, grid, strict=True)
                ]
                + [["**all subsets**", *(spread(_values(results, a, labelled)) for a in results.arms)]],
                "Mean over structures, test cases with all modalities, and seeds.",
            )
        )
        if subsets:
            told.figures[f"modalities-labelled{labelled}"] = (
                figure(
                    curves(
                        {a.name: [_count_curve(o) for o in results.of(a, labelled)] for a in results.arms},
                        "modalities that are there",
                        "test Dice",
                        points=True,
                    ),
                    heat(grid, [a.name for a in results.arms], names, "", "", "test Dice"),
                ),
                f"{labelled} labelled cases. Left: mean Dice by the number of modalities; faint: each seed. "
                "Right: by subset.",
            )
    told.tables.append(dice_table(results))
    return told


def _mean_dice(outcome: Outcome) -> float | None:
    return outcome.subsets.get("mean_dice")


def _by_subset(outcome: Outcome) -> dict[tuple[str, ...], float]:
    return {tuple(s["modalities"]): s["mean_dice"] for s in outcome.subsets.get("subsets", ())}


def _by_count(outcome: Outcome) -> dict[int, float]:
    """Number of modalities to mean Dice over the subsets of that size."""
    found: dict[int, list[float]] = {}
    for subset, dice in _by_subset(outcome).items():
        found.setdefault(len(subset), []).append(dice)
    return {n: statistics.fmean(v) for n, v in sorted(found.items())}


def _count_curve(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    found = _by_count(outcome)
    return np.array(list(found)), np.array(list(found.values()))


def _subsets(results: Results, labelled: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """All subsets that were tested, small ones first, and their names."""
    found = {s for a in results.arms for o in results.of(a, labelled) for s in _by_subset(o)}
    order = sorted(found, key=lambda s: (len(s), [results.plan.modalities.index(m) for m in s]))
    return order, [" + ".join(s) for s in order]


def _mean(results: Results, arm: Arm, labelled: int, subset: tuple[str, ...]) -> float:
    known = [d[subset] for o in results.of(arm, labelled) if subset in (d := _by_subset(o))]
    return statistics.fmean(known) if known else np.nan


def _values(results: Results, arm: Arm, labelled: int) -> list[float | None]:
    return [_mean_dice(o) for o in results.of(arm, labelled)]


STUDY = Study(
    "modalities",
    "How well does each model do with every subset of its modalities, after masks that hide whole modalities "
    "in pre-training or not?",
    ARMS,
    report,
    subsets=True,
)
