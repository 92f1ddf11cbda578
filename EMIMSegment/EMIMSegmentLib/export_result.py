"""Writing a result to a file that other programs read."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMSegmentLib.result_nodes import VALUE, referenceVolume

SEGMENTATION = ".seg.nrrd"
LABEL_MAPS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha")


def exportResult(
    segmentation, path: str | Path, reference=None, onWarning: Callable[[str], None] = logging.warning
) -> Path:
    """Write ``segmentation`` in the format of the file's ending; return the path.

    A label map (NIfTI, NRRD, MetaImage) has the grid of the reference volume as that is stored, without
    its parent transform, so it fits the reference's own file; values are those of the model, segments
    that the user added get the smallest that are free, and of structures that overlap the later one is
    on top. ``.seg.nrrd`` keeps every structure whole.

    Args:
        reference: volume node; None: the segmentation's own.
        onWarning: told, in a sentence, which structures a label map does not hold whole.

    Raises:
        EmimError: for another ending, without a reference, or when the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise EmimError(_("The folder does not exist."), path.parent, _("Choose another folder."))
    refuseOtherFormat(path)
    if path.name.lower().endswith(SEGMENTATION):
        _write(slicer.vtkMRMLSegmentationStorageNode(), segmentation, path)
    else:
        _writeLabelMap(segmentation, path, reference or referenceVolume(segmentation), onWarning)
    return path


def refuseOtherFormat(path: str | Path) -> None:
    """Raise :class:`EmimError` when the ending of ``path`` is not one that can be written."""
    if not str(path).lower().endswith((SEGMENTATION, *LABEL_MAPS)):
        endings = ", ".join((SEGMENTATION, *LABEL_MAPS))
        raise EmimError(
            _("A segmentation cannot be written in this format."),
            path,
            _("Let the name end in one of: {endings}.").format(endings=endings),
        )


def _writeLabelMap(segmentation, path: Path, reference, onWarning: Callable[[str], None]) -> None:
    if reference is None:
        raise EmimError(
            _("The segmentation has no reference volume that would give the grid."),
            segmentation.GetName(),
            _("Choose a reference volume, or export it as {ending}.").format(ending=SEGMENTATION),
        )
    segments = segmentation.GetSegmentation()
    values = _values(segments)
    label = np.zeros(reference.GetImageData().GetDimensions()[::-1], np.uint8)
    if max(values.values(), default=0) > np.iinfo(label.dtype).max:
        label = label.astype(np.int16)
    masks = []
    for segmentID, value in values.items():
        try:
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentID, reference)
        except RuntimeError as error:
            raise EmimError(
                _("A segment cannot be converted to voxels."),
                segments.GetSegment(segmentID).GetName(),
                _("Remove the segment if it is empty; else look into Slicer's error log."),
            ) from error
        label[mask > 0] = value
        masks.append((segments.GetSegment(segmentID).GetName(), np.packbits(mask > 0)))
    node = slicer.vtkMRMLLabelMapVolumeNode()
    slicer.util.updateVolumeFromArray(node, label)
    node.CopyOrientation(reference)
    _write(slicer.vtkMRMLVolumeArchetypeStorageNode(), node, path)
    if hidden := _hidden(masks):
        pairs = ", ".join(_("“{upper}” over “{lower}”").format(upper=u, lower=w) for w, u in hidden)
        text = _("A label map holds only the later of structures that overlap: {pairs}. {ending} holds both.")
        onWarning(text.format(pairs=pairs, ending=SEGMENTATION))


def _hidden(masks: list[tuple[str, np.ndarray]]) -> list[tuple[str, str]]:
    """Names of structures that are not whole in a label map, each with the later one that lies over it.

    One that lies wholly within the other hides nothing: together they are the other.

    Args:
        masks: name and voxels (packed bits), in the order of painting.
    """
    return [
        (lower, upper)
        for (lower, below), (upper, above) in itertools.combinations(masks, 2)
        if (below & above).any() and (above & ~below).any()
    ]


def _values(segments) -> dict[str, int]:
    """Segment ID to its value in a label map: the model's, or the smallest that is still free."""
    owners: dict[int, str] = {}
    for segmentID in segments.GetSegmentIDs():
        text = vtk.reference("")
        segments.GetSegment(segmentID).GetTag(VALUE, text)
        value = int(str(text) or 0)
        if value > 0:
            owners.setdefault(value, segmentID)  # a copy of a segment has its tags, too
    values = {segmentID: value for value, segmentID in owners.items()}
    free = (value for value in itertools.count(1) if value not in owners)
    return {segmentID: values.get(segmentID) or next(free) for segmentID in segments.GetSegmentIDs()}


def _write(storage, node, path: Path) -> None:
    storage.SetFileName(str(path))
    if not storage.WriteData(node) or not path.is_file():
        raise EmimError(
            _("The file could not be written."), path, _("Check the rights of the folder and the free space.")
        )
