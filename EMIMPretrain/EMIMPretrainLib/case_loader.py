"""Loading the images of a case into the scene, each once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from emim.training.structures import COLORS
from EMIMLib import EmimError

from . import slice_views
from .cohort_table import CaseRow
from .label_meaning import readMeaning
from .structures import ownValues

CASE, FILE, EXPORTED, SAVED = "EMIM.case", "EMIM.file", "EMIM.exported", "EMIM.saved"
PREDICTION = "EMIM.prediction"  # attribute of what a model has segmented, shown only when asked for
# Without the second, Slicer may take T1.nii.gz and T2.nii.gz for two slices of one image.
ONE_FILE = {"show": False, "singleFile": True}


def loadCase(
    row: CaseRow,
    modalities: Sequence[str] | None = None,
    structures: Sequence[dict[str, Any]] | None = None,
    label: str | Path | None = None,
) -> list[Any]:
    """Show a case: the first image in all slice views, its label as a segmentation over it.

    What is loaded already is shown again, not loaded twice.

    Args:
        modalities: which to load; None: all the case has.
        structures: give the segments of the label their names, colours and terminology, so that they can
            be exported again; the others have those of their segments in a ``.seg.nrrd``, or are called
            "label 1" and so on.
        label: the case's exported label map, shown instead of its own, with the names it was exported with.

    Returns:
        The volume nodes, in the order of the modalities.

    Raises:
        EmimError: when the case has none of them, or a file cannot be read.
    """
    wanted = [m for m in modalities or row.cells if m in row.cells and row.cells[m].path]
    if not wanted:
        raise EmimError(
            _("The case {id} has no image to load.").format(id=row.id),
            hint="\n".join(row.problems) or _("Choose another case."),
        )
    nodes = [_loadImage(row.id, m, row.cells[m].path) for m in wanted]
    if label:
        _loadLabel(row, str(label), nodes[0], readMeaning(Path(label)) or structures or ())
    elif row.label.path and row.label.state != "problem":
        _loadLabel(row, row.label.path, nodes[0], structures or ())
    showLabelsOf(row.id)
    for view in slice_views.VIEWS:
        slice_views.showInView(view, nodes[0])
    slice_views.fit(nodes[0])
    return nodes


def loadPrediction(caseId: str, file: str | Path) -> Any:
    """Show what a model has segmented in a case that is shown: outlines, beside the filled labels.

    What is loaded already is shown again, not loaded twice. Returns the segmentation node.

    Raises:
        EmimError: when the file cannot be read.
    """
    file = str(file)
    node = _find("vtkMRMLSegmentationNode", file)
    if node is None:
        node = _read(slicer.util.loadSegmentation, file)
        node.SetName(_("{id} by the model").format(id=caseId))
        for attribute, value in ((CASE, caseId), (FILE, file), (PREDICTION, "1")):
            node.SetAttribute(attribute, value)
        node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetVisibility(True)
    return node


def labelNode(file: str | Path) -> Any:
    """The segmentation node of a label map of a case, its own or exported; None where it is not loaded."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(FILE) == str(file) or isExported(node, file):
            return node
    return None


def caseOf(segmentation: Any) -> str:
    """The id of the case that a segmentation belongs to or was drawn on; empty when that is not known."""
    image = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    return segmentation.GetAttribute(CASE) or (image.GetAttribute(CASE) if image else None) or ""


def rememberExported(segmentation: Any, file: str | Path) -> None:
    """Remember that a segmentation was just loaded from an exported label map, or exported to it."""
    segmentation.SetAttribute(EXPORTED, str(file))
    segmentation.SetAttribute(SAVED, _savedAt(file))


def isExported(segmentation: Any, file: str | Path) -> bool:
    """Whether a segmentation is the one of an exported label map, which has not been replaced since."""
    if segmentation.GetAttribute(EXPORTED) != str(file):
        return False
    return _savedAt(file) in ("", segmentation.GetAttribute(SAVED))


def showLabelsOf(caseId: str) -> None:
    """Show the segmentations of this case and hide those of all others, so that none lies on a wrong image.

    Those that belong to no case stay as they are. An empty id hides those of every case.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        case, display = caseOf(node), node.GetDisplayNode()
        if case and display is not None:
            display.SetVisibility(case == caseId and node.GetAttribute(PREDICTION) is None)


def _loadImage(caseId: str, modality: str, file: str) -> Any:
    node = _find("vtkMRMLScalarVolumeNode", file)
    if node is None:
        node = _read(slicer.util.loadVolume, file)
        node.SetName(f"{caseId} {modality}")
        node.SetAttribute(CASE, caseId)
        node.SetAttribute(FILE, file)
    return node


def _loadLabel(row: CaseRow, file: str, image: Any, structures: Sequence[dict[str, Any]]) -> None:
    """The label map as a segmentation, so that it can be corrected in Segment Editor."""
    if labelNode(file) is not None:
        return
    labelmap = _read(slicer.util.loadLabelVolume, file)
    own = file == row.label.path
    try:
        if own and row.recode:
            _recode(labelmap, row.recode)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{row.id} label")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(image)
        logic = slicer.modules.segmentations.logic()
        logic.ImportLabelmapToSegmentationNode(labelmap, segmentation)
        _nameSegments(segmentation, labelmap, structures, row.segments if own else ())
    finally:
        slicer.mrmlScene.RemoveNode(labelmap)
    segmentation.SetAttribute(CASE, row.id)
    if own:
        segmentation.SetAttribute(FILE, file)
    else:
        rememberExported(segmentation, file)


def _recode(labelmap: Any, values: Mapping[int, int]) -> None:
    """Give the voxels of a label map the cohort's values."""
    stored = slicer.util.arrayFromVolume(labelmap)
    labels = stored.astype(np.int16)
    for value, meant in values.items():
        labels[stored == value] = meant
    slicer.util.updateVolumeFromArray(labelmap, labels)


def _nameSegments(
    segmentation: Any,
    labelmap: Any,
    structures: Sequence[dict[str, Any]],
    ofFile: Sequence[dict[str, Any]],
) -> None:
    """Give each segment the name of its structure, and to those that consist of others these, too.

    Those that are no structure keep what the file says of them.
    """
    content, labels = segmentation.GetSegmentation(), slicer.util.arrayFromVolume(labelmap)
    segments = {
        content.GetNthSegmentID(n): content.GetNthSegment(n) for n in range(content.GetNumberOfSegments())
    }
    present = {segment.GetLabelValue() for segment in segments.values()}
    own = {name: values & present for name, values in ownValues(structures).items()}
    named = {s["value"]: s for s in ofFile}
    known = {min(own[s["name"]]): s for s in structures if len(own[s["name"]]) == 1}
    for identifier, segment in segments.items():
        value = segment.GetLabelValue()
        unknown = {"name": _("label {n}").format(n=value)}
        structure = known.get(value) or named.get(value, unknown)
        segment.SetName(structure["name"])
        color = structure.get("color") or COLORS[(value - 1) % len(COLORS)]
        segment.SetColor(*[c / 255 for c in color])
        if structure.get("terminology"):
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), structure["terminology"])
        if len(present.intersection(structure.get("values", ()))) > 1:
            mask = np.isin(labels, structure["values"]).astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, labelmap)


def _read(load: Any, file: str) -> Any:
    try:
        return load(file, dict(ONE_FILE))
    except RuntimeError as error:
        raise EmimError(
            _("Slicer cannot read the file."), file, _("Open it in another program to see what is wrong.")
        ) from error


def _savedAt(file: str | Path) -> str:
    """When a file was written; empty where it is not there now."""
    try:
        return str(os.stat(file).st_mtime_ns)
    except OSError:
        return ""


def _find(className: str, file: str) -> Any:
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(FILE) == file:
            return node
    return None
