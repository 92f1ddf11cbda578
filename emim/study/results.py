"""The numbers of a study, read from its run folders; runs may be unfinished or missing."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emim.report.record import RunRecord, is_number, read_run
from emim.run_state import read_run as read_state
from emim.study.arm import Arm
from emim.study.jobs import finetuning_name, pretraining_name
from emim.study.plan import Plan

# A loss that fell by more than this share over the last fifth of its validations has not converged.
STILL_FALLING = 0.02


@dataclass
class Training:
    """A pre-training or fine-tuning run.

    Attributes:
        name: of the run.
        state: as of :class:`emim.run_state.RunState`, or "missing".
        reason: why it failed, or None.
        record: all it tells.
    """

    name: str
    state: str
    reason: str | None
    record: RunRecord

    @property
    def steps(self) -> int:
        return self.record.steps_done

    @cached_property
    def seconds_per_step(self) -> float | None:
        """Median over the run, so that validations, checkpoints and pauses do not count."""
        times = self.record.step_times
        pairs = zip(times[:-1], times[1:], strict=True)
        each = [(t1 - t0) / (s1 - s0) for (t0, s0), (t1, s1) in pairs if s1 > s0 and t1 > t0]
        return statistics.median(each) if each else None

    @property
    def seconds(self) -> float | None:
        """Of the steps that were done."""
        return None if self.seconds_per_step is None else self.seconds_per_step * self.steps

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric of the validation."""
        return self.record.curve("validation", name)

    def last(self, name: str) -> float | None:
        """Mean over the last validations, those the verdict goes by."""
        values = self.curve(name)[1]
        return float(values[-_recent(values) :].mean()) if len(values) else None

    def lines(self) -> dict[str, float]:
        return {k: v for k, v in self.record.collapse_lines.items() if is_number(v)}

    def levels(self, name: str) -> list[float]:
        """The last values of a metric of the pyramid, finest level first."""
        curves = self.record.curves("validation", name)
        return [float(curves[k][1][-1]) for k in sorted(curves, key=int)]

    @property
    def verdict(self) -> str:
        return str(self.record.verdict.get("state", "-"))

    @property
    def loss_over_line(self) -> float | None:
        """Converged loss as a share of the loss of a network that has collapsed to average anatomy."""
        loss, lines = self.last("reconstruction"), self.lines()
        line = lines.get("L_c_unseen") or lines.get("L_c")
        return loss / line if loss is not None and line else None

    @property
    def still_falling(self) -> bool:
        values = self.curve("reconstruction")[1]
        fifth = len(values) // 5
        if fifth < 1 or len(values) < 2:
            return False
        return values[-1 - fifth] - values[-1] > STILL_FALLING * values[-1 - fifth]

    def best(self) -> tuple[int, float] | None:
        """Step and value of the best validation Dice."""
        steps, dice = self.curve("dice")
        return (int(steps[dice.argmax()]), float(dice.max())) if len(dice) else None

    def step_reaching(self, dice: float) -> int | None:
        """The first validated step with this Dice or more."""
        steps, values = self.curve("dice")
        at = np.flatnonzero(values >= dice)
        return int(steps[at[0]]) if len(at) else None


@dataclass
class Outcome:
    """What became of one arm with one seed and number of labelled cases (None: nothing is fine-tuned)."""

    arm: Arm
    seed: int
    labelled: int | None
    pretraining: Training | None
    finetuning: Training | None
    test: dict[str, Any] = field(default_factory=dict)
    subsets: dict[str, Any] = field(default_factory=dict)
    test_error: str | None = None

    @property
    def trainings(self) -> list[Training]:
        return [t for t in (self.pretraining, self.finetuning) if t is not None]

    @property
    def reason(self) -> str | None:
        """Why there is no result, where something failed."""
        return next((t.reason for t in self.trainings if t.reason), self.test_error)

    @property
    def finished(self) -> bool:
        return all(t.state == "finished" for t in self.trainings)

    @property
    def dice(self) -> float | None:
        """Mean over the structures and test cases."""
        value = self.test.get("mean_dice")
        return value if is_number(value) else None

    def case_dice(self) -> dict[str, float]:
        """Test case to mean Dice over the structures; empty where cases were classified."""
        cases = self.test["cases"] if self.dice is not None else ()
        return {c["id"]: statistics.fmean(s["dice"] for s in c["scores"]) for c in cases}

    @property
    def all_seconds(self) -> float | None:
        """Pre-training and fine-tuning together."""
        each = [t.seconds for t in self.trainings]
        return None if None in each else math.fsum(each)


class Results:
    """All outcomes of a study, as far as they are.

    Args:
        plan: of the study.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcomes = list(self._read())

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.plan.arms

    def of(self, arm: Arm | str, labelled: int | None = None) -> list[Outcome]:
        """Outcomes of an arm, in order of the seeds; of any number of labelled cases when None."""
        name = arm if isinstance(arm, str) else arm.name
        return [
            o
            for o in self.outcomes
            if o.arm.name == name and (labelled is None or o.labelled in (None, labelled))
        ]

    def pretrainings(self, arm: Arm) -> list[Training]:
        """One for each seed."""
        found = {o.seed: o.pretraining for o in self.of(arm) if o.pretraining is not None}
        return list(found.values())

    def _read(self) -> Iterator[Outcome]:
        plan = self.plan
        for arm in plan.arms:
            for seed in plan.seeds:
                before = None
                if arm.pretraining is not None:
                    before = _training(plan, pretraining_name(arm, seed))
                if not plan.study.finetunes:
                    yield Outcome(arm, seed, None, before, None)
                for labelled in plan.labelled:
                    name = finetuning_name(arm, seed, labelled)
                    scores, subsets = (_json(plan.tests / name / f"{f}.json") for f in ("scores", "subsets"))
                    error = None if scores else _logged_error(plan.log(f"{name}-test"))
                    yield Outcome(arm, seed, labelled, before, _training(plan, name), scores, subsets, error)


def by_seed(outcomes: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> dict[int, float]:
    """Seed to the value of those outcomes that have one."""
    return {o.seed: v for o in outcomes if (v := value(o)) is not None}


def _training(plan: Plan, name: str) -> Training:
    folder = plan.run(name)
    logged = _logged_error(plan.log(name))
    if not (folder / "config.json").is_file():
        return Training(name, "failed" if logged else "missing", logged, RunRecord(folder))
    run = read_state(folder)
    reason = (run.error or {}).get("what") or (logged if run.state != "finished" else None)
    state = "failed" if reason and run.state != "running" else run.state
    return Training(name, state, reason if state == "failed" else None, read_run(folder))


def _logged_error(log: Path) -> str | None:
    """The error that ended the last attempt, where it ended by one."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else None


def _recent(values: np.ndarray) -> int:
    return max(1, min(3, len(values) // 5))


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
