"""Where a segmentation shows most, and the slice views there. Works without a window."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


def bestPosition(segmentation) -> tuple[float, float, float] | None:
    """World RAS mm where the largest structure shows most in each of the three planes; None: all empty."""
    most, best = 0, None
    for segmentID in segmentation.GetSegmentation().GetSegmentIDs():
        image = slicer.vtkOrientedImageData()
        segmentation.GetBinaryLabelmapRepresentation(segmentID, image)
        if image.IsEmpty():
            continue
        scalars = vtk_to_numpy(image.GetPointData().GetScalars())
        mask = scalars.reshape(image.GetDimensions()[::-1]) > 0
        count = int(np.count_nonzero(mask))
        if count > most:
            # Not the centre: of scattered parts that is where there is nothing.
            kji = [int(mask.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1))]
            most, best = count, _world(segmentation, image, kji[::-1])
    return best


def jumpTo(position: tuple[float, float, float]) -> None:
    """Let every slice view show the plane through a position, in world RAS mm."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*position)


def _world(segmentation, image, ijk: list[int]) -> tuple[float, float, float]:
    matrix, toWorld = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    image.GetImageToWorldMatrix(matrix)  # of the segmentation: parent transforms come on top
    index = [n + low for n, low in zip(ijk, image.GetExtent()[::2], strict=True)]
    parent = segmentation.GetParentTransformNode()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, toWorld)
    return toWorld.TransformPoint(matrix.MultiplyPoint((*index, 1))[:3])
