"""Training and validation cases, split by subject."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.config import TrainConfig
from emim.errors import EmimError


@dataclass(frozen=True)
class Split:
    """Ids of the cases to train on, to validate on, and those kept out of everything."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def exclude_subjects(cohort: Cohort, ids: Sequence[str]) -> tuple[Cohort, tuple[str, ...]]:
    """The cohort without the subjects of the named cases, and the ids of all cases left out.

    Raises:
        EmimError: for an unknown id.
    """
    out = {c.subject for c in cohort.select(ids).cases}
    excluded = tuple(c.id for c in cohort.cases if c.subject in out)
    return cohort.without(excluded), excluded


def split_by_subject(cohort: Cohort, config: TrainConfig) -> Split:
    """Split ``cohort`` as ``config`` says; no subject is on both sides.

    ``config.exclude`` keeps cases out, with all other cases of their subjects. Validation cases are
    those named, or ``validation_share`` of the subjects (at least one, when there are three).

    Raises:
        EmimError: for an unknown id, a subject in two roles, or nothing left to train on.
    """
    left, excluded = exclude_subjects(cohort, config.exclude)
    for i in (*(config.validation or ()), *(config.cases or ())):
        if i in excluded:
            raise EmimError(
                f"Case {i!r} is to be used, but its subject is excluded.",
                hint="Give each subject one role.",
            )
    if config.validation is not None:
        validation = left.select(config.validation).cases
    else:
        chosen = _choose_subjects(left.cases, config)
        validation = tuple(c for c in left.cases if c.subject in chosen)
    subjects = {c.subject for c in validation}
    training = [c for c in left.cases if c.subject not in subjects]
    if config.cases is not None:
        training = list(left.select(config.cases).cases)
        for case in training:
            if case.subject in subjects:
                raise EmimError(
                    f"Case {case.id!r} is named for training, but its subject is for validation.",
                    hint="Give each subject one role.",
                )
    if not training:
        raise EmimError("No case is left to train on.", hint="Give more cases, or exclude fewer.")
    return Split(tuple(c.id for c in training), tuple(c.id for c in validation), excluded)


def recorded_split(run: Path) -> Split:
    """The split a run began with."""
    try:
        data = json.loads((run / "split.json").read_text(encoding="utf-8"))
        return Split(tuple(data["training"]), tuple(data["validation"]), tuple(data["excluded"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise EmimError("The split of the run, split.json, cannot be read.", run) from None


def read_split(file: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a split file: JSON with lists of ids ``test``, ``validation`` and ``training``, each optional.

    Returns:
        Settings for :class:`~emim.config.TrainConfig`: ``exclude``, ``validation``, ``cases``.
    """
    names = {"test": "exclude", "validation": "validation", "training": "cases"}
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) - set(names):
            raise ValueError(f"it needs lists named {', '.join(names)}, and nothing else")
        return {names[k]: tuple(str(i) for i in v) for k, v in data.items()}
    except (OSError, ValueError, TypeError) as error:
        raise EmimError(
            f"The split file cannot be read: {error}.",
            file,
            'It looks like {"test": ["id", …], "validation": ["id", …]}.',
        ) from None


def _choose_subjects(cases: Sequence[Case], config: TrainConfig) -> set[str]:
    subjects = sorted({c.subject for c in cases})
    if len(subjects) < 3 or config.validation_share <= 0:
        return set()
    count = min(len(subjects) - 1, max(1, round(config.validation_share * len(subjects))))
    rng = np.random.default_rng([config.seed, 1])
    return {subjects[i] for i in rng.choice(len(subjects), count, replace=False)}
