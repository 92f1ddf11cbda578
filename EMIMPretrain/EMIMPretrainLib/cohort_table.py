"""The table cases × modalities that a scan of a cohort gives, and the cases chosen from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from EMIMLib import EmimError


@dataclass
class Cell:
    """One file of a case, or its absence.

    Attributes:
        state: "ok"; "note" (usable, but read the explanation); "missing"; "problem".
        path: the file; empty where there is none, or more than one.
        text: for the cell of a table.
        explanation: for a tooltip.
    """

    state: str
    path: str = ""
    text: str = ""
    explanation: str = ""


@dataclass
class CaseRow:
    """One case.

    Attributes:
        cells: one per modality of the cohort.
        label: its label map.
        labelValues: the cohort's values in the label other than 0.
        recode: value in the label's file to the cohort's, where they differ.
        segments: those of the cohort that the label has, as in :class:`CohortTable`.
        usable: the scan found no problem.
        included: the user has not excluded it.
    """

    id: str
    subject: str
    cells: dict[str, Cell]
    label: Cell
    labelValues: tuple[int, ...] = ()
    recode: dict[int, int] = field(default_factory=dict)
    segments: list[dict[str, Any]] = field(default_factory=list)
    usable: bool = True
    included: bool = True
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def used(self) -> bool:
        """Whether the case is trained on: it can be and it shall be."""
        return self.usable and self.included

    @property
    def tooltip(self) -> str:
        """Everything there is to know about the case, one fact a line."""
        lines = [self.id] if self.id == self.subject else [f"{self.id} ({self.subject})"]
        lines += [_("Problem: {text}").format(text=t) for t in self.problems]
        lines += [_("Note: {text}").format(text=t) for t in self.notes]
        return "\n".join(lines)


class CohortTable:
    """The cases of a cohort as a scan found them.

    Args:
        source: the folder or datalist.
        modalities: the columns, in the order networks see them.
        rows: the cases, in order of their id.
        ignored: files that are not used, each with the reason.
        patterns: the user's name patterns that the scan used.
        details: by case id, its entry in the ``cohort.json`` of the scan.
        segments: name, value, colour and terminology of each segment that label files name.
    """

    def __init__(
        self,
        source: str,
        modalities: Sequence[str],
        rows: Sequence[CaseRow],
        ignored: Sequence[tuple[str, str]] = (),
        patterns: dict[str, list[str]] | None = None,
        details: dict[str, dict[str, Any]] | None = None,
        segments: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.source = source
        self.modalities = list(modalities)
        self.rows = list(rows)
        self.ignored = list(ignored)
        self.patterns = dict(patterns or {})
        self.details = dict(details or {})
        self.segments = list(segments)

    @staticmethod
    def fromScan(
        result: dict[str, Any],
        source: str,
        patterns: dict[str, list[str]] | None = None,
        details: dict[str, dict[str, Any]] | None = None,
    ) -> CohortTable:
        """The table of the result event of ``emim scan``; for the others, see the class."""
        modalities = result["modalities"]
        segments = result.get("segments", [])
        rows = [_row(data, modalities, segments) for data in result["rows"]]
        ignored = [_ignored(entry) for entry in result.get("ignored", ())]
        return CohortTable(source, modalities, rows, ignored, patterns, details, segments)

    @property
    def name(self) -> str:
        """A name for the cohort: that of its folder, or of its datalist without the extension."""
        path = Path(self.source)
        return path.stem if path.suffix.lower() in (".json", ".csv") else path.name

    @property
    def usedRows(self) -> list[CaseRow]:
        return [r for r in self.rows if r.used]

    @property
    def labelledRows(self) -> list[CaseRow]:
        """Cases that are used and have a label map in the cohort."""
        return [r for r in self.usedRows if r.label.path]

    @property
    def excludedIds(self) -> list[str]:
        """Usable cases that the user has excluded."""
        return [r.id for r in self.rows if r.usable and not r.included]

    @property
    def labelValues(self) -> list[int]:
        """Label values of all used cases, without 0."""
        return sorted({v for r in self.usedRows for v in r.labelValues})

    def row(self, caseId: str) -> CaseRow:
        """The case of that id.

        Raises:
            EmimError: when there is none.
        """
        for row in self.rows:
            if row.id == caseId:
                return row
        raise EmimError(
            _("The cohort has no case {id!r}.").format(id=caseId),
            self.source,
            _("Scan the cohort again, and choose one of its cases."),
        )

    @property
    def summary(self) -> str:
        """One sentence that sums the table up."""
        problems = sum(not r.usable for r in self.rows)
        parts = [
            _("Cases used: {used} of {all}").format(used=len(self.usedRows), all=len(self.rows)),
            _("with labels: {n}").format(n=len(self.labelledRows)),
        ]
        if problems:
            parts.append(_("with problems: {n}").format(n=problems))
        if self.excludedIds:
            parts.append(_("left out by you: {n}").format(n=len(self.excludedIds)))
        missing = sum(c.state == "missing" for r in self.usedRows for c in r.cells.values())
        if missing:
            parts.append(_("missing images: {n} (training copes with them)").format(n=missing))
        return "; ".join(parts) + "."


def _row(data: dict[str, Any], modalities: Sequence[str], segments: Sequence[dict[str, Any]]) -> CaseRow:
    images, label, values = data["images"], data.get("label"), tuple(data.get("label_values") or ())
    return CaseRow(
        id=data["id"],
        subject=data["subject"],
        cells={m: _cell(data, m, images.get(m, "")) for m in modalities},
        label=_cell(data, "label", label or ""),
        labelValues=values,
        recode={int(value): meant for value, meant in data.get("recode", {}).items()},
        segments=[s for s in segments if s["value"] in values],
        usable=data["usable"],
        problems=list(data["problems"]),
        notes=list(data["notes"]),
    )


def _cell(data: dict[str, Any], what: str, path: str) -> Cell:
    """The cell of the modality (or "label") ``what``, from what the scan says about the case."""
    several = len(data.get("duplicates", {}).get(what, ()))
    wrong = data.get("file_problems", {}).get(what) or [t for t in data["problems"] if _isAbout(t, what)]
    where = [path] if path else []
    if wrong:
        text = _("{n} files").format(n=several) if several else _("problem")
        return Cell("problem", path, text, "\n".join([*where, *wrong]))
    if not path:
        return Cell("missing", "", "–", _("{what} is missing in this case.").format(what=what))
    remarks = [t for t in data["notes"] if _isAbout(t, what)]
    if remarks:
        return Cell("note", path, "✓ !", "\n".join([*where, *remarks]))
    return Cell("ok", path, "✓", path)


def _isAbout(text: str, what: str) -> bool:
    """Whether a problem or note that the core put in words is about the modality (or "label") ``what``.

    The core begins with what it speaks of, ``T1: …``, ``T1 (a.nii): …``, ``2 files for T1: …``,
    ``T1 is a copy of T2``, or says it in a short sentence, ``T1 and T2 do not overlap in space``.
    """
    subject = re.sub(r"\([^)]*\)", "", text).split(":")[0].split(" is a copy of ")[0]
    return re.search(rf"(?<![\w-]){re.escape(what)}(?![\w-])", subject) is not None


def _ignored(entry: Any) -> tuple[str, str]:
    return (entry["path"], entry["why"]) if isinstance(entry, dict) else tuple(entry)
