"""Who is for the test, who validates: fixed before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emim.cohort.case import Case
from emim.cohort.scan import Scan
from emim.errors import EmimError
from emim.training.split import subjects_of

LEAST = 6  # labelled subjects for a test, a validation and a training


def draw_split(
    found: Scan,
    given: Mapping[str, Sequence[str]],
    finetunes: bool,
    classes: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """The split of a study: ``given`` (see :func:`emim.training.split.read_split`), the rest drawn.

    Of the labelled subjects a third is for the test and, of those left, a fifth, at least two, validates. A
    study without labels has no test unless one is given; a sixth of the subjects, at least two, validates.
    With ``classes`` (case id to class) the cases that have one are labelled, and classes are drawn in turn.

    Returns:
        Lists of ids as in a split file: ``test``, ``validation``, and ``training`` where it was given.

    Raises:
        EmimError: when the cohort is too small, or the given split names no test for a study that needs one.
    """
    names = {"test": "exclude", "validation": "validation", "training": "cases"}
    split = {name: list(given[setting]) for name, setting in names.items() if setting in given}
    pool = labelled_cases(found, classes) if finetunes else found.cohort.cases
    kinds = {c.subject: (classes or {}).get(c.id, "") for c in pool}
    rng = np.random.default_rng(0)
    if finetunes and "test" not in split:
        if given:
            raise EmimError("The split names no test cases.", hint='Give it a list named "test".')
        subjects = _subjects(pool)
        if len(subjects) < LEAST:
            raise EmimError(
                f"The study needs labels for {LEAST} subjects at least; {len(subjects)} have them.",
                found.source,
                "Label more, or give --split with test and validation cases.",
            )
        split["test"] = _draw(pool, subjects, max(2, len(subjects) // 3), kinds, rng)
    split.setdefault("test", [])
    if "validation" not in split:
        out = subjects_of(found.cohort, [*split["test"], *split.get("training", ())])
        subjects = [s for s in _subjects(pool) if s not in out]
        count = max(2, len(subjects) // (5 if finetunes else 6))
        if len(subjects) <= count:
            raise EmimError(
                f"{len(subjects)} subjects are left for training and validation: too few.",
                found.source,
                "Give more subjects, or a --split that names validation cases.",
            )
        split["validation"] = _draw(pool, subjects, count, kinds, rng)
    return split


def labelled_cases(found: Scan, classes: Mapping[str, str] | None) -> Sequence[Case]:
    """The cases that have a label map, or a class where ``classes`` are given."""
    if classes is None:
        return found.cohort.labelled()
    return [c for c in found.cohort.cases if c.id in classes]


def labelled_for_training(
    found: Scan, split: Mapping[str, Sequence[str]], classes: Mapping[str, str] | None = None
) -> list[str]:
    """Ids of the labelled cases to fine-tune on."""
    used = subjects_of(found.cohort, [*split["test"], *split["validation"]])
    chosen = split.get("training")
    return [
        c.id
        for c in labelled_cases(found, classes)
        if c.subject not in used and (chosen is None or c.id in chosen)
    ]


def _subjects(cases: Sequence[Case]) -> list[str]:
    return sorted({c.subject for c in cases})


def _draw(
    cases: Sequence[Case],
    subjects: Sequence[str],
    count: int,
    kinds: Mapping[str, str],
    rng: np.random.Generator,
) -> list[str]:
    """Ids of the cases of ``count`` subjects, taken from each kind in turn."""
    turns: dict[str, int] = {}
    order = []
    for subject in (subjects[i] for i in rng.permutation(len(subjects))):
        turn = turns[kinds[subject]] = turns.get(kinds[subject], 0) + 1
        order.append((turn, subject))
    chosen = {subject for _, subject in sorted(order, key=lambda o: o[0])[:count]}
    return [c.id for c in cases if c.subject in chosen]
