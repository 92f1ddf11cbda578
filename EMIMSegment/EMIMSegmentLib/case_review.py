"""Going through the cases of a batch, one after the other."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection
from typing import Any, NamedTuple

import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.made_volumes import REVIEW
from EMIMSegmentLib import display
from EMIMSegmentLib.case_markups import hideMarkups, markupsOn, showMarkups
from EMIMSegmentLib.measured_content import contentChecksum
from EMIMSegmentLib.probability_maps import updateProbabilities
from EMIMSegmentLib.result_nodes import measurementsTable, referenceVolume, removeWithDisplay
from EMIMSegmentLib.study_batch import CASE
from EMIMSegmentLib.written_case import loadResult, loadVolume

# REVIEW is JSON of the review, the case and its output.
FILE = "EMIM.ReviewFile"  # which file a loaded node is of, and of when
LOADED = "EMIM.ReviewLoaded"  # of a segmentation: what it was when it was loaded
SHOWN = "EMIM.ReviewShown"  # of a volume of a case that was shown: the review


class Shown(NamedTuple):
    """What :meth:`CaseReview.show` did.

    Attributes:
        segmentation: node; None where the case failed, or was classified.
        kept: cases of files of which something else than what is shown is still in the scene, as it was
            changed or drawn on.
    """

    segmentation: Any
    kept: tuple[str, ...]


class CaseReview:
    """Shows a case, and takes the one shown before away again, if it had loaded that and nobody changed it.

    What it has loaded it tells by an attribute of the nodes, so closing the scene needs no care.
    """

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex

    def show(self, row: dict, model, *, opacity: float, surface: bool) -> Shown:
        """Show a case of a batch: of a folder of files by loading it, of loaded studies as it lies there.

        The results of other cases are hidden, and markups drawn on them. What is loaded already, perhaps
        edited, is not loaded again, unless its file was written again.

        Args:
            row: of the batch, see :mod:`EMIMSegmentLib.batch_table`.
            model: the :class:`EMIMLib.models.InstalledModel` that the batch was made with.
            opacity, surface: see :func:`EMIMSegmentLib.display.showResult`.

        Raises:
            EmimError: when a file cannot be read, or nodes were removed; the scene stays as it was.
        """
        if "nodes" in row:
            mark, (volumes, segmentation) = "", _nodesOf(row)
        else:
            mark = json.dumps([self._id, row["case"], row.get("output")])
            volumes, segmentation = self._load(row, model, mark)
        for other in self._results():
            if other is not segmentation and other.GetDisplayNode() is not None:
                other.GetDisplayNode().SetVisibility(False)
        if segmentation is not None:
            display.showResult(segmentation, opacity=opacity, surface=surface)
        else:
            display.showVolume(next(iter(volumes.values())))
        self._showMarkups(volumes.values())
        return Shown(segmentation, self._leaveOthers(mark))

    def _load(self, row: dict, model, mark: str) -> tuple[dict, Any]:
        """Modality to volume and the segmentation, or None; only what is not in the scene yet is read."""
        if not row["files"]:
            raise EmimError(_("The case has no image that could be shown."), row["case"], row["error"])
        before = {node.GetID() for node in _nodes(mark)}
        volumes, segmentation = {}, None
        try:
            for modality, path in row["files"].items():
                name = f"{row['case']} {modality}"
                volumes[modality] = _once(mark, path, loadVolume, name, path)
            if row.get("output"):
                segmentation = _once(mark, row["output"], loadResult, row["result"], model, volumes)
        except BaseException:
            _remove([node for node in _nodes(mark) if node.GetID() not in before])
            raise
        if segmentation is not None:
            _removeOlder(mark, segmentation)
        return volumes, segmentation

    def _results(self) -> list:
        """The segmentations of all batches that are in the scene."""
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [n for n in nodes if n.GetAttribute(CASE) is not None or self._markOf(n)]

    def _showMarkups(self, volumes: Collection) -> None:
        """Show the markups on the ``volumes`` of a case, and hide those on the cases shown before."""
        before = slicer.util.getNodesByClass("vtkMRMLVolumeNode")
        hideMarkups([node for node in before if node.GetAttribute(SHOWN) == self._id])
        showMarkups(volumes)
        for volume in volumes:
            volume.SetAttribute(SHOWN, self._id)

    def _leaveOthers(self, shown: str) -> tuple[str, ...]:
        """Remove what is loaded of all cases but that with the mark ``shown``; those that had to stay."""
        marks = {self._markOf(node) for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")}
        kept = []
        for mark in marks - {""}:
            nodes = _nodes(mark)
            if mark == shown:  # older segmentations of the case count
                stays = sum(node.IsA("vtkMRMLSegmentationNode") for node in nodes) > 1
            elif not (stays := _isUsed(nodes)):
                _remove(nodes)
            if stays:
                kept.append(json.loads(mark)[1])
        return tuple(sorted(kept))

    def _markOf(self, node) -> str:
        """Of a node that this review has loaded; else "" ."""
        mark = node.GetAttribute(REVIEW) or ""
        return mark if mark and json.loads(mark)[0] == self._id else ""


def _nodesOf(row: dict) -> tuple[dict, Any]:
    """Modality to volume, and the segmentation or None, of a study that was loaded when it was done."""
    node = slicer.mrmlScene.GetNodeByID
    volumes = {modality: node(i) for modality, i in row["nodes"].items()}
    segmentation = node(row["segmentation"]) if row.get("segmentation") else None
    lost = segmentation.GetAttribute(CASE) != row["case"] if segmentation else row.get("segmentation")
    if lost or None in volumes.values() or not volumes:
        raise EmimError(
            _("The volumes or the result of the case are no longer in the scene."),
            row["case"],
            _("Load the study, and segment it again."),
        )
    return volumes, segmentation


def _once(mark: str, path: str, load, *arguments):
    """The node of a file: with this mark in the scene already, else what ``load`` gives."""
    stamp = _stamp(path)
    for node in _nodes(mark):
        if node.GetAttribute(FILE) == stamp:
            return node
    node = load(*arguments)
    node.SetAttribute(REVIEW, mark)
    node.SetAttribute(FILE, stamp)
    if node.IsA("vtkMRMLSegmentationNode"):
        node.SetAttribute(LOADED, _content(node))
    return node


def _removeOlder(mark: str, segmentation) -> None:
    """Remove what was loaded of the file before it was written again, unless something would be lost."""
    for older in _nodes(mark):
        if older.IsA("vtkMRMLSegmentationNode") and older is not segmentation:
            found = older.GetAttribute(LOADED), _content(segmentation)  # before, and in the file now
            if not all(_isChanged(older, content) for content in found):
                _remove([older])


def _nodes(mark: str) -> list:
    nodes = slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
    return [node for node in nodes if node.GetAttribute(REVIEW) == mark]


def _stamp(path: str) -> str:
    """Another text when the file was written again."""
    try:
        return f"{os.stat(path).st_mtime_ns} {path}"
    except OSError:
        return path  # reading it will say what is wrong


def _isUsed(nodes: list) -> bool:
    """Whether the user has changed one of the nodes, or drawn on one."""
    volumes = [node for node in nodes if node.IsA("vtkMRMLVolumeNode")]
    results = [node for node in nodes if node not in volumes]
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return (
        any(node.GetParentTransformNode() is not None for node in volumes)
        or any(volume.GetModifiedSinceRead() for volume in volumes)
        or any(_isChanged(node, node.GetAttribute(LOADED)) for node in results)
        or bool(markupsOn(volumes))
        or any(referenceVolume(node) in volumes for node in segmentations if node not in results)
    )


def _isChanged(segmentation, content: str) -> bool:
    """Whether the user has moved it, or made something else of it than ``content``."""
    return segmentation.GetParentTransformNode() is not None or _content(segmentation) != content


def _content(segmentation) -> str:
    """Voxels, names and colours of the segments."""
    segments = segmentation.GetSegmentation()
    found = [segments.GetSegment(i) for i in segments.GetSegmentIDs()]
    looks = [(segment.GetName(), segment.GetColor()) for segment in found]
    return json.dumps([contentChecksum(segmentation), looks])


def _remove(nodes: list) -> None:
    """Remove nodes that a review has loaded, with all that came with them."""
    for node in nodes:
        if node.IsA("vtkMRMLSegmentationNode"):
            updateProbabilities(node, {}, ())
            if measurementsTable(node) is not None:
                slicer.mrmlScene.RemoveNode(measurementsTable(node))
        storage = node.GetStorageNode()
        removeWithDisplay(node)
        if storage is not None:
            slicer.mrmlScene.RemoveNode(storage)
