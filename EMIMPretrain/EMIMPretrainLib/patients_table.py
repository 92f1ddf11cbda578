"""The list of which case is which patient, kept in a cohort folder only where the user asks for it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from slicer.i18n import tr as _

from emim.replace import replace_file
from EMIMLib import EmimError

FILE = "patients.csv"


class PatientRow(NamedTuple):
    """A case, the DICOM Patient ID, and the Study Instance UID; the latter two may be empty."""

    case: str
    patient: str
    study: str


def readPatients(folder: Path) -> list[PatientRow]:
    """What the list of a cohort folder says; empty where there is none.

    Raises:
        EmimError: when it cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return []
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            if missing := set(PatientRow._fields).difference(reader.fieldnames or ()):
                raise ValueError(_("no column {names}").format(names=", ".join(sorted(missing))))
            return [PatientRow(*(row[name] or "" for name in PatientRow._fields)) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise EmimError(
            _("The list of patients cannot be read: {reason}.").format(reason=error),
            file,
            _("Correct it, or move it elsewhere. Its first line is {names}.").format(
                names=",".join(PatientRow._fields)
            ),
        ) from error


def addPatients(folder: Path, rows: Iterable[PatientRow]) -> None:
    """Append to the list of a cohort folder.

    Raises:
        EmimError: when the present one cannot be read.
        OSError: when it cannot be written.
    """
    part = folder / f".part-{FILE}"
    try:
        with open(part, "w", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows([PatientRow._fields, *readPatients(folder), *rows])
        replace_file(part, folder / FILE)
    finally:
        part.unlink(missing_ok=True)
