"""Taking a segmentation that the worker wrote into the scene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.patient import putBeside
from EMIMSegmentLib.result_nodes import (
    MISSING,
    SIZES,
    VALUE,
    modelName,
    noteAlgorithm,
    noteCorrected,
    noteModel,
)

ENCLOSING_OPACITY = 0.4  # of a surface that others lie within


def readSegmentation(path: Path, matrix: np.ndarray):
    """The segmentation of a ``.seg.nrrd`` file as a node outside the scene, without a storage node.

    Args:
        matrix: (4, 4), applied to its positions (RAS mm); only the geometry changes.

    Raises:
        EmimError: when it cannot be read.
    """
    node = slicer.vtkMRMLSegmentationNode()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if (
        not path.is_file()
        or not _readQuietly(storage, node)
        or not node.GetSegmentation().GetNumberOfSegments()
    ):
        raise EmimError(_("The segmentation that the worker wrote cannot be read."), path)
    node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def _readQuietly(storage, node) -> bool:
    """Read without the error message that MRML logs because a node outside the scene gets no display node."""
    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        return bool(storage.ReadData(node))
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)


def takeSegmentation(
    read, target, model, reference, missing: list[str], transformID: str | None, sizeChange: float = 0.0
):
    """Put the segments of ``read`` into the scene; return the segmentation node.

    The result lies on the grid of the reference volume and under the same parent transform, so it
    overlays it now and after the transform is changed.

    Args:
        read: from :func:`readSegmentation`.
        target: segmentation node whose segments are replaced; None: a new node.
        model: :class:`EMIMLib.models.InstalledModel` that made it.
        reference: volume node; None when it was removed meanwhile.
        missing: modalities that were not given.
        transformID: of the transform above the reference, or that was above it; None: of none.
        sizeChange: by which that transform changes sizes, see :func:`EMIMLib.export_volume.sizeChange`.
    """
    watched = target is not None and modelName(target)
    if target is None:
        base = f"{reference.GetName() if reference is not None else model.name} {_('segmentation')}"
        name = slicer.mrmlScene.GenerateUniqueName(base)
        target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    with slicer.util.NodeModify(target):
        target.GetSegmentation().RemoveAllSegments()
        target.GetSegmentation().DeepCopy(read.GetSegmentation())
        noteModel(target, model)
        target.SetAttribute(MISSING, json.dumps(missing))
        target.SetAttribute(SIZES, f"{sizeChange:.3g}")
        target.SetAndObserveTransformNodeID(transformID)
        if reference is not None:
            target.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    target.CreateDefaultDisplayNodes()
    _describeSegments(target, model)
    if not watched:
        target.AddObserver(slicer.vtkSegmentation.SourceRepresentationModified, _onVoxelsModified)
    if reference is not None:
        putBeside(target, reference)
    return target


def _onVoxelsModified(segmentation, event) -> None:
    """An export as DICOM SEG may be next, without a look at EMIM's panel."""
    noteCorrected(segmentation)


def segmentOf(segmentation, name: str) -> str:
    """ID of the segment of a structure; "" when there is none."""
    return segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)


def _describeSegments(segmentation, model) -> None:
    display, card = segmentation.GetDisplayNode(), model.card
    for structure in card.structures:
        segmentID = segmentOf(segmentation, structure.name)
        segment = segmentation.GetSegmentation().GetSegment(segmentID)
        if segment is None:
            continue
        segment.SetTag(VALUE, str(structure.output))
        noteAlgorithm(segment, model)
        encloses = any(set(s.values) < set(structure.values) for s in card.structures)
        display.SetSegmentOpacity3D(segmentID, ENCLOSING_OPACITY if encloses else 1.0)
