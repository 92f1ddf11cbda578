"""What do frozen features tell of a case's class, the longer pre-training lasts?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from emim.config import PretrainConfig
from emim.report.record import is_number
from emim.study.arm import Arm, Study
from emim.study.compare import difference, in_words, spread
from emim.study.methods import EMIM
from emim.study.plots import curves, figure
from emim.study.report import Report, Table
from emim.study.results import Outcome, Results, by_seed

MODES = {"knn": "nearest neighbours", "linear": "a linear classifier"}
SCORES = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy",
          "majority_accuracy": "majority"}  # fmt: skip
SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)  # of the steps of pre-training


def _steps(share: float) -> Callable[[PretrainConfig], int]:
    def steps(config: PretrainConfig) -> int:
        return max(1, round(share * config.train.steps))

    return steps


def _arm(share: float, mode: str) -> Arm:
    probe = {"classification.mode": mode}
    if share == 0:
        return Arm(f"{mode}-untrained", f"{MODES[mode]} on features of random weights", None, probe)
    # A pre-training of its own, whose learning rate has come to its end, not a run looked at midway.
    return Arm(
        f"{mode}-{share:g}",
        f"{MODES[mode]} on features of E-MIM after {share:g} of the steps",
        {**EMIM, "train.steps": _steps(share)},
        probe,
        control=f"{mode}-untrained",
        pretrained=f"emim-{share:g}",
    )


ARMS = tuple(_arm(share, mode) for mode in MODES for share in SHARES)


def report(results: Results) -> Report:
    told = Report()
    for labelled in results.plan.labelled:
        rows = []
        for arm in results.arms:
            outcomes = results.of(arm, labelled)
            rows.append(
                [
                    arm.name,
                    *(spread([_score(o, name) for o in outcomes]) for name in SCORES),
                    ", ".join(_auc_or_state(o) for o in outcomes),
                    spread([o.pretraining.seconds if o.pretraining else None for o in outcomes], 1),
                ]
            )
            control = results.of(arm.control, labelled) if arm.control else []
            found = difference(by_seed(outcomes, _score), by_seed(control, _score))
            if found:
                said = in_words(found, len(results.plan.seeds))
                told.verdict.append(f"{labelled} cases, {arm.name} minus {arm.control}, test AUC: {said}")
        columns = ["arm", *SCORES.values(), "AUC by seed", "pre-training s"]
        note = (
            "On the test cases; majority: the accuracy of always naming the commonest class; chance: AUC 0.5."
        )
        told.tables.append(Table(f"Probes on {labelled} cases with a class", columns, rows, note))
        told.figures[f"probe-labelled{labelled}"] = (
            figure(
                curves(
                    {mode: _curves(results, mode, labelled) for mode in MODES},
                    "steps of pre-training",
                    "test AUC",
                    {"chance": 0.5},
                    points=True,
                )
            ),
            f"{labelled} cases with a class: AUC of probes on frozen features; faint: each seed.",
        )
    return told


def _score(outcome: Outcome, name: str = "auc") -> float | None:
    return value if is_number(value := outcome.test.get(name)) else None


def _curves(results: Results, mode: str, labelled: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """AUC over steps of pre-training, one curve for each seed."""
    steps = results.plan.base("pretrain").train.steps
    arms = [(share, results.of(_arm(share, mode).name, labelled)) for share in SHARES]
    found = []
    for seed in results.plan.seeds:
        pairs = [(share * steps, v) for share, o in arms if (v := by_seed(o, _score).get(seed)) is not None]
        found.append((np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])))
    return found


def _auc_or_state(outcome: Outcome) -> str:
    value = _score(outcome)
    return outcome.reason or outcome.trainings[-1].state if value is None else f"{value:.3f}"


STUDY = Study(
    "probe",
    "What do frozen features tell of the class of a case, the longer pre-training lasts?",
    ARMS,
    report,
    classifies=True,
)
