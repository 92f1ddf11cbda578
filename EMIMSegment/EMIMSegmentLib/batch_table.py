"""The summary of a batch.

A row is a dict: ``case``, ``error`` (what went wrong, or None), ``where``, ``hint``, ``volumes_ml``
(structure to mL), ``output`` (path or None) and ``segmentation`` (node ID or None). Of a folder it has
``files`` (modality to path) and ``result`` (what the worker told of the case), of loaded studies ``nodes``
(modality to node ID) and ``title``: who it is, for the screen only, where ``case`` does not tell that.
"""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from EMIMSegmentLib.measurements_table import fillTable, numberColumn, textColumn

SOURCE = "EMIM.Batch"  # attribute of the table: what the batch was of


def batchTable(source: str, card):
    """The table node of the batch of ``source`` by a model, made where there is none."""
    key = f"{card.name}: {source}"
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    table = next((t for t in tables if t.GetAttribute(SOURCE) == key), None)
    if table is None:
        name = slicer.mrmlScene.GenerateUniqueName(_("{model} batch").format(model=card.name))
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        table.SetAttribute(SOURCE, key)
    return table


def updateBatchTable(source: str, card, rows: list[dict]):
    """Fill the table node of the batch of ``source``, made where there is none; return it."""
    table = batchTable(source, card)
    columns = [
        *caseColumns(rows),
        textColumn("Result", [_("failed") if row["error"] else _("done") for row in rows]),
    ]
    for structure in card.structures:
        volumes = [row["volumes_ml"].get(structure.name) for row in rows]
        columns.append(numberColumn(f"{structure.name} [mL]", volumes, 3))
    columns.append(textColumn("Message", [rowMessage(row) for row in rows]))
    fillTable(table, columns)
    return table


def caseColumns(rows: list[dict]) -> list:
    """The columns that tell the cases: a second one only where titles say more than the names."""
    cases, titles = [row["case"] for row in rows], [title(row) for row in rows]
    columns = [textColumn("Case", cases)]
    return columns if titles == cases else [*columns, textColumn("Study", titles)]


def title(row: dict) -> str:
    """What a case is called on the screen."""
    return row.get("title") or row["case"]


def describeRows(rows: list[dict]) -> str:
    """One sentence about a batch."""
    failed = [row["case"] for row in rows if row["error"]]
    text = _("Segmented {done} of {count} cases.").format(done=len(rows) - len(failed), count=len(rows))
    if failed:
        text += " " + _("Failed: {names}.").format(names=", ".join(failed))
    return text


def rowMessage(row: dict) -> str:
    """What went wrong, else where the result is."""
    parts = [row["error"], row["where"], row["hint"]] if row["error"] else [row.get("output")]
    return " ".join(str(p) for p in parts if p)
