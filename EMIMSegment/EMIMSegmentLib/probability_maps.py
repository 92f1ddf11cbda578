"""Probability maps of a result: scalar volumes in the colours of their structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.made_volumes import STRUCTURE
from EMIMLib.patient import putBeside
from EMIMSegmentLib.result_nodes import PROBABILITY, probabilityVolumes, removeWithDisplay

COLOURS = 256
FAINTEST = 0.1  # what is less probable is not shown
DARKEST = 0.3  # brightness of the colour at 0; black would look like a part of the image


def readProbability(path: Path, matrix: np.ndarray):
    """A probability map as a volume node outside the scene.

    Args:
        matrix: (4, 4), applied to its positions (RAS mm); only the geometry changes.

    Raises:
        EmimError: when it cannot be read.
    """
    node = slicer.vtkMRMLScalarVolumeNode()
    if path.name.lower().endswith(".nrrd"):
        storage = slicer.vtkMRMLNRRDStorageNode()
    else:
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetSingleFile(True)
    storage.SetFileName(str(path))
    if not path.is_file() or not storage.ReadData(node):
        raise EmimError(_("The probability map that the worker wrote cannot be read."), path)
    node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def updateProbabilities(segmentation, read: dict, structures) -> dict:
    """Make the segmentation's probability maps those of ``read`` (structure to volume outside the scene).

    Volumes from an earlier run are used again; those of structures that are not in ``read`` are removed.
    Returns structure to volume node.
    """
    earlier = probabilityVolumes(segmentation)
    for name in set(earlier) - set(read):
        _remove(earlier.pop(name))
    segmentation.RemoveNodeReferenceIDs(PROBABILITY)
    volumes = {}
    for structure in structures:
        if structure.name not in read:
            continue
        volume = earlier.get(structure.name)
        if volume is None:
            volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
            volume.SetAttribute(STRUCTURE, structure.name)
        _take(volume, read[structure.name], segmentation.GetTransformNodeID())
        names = {"segmentation": segmentation.GetName(), "structure": structure.name}
        volume.SetName(_("{segmentation} probability of {structure}").format(**names))
        _show(volume, structure)
        segmentation.AddNodeReferenceID(PROBABILITY, volume.GetID())
        putBeside(volume, segmentation)
        volumes[structure.name] = volume
    return volumes


def _take(volume, read, transformID: str | None) -> None:
    with slicer.util.NodeModify(volume):
        volume.SetAndObserveImageData(read.GetImageData())
        volume.CopyOrientation(read)
        volume.SetAndObserveTransformNodeID(transformID)


def _show(volume, structure) -> None:
    """In the structure's colour, the brighter the more probable; slice views ignore a colour's opacity."""
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    colours = display.GetColorNode()
    if colours is None or colours.GetAttribute(STRUCTURE) != structure.name:
        colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", f"{structure.name} probability")
        colours.SetAttribute(STRUCTURE, structure.name)
        colours.SetHideFromEditors(True)
        colours.SetTypeToUser()
        display.SetAndObserveColorNodeID(colours.GetID())
    colours.SetNumberOfColors(COLOURS)
    for i in range(COLOURS):
        share = i / (COLOURS - 1)
        brightness = DARKEST + (1 - DARKEST) * share
        colours.SetColor(i, f"{share:.0%}", *(c / 255 * brightness for c in structure.color))
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetAutoThreshold(False)
    display.SetThreshold(FAINTEST, 1.0)
    display.SetApplyThreshold(True)


def _remove(volume) -> None:
    colours = volume.GetDisplayNode().GetColorNode() if volume.GetDisplayNode() is not None else None
    removeWithDisplay(volume)
    if colours is not None and colours.GetAttribute(STRUCTURE) is not None:
        slicer.mrmlScene.RemoveNode(colours)
