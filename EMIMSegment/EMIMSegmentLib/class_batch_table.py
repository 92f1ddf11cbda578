"""The summary of a batch that classifies.

A row is a dict: ``case``, ``class`` (None where it failed), ``probabilities`` (class to probability),
``error`` (what went wrong, or None), ``where``, ``hint``, and ``files`` or ``nodes`` and ``title`` as in
:mod:`EMIMSegmentLib.batch_table`.
"""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMSegmentLib.batch_table import batchTable, caseColumns, rowMessage
from EMIMSegmentLib.measurements_table import fillTable, numberColumn, textColumn

FILE = "classes.csv"  # in the folder of the results


def updateClassBatchTable(source: str, card, rows: list[dict]):
    """Fill the table node of the batch of ``source``, made where there is none; return it."""
    table = batchTable(source, card)
    columns = [
        *caseColumns(rows),
        textColumn("Class", [row["class"] or _("failed") for row in rows]),
    ]
    for name in card.classes:
        columns.append(numberColumn(name, [row["probabilities"].get(name) for row in rows], 4))
    columns.append(textColumn("Message", [rowMessage(row) for row in rows]))
    fillTable(table, columns)
    return table


def describeClasses(rows: list[dict], folder: Path | None) -> str:
    """One sentence about a batch."""
    failed = [row["case"] for row in rows if row["error"]]
    text = _("Classified {done} of {count} cases").format(done=len(rows) - len(failed), count=len(rows))
    if folder is not None:
        text += f": {folder / FILE}"
    if failed:
        text += ". " + _("Failed: {names}.").format(names=", ".join(failed))
    return text


def writeClasses(file: Path, rows: list[dict], card) -> None:
    """The table of ``emim classify --cohort``, of classified studies.

    Raises:
        EmimError: when it cannot be written.
    """
    from emim.inference.outputs import write_atomically
    from emim.inference.table import predictions_csv

    results = [
        {"case": row["case"], "subject": row["case"], "error": {"what": row["error"]}}
        if row["error"]
        else {**{name: row[name] for name in ("case", "class", "probabilities")}, "subject": row["case"]}
        for row in rows
    ]
    text = predictions_csv(results, card.classes)
    try:
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8", newline=""))
    except (OSError, ValueError) as error:
        raise EmimError(
            _("The table cannot be written: {error}.").format(error=error),
            file,
            _("The classes are in the scene: save its tables, or choose another folder."),
        ) from error
