"""Training and validation cases, split by subject."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.config import TrainConfig
from emim.errors import EmimError


@dataclass(frozen=True)
class Split:
    """Ids of the cases to train on, to validate on, and those kept out of everything.

    Attributes:
        unlabelled: named for training or validation, but left out for want of a label or class.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def exclude_subjects(cohort: Cohort, ids: Sequence[str]) -> tuple[Cohort, tuple[str, ...]]:
    """The cohort without the subjects of the named cases, and the ids of all cases left out.

    A named case need not be usable: its subject's other cases are left out all the same.

    Raises:
        EmimError: for an unknown id.
    """
    out = subjects_of(cohort, ids)
    excluded = tuple(i for i, subject in cohort.subjects().items() if subject in out)
    return cohort.without(excluded), excluded


def subjects_of(cohort: Cohort, ids: Sequence[str]) -> set[str]:
    """The subjects of the named cases, which need not be usable.

    Raises:
        EmimError: for an unknown id.
    """
    subjects = cohort.subjects()
    cohort.select([i for i in ids if i not in subjects])  # refuses them
    return {subjects[i] for i in ids}


def split_by_subject(
    cohort: Cohort,
    config: TrainConfig,
    classes: Mapping[str, str] | None = None,
    labelled: Collection[str] | None = None,
) -> Split:
    """Split ``cohort`` as ``config`` says; no subject is on both sides.

    ``config.exclude`` keeps cases out, with all other cases of their subjects. Validation cases are
    those named, or ``validation_share`` of the subjects (at least one, when there are three), drawn from
    those not named for training. With ``classes`` (case id to class) that share of the subjects of each
    class is taken, at least one where a class has two; a subject counts to the class of most of its cases.

    Only cases in ``labelled`` (None: all) are trained or validated on. Others may be named, which gives
    their subject its role: one split serves pre-training and fine-tuning.

    Raises:
        EmimError: for an unknown id, a subject in two roles, or nothing left to train or validate on.
    """
    left, excluded = exclude_subjects(cohort, config.exclude)
    for i in (*(config.validation or ()), *(config.cases or ())):
        if i in excluded:
            raise EmimError(
                f"Case {i!r} is to be used, but its subject is excluded.",
                hint="Give each subject one role.",
            )
    pool = [c for c in left.cases if labelled is None or c.id in labelled]
    named = None if config.cases is None else left.select(config.cases).cases
    if config.validation is not None:
        validation = left.select(config.validation).cases
    else:
        chosen = _choose_subjects(pool, config, classes, {c.subject for c in named or ()})
        validation = [c for c in pool if c.subject in chosen]
    subjects = {c.subject for c in validation}
    training = [c for c in pool if c.subject not in subjects] if named is None else named
    for case in training:
        if case.subject in subjects:
            raise EmimError(
                f"Case {case.id!r} is named for training, but its subject is for validation.",
                hint="Give each subject one role.",
            )
    usable = {c.id for c in pool}
    unlabelled = tuple(c.id for c in (*training, *validation) if c.id not in usable)
    training, validation = (tuple(c.id for c in p if c.id in usable) for p in (training, validation))
    if not training:
        hint = "Label some of those named." if unlabelled else "Give more cases, or exclude fewer."
        raise EmimError("No case is left to train on.", hint=hint)
    return Split(training, validation, excluded, unlabelled)


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
        Settings for :class:`~emim.config.TrainConfig`: ``exclude``, ``validation``, ``cases``; each id once.
    """
    names = {"test": "exclude", "validation": "validation", "training": "cases"}
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8-sig"))  # Windows' editors add a mark
        if not isinstance(data, dict) or set(data) - set(names):
            raise ValueError(f"it needs lists named {', '.join(names)}, and nothing else")
        return {names[k]: tuple(dict.fromkeys(str(i) for i in v)) for k, v in data.items()}
    except (OSError, ValueError, TypeError) as error:
        raise EmimError(
            f"The split file cannot be read: {error}.",
            file,
            'It looks like {"test": ["id", …], "validation": ["id", …]}.',
        ) from None


def _choose_subjects(
    cases: Sequence[Case], config: TrainConfig, classes: Mapping[str, str] | None, training: set[str]
) -> set[str]:
    """Subjects to validate on, drawn from those not named for ``training`` (empty: no list names any)."""
    subjects = sorted({c.subject for c in cases})
    if len(subjects) < 3 or config.validation_share <= 0:
        return set()
    rng = np.random.default_rng([config.seed, 1])
    chosen: set[str] = set()
    for members in [subjects] if classes is None else _subjects_by_class(cases, classes).values():
        free = [s for s in members if s not in training]
        most = len(free) if training else len(free) - 1  # one must be left to train on
        count = min(most, max(1, round(config.validation_share * len(members))))
        chosen |= {free[i] for i in rng.choice(len(free), count, replace=False)}
    if training and not chosen:
        raise EmimError(
            "The cases named for training leave no subject for validation.",
            hint='Name some, as "validation" in the split file or train.validation; an empty list is none.',
        )
    return chosen


def _subjects_by_class(cases: Sequence[Case], classes: Mapping[str, str]) -> dict[str, list[str]]:
    """The subjects of each class, sorted."""
    counts: dict[str, Counter[str]] = {}
    for case in sorted(cases, key=lambda c: c.id):
        counts.setdefault(case.subject, Counter())[classes[case.id]] += 1
    of = {subject: min(n, key=lambda c: (-n[c], c)) for subject, n in counts.items()}
    return {c: sorted(s for s in of if of[s] == c) for c in sorted(set(of.values()))}
