"""The table node with the probability of each class."""

from __future__ import annotations

import json

import slicer
from slicer.i18n import tr as _

from EMIMLib.patient import putBeside
from EMIMSegmentLib.measurements_table import fillTable, numberColumn, textColumn
from EMIMSegmentLib.result_nodes import CLASSIFIED, MISSING, noteModel

CLASS, PROBABILITY = "Class", "Probability"


def updateClassTable(table, model, probabilities: dict[str, float], reference, missing: list[str]):
    """Fill a table node with one row a class, the most probable first; return it.

    Args:
        table: whose rows are replaced; None: a new node, named after model and reference.
        model: :class:`EMIMLib.models.InstalledModel` that told them.
        probabilities: class to probability.
        reference: volume node; None when it was removed meanwhile.
        missing: modalities that were not given.
    """
    if table is None:
        base = f"{model.name}: {reference.GetName()}" if reference is not None else model.name
        name = slicer.mrmlScene.GenerateUniqueName(base)
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    ranked = sorted(probabilities.items(), key=lambda entry: -entry[1])
    with slicer.util.NodeModify(table):
        fillTable(
            table,
            [
                textColumn(CLASS, [n for n, _p in ranked]),
                numberColumn(PROBABILITY, [p for _n, p in ranked], 4),
            ],
        )
        noteModel(table, model)
        table.SetAttribute(MISSING, json.dumps(missing))
        table.SetDescription(_("For research; not a diagnosis."))
        table.SetNodeReferenceID(CLASSIFIED, reference.GetID() if reference is not None else None)
    if reference is not None:
        putBeside(table, reference)
    return table


def classProbabilities(table) -> dict[str, float]:
    """Class to probability as a table node says, the most probable first."""
    rows = range(table.GetNumberOfRows())
    return {table.GetCellText(row, 0): float(table.GetCellText(row, 1)) for row in rows}
