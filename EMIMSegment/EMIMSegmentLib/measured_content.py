"""Whether a segmentation is still what was measured, told by a checksum of its voxels."""

from __future__ import annotations

import zlib

import numpy as np
from vtk.util.numpy_support import vtk_to_numpy

from EMIMSegmentLib.result_nodes import MEASURED

LABELMAP = "Binary labelmap"


def noteMeasured(segmentation) -> None:
    """Remember, in the scene, that the measurements are of what the segmentation is now."""
    segmentation.SetAttribute(MEASURED, contentChecksum(segmentation))


def noteEdited(segmentation) -> None:
    """Remember, in the scene, that the measurements are of something else than the segmentation is now."""
    segmentation.SetAttribute(MEASURED, "edited")  # equals no checksum


def isEdited(segmentation) -> bool:
    """Whether voxels or the set of segments have changed since; False where nothing was measured."""
    measured = segmentation.GetAttribute(MEASURED)
    return measured is not None and measured != contentChecksum(segmentation)


def holdsOwnWork(segmentation) -> bool:
    """Whether it has segments that EMIM did not write as they are: drawn, loaded, or corrected since."""
    segments = segmentation.GetSegmentation().GetNumberOfSegments()
    return segments > 0 and segmentation.GetAttribute(MEASURED) != contentChecksum(segmentation)


def contentTimes(segmentation) -> tuple:
    """Differs whenever :func:`isEdited` may, and reads no voxels."""
    times = []
    for segmentID, segment in _segments(segmentation):
        image = segment.GetRepresentation(LABELMAP)
        times.append((segmentID, image.GetMTime() if image is not None else 0))
    return segmentation.GetID(), segmentation.GetAttribute(MEASURED), *times


def contentChecksum(segmentation) -> str:
    """Of the voxels and the set of segments; reads all voxels."""
    total = 0
    for segmentID, segment in _segments(segmentation):
        total = zlib.crc32(_voxels(segment), zlib.crc32(segmentID.encode(), total))
    return f"{total:08x}"


def _segments(segmentation) -> list:
    segments = segmentation.GetSegmentation()
    return [(segmentID, segments.GetSegment(segmentID)) for segmentID in sorted(segments.GetSegmentIDs())]


def _voxels(segment) -> bytes:
    """Size and voxels of the box around a segment: a scene file may change the empty margins."""
    image = segment.GetRepresentation(LABELMAP)
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None or not scalars.GetNumberOfTuples():
        return b""
    mask = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]) == segment.GetLabelValue()
    places = [np.flatnonzero(mask.any(others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not places[0].size:
        return b""
    box = mask[tuple(slice(place[0], place[-1] + 1) for place in places)]
    return repr(box.shape).encode() + np.packbits(box).tobytes()
