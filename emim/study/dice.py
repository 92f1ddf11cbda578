"""Dice of fine-tuned arms: the tables, figures and sentences that several studies share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from emim.study.arm import Arm
from emim.study.compare import difference, in_words, interval_in_words, spread
from emim.study.report import Table
from emim.study.results import Outcome, Results, by_seed


def dice_table(results: Results, title: str = "Dice on the test cases") -> Table:
    """Every arm at every number of labelled cases: each structure, their mean, each seed, the cost."""
    structures = next((list(o.test["structures"]) for o in results.outcomes if o.test), [])
    rows = []
    for labelled in results.plan.labelled:
        for arm in results.arms:
            outcomes = results.of(arm, labelled)
            each = [
                spread([o.test["summary"][s]["dice"]["mean"] if o.test else None for o in outcomes])
                for s in structures
            ]
            best = [o.finetuning.best() for o in outcomes]
            rows.append(
                [
                    labelled,
                    arm.name,
                    *each,
                    f"**{spread([o.dice for o in outcomes])}**",
                    ", ".join(_dice_or_state(o) for o in outcomes),
                    spread([b[1] if b else None for b in best]),
                    spread([o.pretraining.seconds if o.pretraining else None for o in outcomes], 1),
                    spread([o.finetuning.seconds for o in outcomes], 1),
                ]
            )
    columns = ["labelled", "arm", *structures, "mean Dice", "by seed", "validation Dice", "pre-training s",
               "fine-tuning s"]  # fmt: skip
    note = (
        "Mean over test cases, then mean ± standard deviation over seeds; validation Dice is the best of the "
        "run. Seconds are of the steps alone."
    )
    return Table(title, columns, rows, note)


def case_table(results: Results) -> Table:
    """Every test case, mean over seeds, at every number of labelled cases."""
    arms = [(n, a) for n in results.plan.labelled for a in results.arms]
    scores = {(n, a.name): _cases(results.of(a, n)) for n, a in arms}
    cases = sorted({c for by_case in scores.values() for c in by_case})
    rows = [[c, *(scores[n, a.name].get(c) for n, a in arms)] for c in cases]
    return Table(
        "Every test case",
        ["case", *(f"{a.name}, {n}" for n, a in arms)],
        rows,
        "Mean Dice over structures and seeds. Where reference and result are both empty, Dice is 1.",
    )


def compare_dice(results: Results, arm: Arm, control: str, labelled: int) -> list[str]:
    """What the difference of test Dice (validation Dice, until the tests are done) shows."""
    of = [results.of(name, labelled) for name in (arm.name, control)]
    what = "test"
    values = [by_seed(each, lambda o: o.dice) for each in of]
    if not all(values):
        what = "best validation"
        values = [by_seed(each, _best) for each in of]
    found = difference(*values)
    if found is None:
        return []
    told = in_words(found, len(results.plan.seeds))
    subjects = difference(*(_subjects(results, each, found.values) for each in of))
    if what == "test" and subjects is not None and subjects.interval is not None:
        told += f" Over the {len(subjects.values)} test subjects: {interval_in_words(subjects.interval)}."
    return [f"{labelled} labelled, {arm.name} minus {control}, {what} Dice: {told}"]


def compare_with_controls(results: Results) -> list[str]:
    """:func:`compare_dice` of every arm with its control, at every number of labelled cases."""
    pairs = [(n, a) for n in results.plan.labelled for a in results.arms if a.control]
    return [told for n, a in pairs for told in compare_dice(results, a, a.control, n)]


def dice_by_labels(results: Results, arms: Sequence[Arm]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Arm to curves of test Dice over the number of labelled cases, one for each seed."""
    found = {}
    for arm in arms:
        by_seed = []
        for seed in results.plan.seeds:
            pairs = sorted(
                (o.labelled, o.dice) for o in results.of(arm) if o.seed == seed and o.dice is not None
            )
            by_seed.append((np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])))
        found[arm.name] = by_seed
    return found


def _dice_or_state(outcome: Outcome) -> str:
    if outcome.dice is not None:
        failed = outcome.test.get("failed")
        return f"{outcome.dice:.3f}" + (f" ({failed} test cases failed: Dice 0)" if failed else "")
    return outcome.reason or ("not tested yet" if outcome.finished else outcome.trainings[-1].state)


def _best(outcome: Outcome) -> float | None:
    """Best validation Dice of a finished fine-tuning."""
    best = outcome.finetuning.best() if outcome.finished else None
    return best[1] if best else None


def _cases(outcomes: Sequence[Outcome], seeds: Sequence | None = None) -> dict[str, float]:
    """Test case to its Dice, mean over the seeds that were tested."""
    tested = [o.case_dice() for o in outcomes if o.test and (seeds is None or o.seed in seeds)]
    cases = {c for by_case in tested for c in by_case}
    return {c: statistics.fmean(by_case[c] for by_case in tested if c in by_case) for c in sorted(cases)}


def _subjects(results: Results, outcomes: Sequence[Outcome], seeds: Sequence) -> dict[str, float]:
    """Test subject to the mean Dice of its cases, which do not count as independent."""
    of = results.plan.found.cohort.subjects()
    found: dict[str, list[float]] = {}
    for case, dice in _cases(outcomes, seeds).items():
        found.setdefault(of.get(case, case), []).append(dice)
    return {subject: statistics.fmean(each) for subject, each in found.items()}
