"""What a training run is given: its folder, the list of its cases, its structures.

A run gets a datalist made from the table that the user sees, so that it trains on exactly these cases,
with the labels drawn in Slicer among them.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from emim.replace import replace_file
from EMIMLib import EmimError
from EMIMLib.models import folderName

from .cohort_table import CohortTable
from .structures import Structure, structuresText


def newRunFolder(runsFolder: Path, command: str, cohort: Any, name: str = "") -> Path:
    """The folder of a new run, not made yet.

    Args:
        name: of a pre-training run, or of the model that fine-tuning makes, of which there may be several
            runs; empty: made from command, cohort and time.

    Raises:
        EmimError: when there is a pre-training run of this name already.
    """
    if not name.strip():
        cohortName = cohort.name if isinstance(cohort, CohortTable) else Path(cohort).stem
        name = f"{command}-{cohortName}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = runsFolder / folderName(name)
    if command == "finetune":
        numbered = (runsFolder / f"{folder.name}-{n}" for n in itertools.count(2))
        return next(f for f in itertools.chain([folder], numbered) if not _isUsed(f))
    refuseUsed(folder)
    return folder


def refuseUsed(folder: Path) -> None:
    """Raise :class:`EmimError` when a new run cannot be put into ``folder``."""
    if _isUsed(folder):
        raise EmimError(
            _("There is something of this name already."),
            folder,
            _("Give the run another name, or resume the earlier one from the list of runs."),
        )


def _isUsed(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    return any(p.name != ".lock" for p in folder.iterdir())  # a start that was cancelled leaves its lock


def inputsFolder(runFolder: Path) -> Path:
    """Where the files made for a run lie: beside it, because its own folder must be new."""
    return runFolder.parent / "inputs" / runFolder.name


def writeDatalist(file: Path, table: CohortTable, labels: Mapping[str, Path] | None = None) -> Path:
    """The cases of the table that are used, as a datalist for the core.

    Args:
        labels: label maps by case id, which replace the cohort's own; None: no labels at all.

    Raises:
        EmimError: when no case is used, or the file cannot be written.
    """
    if not table.usedRows:
        raise EmimError(
            _("No case of the cohort is used."),
            table.source,
            _("Include some cases, or put right what the table says about them."),
        )
    cases = []
    for row in table.usedRows:
        case = dict(table.details.get(row.id, {}))
        case |= {"id": row.id, "subject": row.subject}
        case["images"] = {m: c.path for m, c in row.cells.items() if c.path}
        case["label"] = None if labels is None else str(labels.get(row.id) or row.label.path) or None
        if labels and row.id in labels:
            case["drawn"] = True
        case.pop("duplicates", None)
        cases.append(case)
    return _writeCases(file, table, cases, table.segments)


def writeLabelledCases(file: Path, table: CohortTable, labels: Mapping[str, Path]) -> Path:
    """All cases of the table, as the scan found them, as a datalist for the core that judges a model.

    Args:
        labels: label maps by case id, which replace the cohort's own; their values are the model's.

    Raises:
        EmimError: when the file cannot be written.
    """
    cases = []
    for row in table.rows:
        images = {m: c.path for m, c in row.cells.items() if c.path}
        case = {"id": row.id, "subject": row.subject, "images": images, "label": row.label.path or None}
        case |= table.details.get(row.id, {})
        if row.id in labels:
            case |= {"label": str(labels[row.id]), "drawn": True}
            case["duplicates"] = {m: p for m, p in case.get("duplicates", {}).items() if m != "label"}
        cases.append(case)
    # With the cohort's segments, what was drawn would be taken to have the cohort's values.
    return _writeCases(file, table, cases, [] if labels else table.segments)


def writeClasses(file: Path, classes: Mapping[str, str]) -> Path:
    """Case id to class for the core's ``--classes``."""
    _write(file, json.dumps(dict(classes), ensure_ascii=False, indent=1))
    return file


def writeStructures(file: Path, structures: Sequence[Structure]) -> Path:
    """The structures for the core's ``--structures``."""
    _write(file, structuresText(structures))
    return file


def _writeCases(
    file: Path,
    table: CohortTable,
    cases: Sequence[Mapping[str, Any]],
    segments: Sequence[Mapping[str, Any]],
) -> Path:
    cohort = {"modalities": table.modalities, "patterns": table.patterns, "segments": list(segments)}
    _write(file, json.dumps({**cohort, "cases": cases}, ensure_ascii=False))
    return file


def _write(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        replace_file(part, file)
    except OSError as error:
        raise EmimError(
            _("The file cannot be written: {reason}.").format(reason=error.strerror or error),
            file,
            _("Check the rights and the free space of the runs folder, or choose another one."),
        ) from error
