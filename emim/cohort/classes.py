"""The class of each case, from a CSV or JSON file.

CSV with a column ``case`` (or ``id``) or ``subject`` and a column ``class`` (or ``label``), separated by
comma, semicolon or tab; other columns are ignored. With ``subject``, all cases of the subject have its class.
JSON is ``{"id": "class", …}`` or a list of objects with the same names as the columns. Classes are names: the
number 1 is the class "1". A row without a label says that the class is not known; such cases are not used.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emim.cohort.case import Cohort
from emim.errors import EmimError

CASE, SUBJECT, LABEL = ("case", "id"), ("subject",), ("class", "label")
_FORM = 'A CSV file with the columns case (or subject) and class, or JSON: {"case-1": "benign", …}.'


def read_classes(file: str | Path, cohort: Cohort, left_out: Collection[str] = ()) -> dict[str, str]:
    """Case id to class, in order of the cohort; cases the file does not name are absent.

    Args:
        left_out: cases and subjects that the file may name although the cohort cannot use them.

    Raises:
        EmimError: when the file cannot be read, names a case or subject the cohort does not have or one
            twice with different classes, or holds fewer than two classes.
    """
    entries, by_subject = _read(Path(file))
    given: dict[str, str] = {}
    for name, label in entries:
        if given.get(name, label) != label:
            raise EmimError(
                f"{name!r} is given two classes, {given[name]!r} and {label!r}.", file, "Keep one of them."
            )
        given[name] = label
    _refuse_unknown(set(given) - set(left_out), cohort, by_subject, file)
    found = {c.id: given[k] for c in cohort.cases if (k := c.subject if by_subject else c.id) in given}
    counts = Counter(found.values())
    if len(counts) < 2:
        only = f"only the class {next(iter(counts))!r}" if counts else "no class"
        raise EmimError(f"The file gives {only} to cases of the cohort.", file, "There must be two or more.")
    return found


def check_classes(classes: Sequence[str], found: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the classes in the order of the outputs: as given, else sorted.

    Raises:
        EmimError: when the given ones are not those of the cases, or two differ in upper and lower case only.
    """
    there = sorted(set(found.values()), key=lambda c: (not c.isdigit(), int(c) if c.isdigit() else 0, c))
    if classes and sorted(classes) != sorted(there):
        raise EmimError(
            f"Setting classification.classes names {', '.join(classes)}; the cases have {', '.join(there)}.",
            hint="Name each class of the cases once, or leave the setting out.",
        )
    same = [c for c, n in Counter(map(str.casefold, there)).items() if n > 1]
    if same:
        alike = [c for c in there if c.casefold() == same[0]]
        raise EmimError(f"The classes {' and '.join(map(repr, alike))} differ in upper and lower case only.")
    return tuple(classes or there)


def _read(file: Path) -> tuple[list[tuple[str, str]], bool]:
    """(case or subject, class) of each row, and whether they are subjects."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EmimError(f"The file of classes cannot be read: {error}.", file, _FORM) from error
    if file.suffix.lower() != ".json":
        head = text.splitlines()[0] if text.strip() else ""
        return _entries(list(csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count))), file)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise EmimError(f"The file of classes is no JSON: {error}.", file, _FORM) from error
    if isinstance(data, dict):
        data = [{"case": name, "label": label} for name, label in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise EmimError("The file of classes has another form.", file, _FORM)
    return _entries(data, file)


def _entries(rows: Iterable[dict[str | None, Any]], file: Path) -> tuple[list[tuple[str, str]], bool]:
    rows = [{str(k).strip().lower(): v for k, v in row.items()} for row in rows]
    names = set().union(*rows)
    key = next((k for k in (*CASE, *SUBJECT) if k in names), None)
    label = next((k for k in LABEL if k in names), None)
    if key is None or label is None:
        found = ", ".join(sorted(names)) or "nothing"
        raise EmimError(f"The file of classes has no such columns: {found}.", file, _FORM)
    entries = []
    for n, row in enumerate(rows, start=1):
        name, value = (row.get(k) for k in (key, label))
        if isinstance(value, (dict, list, bool)):
            raise EmimError(f"{value!r} is not a class.", f"{file}, entry {n}", _FORM)
        name, value = ("" if v is None else str(v).strip() for v in (name, value))
        if value and not name:
            raise EmimError(f"A class {value!r} is given to no case.", f"{file}, entry {n}", _FORM)
        if value:
            entries.append((name, value))
    return entries, key in SUBJECT


def _refuse_unknown(names: Iterable[str], cohort: Cohort, by_subject: bool, file: str | Path) -> None:
    known = {c.subject if by_subject else c.id for c in cohort.cases}
    if unknown := sorted(n for n in names if n not in known):
        kind = "subject" if by_subject else "case"
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise EmimError(
            f"The cohort has no usable {kind} {', '.join(map(repr, unknown[:5]))}{more}.",
            file,
            f"Write the {kind}s as `emim scan` lists them; leave out those it cannot use.",
        )
