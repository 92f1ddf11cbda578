"""The class of each case of a cohort, from a file, for classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from slicer.i18n import tr as _

from emim.cohort.case import Case, Cohort
from emim.cohort.classes import check_classes, read_classes
from EMIMLib import EmimError

from .cohort_table import CohortTable


def readClasses(file: str | Path, table: CohortTable) -> dict[str, str]:
    """Case id to class, of the used cases that the file names; see :mod:`emim.cohort.classes` for its form.

    Raises:
        EmimError: when the file cannot be read or does not fit the cohort, or when not at least one class
            has two subjects: one to learn from, one to check on.
    """
    if not str(file).strip():
        raise EmimError(
            _("Nothing says which class each case has."),
            hint=_("Choose a CSV or JSON file that lists case (or subject) and class."),
        )
    used = [Case(r.id, r.subject, {}) for r in table.usedRows]
    leftOut = {name for r in table.rows if not r.used for name in (r.id, r.subject)}
    classes = read_classes(file, Cohort(tuple(table.modalities), tuple(used)), leftOut)
    check_classes((), classes)
    subjects = Counter(of for _subject, of in {(case.subject, classes.get(case.id)) for case in used} if of)
    if max(subjects.values()) < 2:
        raise EmimError(
            _("Every class has one subject only: there would be none to check on."),
            file,
            _("Give at least two subjects of each class."),
        )
    return classes


def classCounts(classes: Mapping[str, str]) -> dict[str, int]:
    """Class to how many cases have it, in the order of the model's outputs."""
    counts = Counter(classes.values())
    return {name: counts[name] for name in check_classes((), classes)}
