"""The table node with the measurements of a segmentation."""

from __future__ import annotations

import math

import slicer
import vtk
from slicer.i18n import tr as _

from EMIMLib.patient import putBeside
from EMIMSegmentLib.result_nodes import MEASUREMENTS, measurementsTable

STRUCTURE, VOLUME, DIAMETER, MEAN = "Structure", "Volume [mL]", "Largest diameter [mm]", "Mean {modality}"


def updateMeasurements(segmentation, measurements: list[dict], modalities: list[str]):
    """Fill the segmentation's table, made where there is none, with one row a structure; return it.

    Args:
        measurements: from the worker's result event: structure, volume_ml, largest_diameter_mm and mean
            (modality to intensity); what could not be measured is None and becomes NaN.
        modalities: those that were given; each gets a column.
    """
    table = measurementsTable(segmentation)
    if table is None:
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
        segmentation.SetNodeReferenceID(MEASUREMENTS, table.GetID())
    table.SetName(_("{segmentation} measurements").format(segmentation=segmentation.GetName()))
    columns = [
        textColumn(STRUCTURE, [m["structure"] for m in measurements]),
        numberColumn(VOLUME, [m.get("volume_ml") for m in measurements], 3),
        numberColumn(DIAMETER, [m.get("largest_diameter_mm") for m in measurements], 1),
    ]
    for modality in modalities:
        values = [(m.get("mean") or {}).get(modality) for m in measurements]
        columns.append(numberColumn(MEAN.format(modality=modality), values, 2))
    fillTable(table, columns)
    putBeside(table, segmentation)
    return table


def fillTable(table, columns: list) -> None:
    """Replace all columns (vtk arrays with names) of a table node."""
    with slicer.util.NodeModify(table):
        table.RemoveAllColumns()
        for column in columns:
            table.AddColumn(column)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetLocked(True)


def textColumn(name: str, values: list) -> vtk.vtkStringArray:
    column = vtk.vtkStringArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(str(value))
    return column


def numberColumn(name: str, values: list, digits: int) -> vtk.vtkDoubleArray:
    column = vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(math.nan if value is None else round(float(value), digits))
    return column
