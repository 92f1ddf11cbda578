"""How the nodes of a result hang together in the scene, so that they are found again after loading it."""

from __future__ import annotations

import json

import slicer
import vtk
from slicer.i18n import tr as _

from EMIMLib.made_volumes import STRUCTURE

MEASUREMENTS = "EMIM.measurements"  # node reference: segmentation to its table
PROBABILITY = "EMIM.probability"  # node references: segmentation to its probability maps
CLASSIFIED = "EMIM.classified"  # node reference: table of classes to the volume it is named after
MODEL = "EMIM.Model"  # attributes of a segmentation or a table of classes
VERSION = "EMIM.ModelVersion"
MISSING = "EMIM.MissingModalities"
SIZES = "EMIM.SizeChange"  # attribute of a segmentation: by which its grid shows sizes other than they are
MEASURED = "EMIM.Measured"  # attribute of a segmentation: checksum of what was measured
VALUE = "EMIM.LabelValue"  # tag of a segment: its value in a label map
SMALL_CHANGE = 0.01  # of sizes, by a transform: less is not told
# Tags of a segment which an export as DICOM SEG looks for; without them it says that a person drew it.
ALGORITHM_TYPE = "DICOM.SegmentAlgorithmType"
ALGORITHM_NAME = "DICOM.SegmentAlgorithmName"
LONGEST_NAME = 64  # letters in a DICOM value of this kind


def measurementsTable(segmentation):
    """The table of measurements of a segmentation, or None."""
    return segmentation.GetNodeReference(MEASUREMENTS)


def probabilityVolumes(segmentation) -> dict:
    """Structure to the volume node of its probabilities; empty when they were not asked for."""
    count = segmentation.GetNumberOfNodeReferences(PROBABILITY)
    nodes = [segmentation.GetNthNodeReference(PROBABILITY, i) for i in range(count)]
    return {node.GetAttribute(STRUCTURE): node for node in nodes if node is not None}


def missingModalities(result) -> list[str]:
    """The modalities that were not available for this segmentation or table of classes."""
    return json.loads(result.GetAttribute(MISSING) or "[]")


def sizeChangeText(segmentation) -> str:
    """What is to be known of measurements under a transform that bends; "" where there is nothing."""
    change = float(segmentation.GetAttribute(SIZES) or 0)
    if change < SMALL_CHANGE:
        return ""
    return _(
        "The transform above the reference changes sizes by up to {percent:.0f} %, and the measurements are "
        "without it. Harden it (Data module, right-click the transform column), resample the volume if it is "
        "sheared then, and segment again."
    ).format(percent=100 * change)


def modelName(result) -> str:
    """The model that made it; "" for a segmentation or table that EMIM did not make."""
    return result.GetAttribute(MODEL) or ""


def modelVersion(result) -> str:
    """The version of that model, day and fingerprint; "" where the result does not tell it."""
    return result.GetAttribute(VERSION) or ""


def noteModel(result, model) -> None:
    """Remember, in the scene, which :class:`EMIMLib.models.InstalledModel` made it."""
    result.SetAttribute(MODEL, model.name)
    result.SetAttribute(VERSION, model.version)


def noteAlgorithm(segment, model) -> None:
    """Remember that the model drew the segment, in the words of DICOM."""
    segment.SetTag(ALGORITHM_TYPE, "AUTOMATIC")
    name = f"EMIM {model.name} {model.version}".replace("\\", "/")
    segment.SetTag(ALGORITHM_NAME, name[:LONGEST_NAME].strip())


def noteCorrected(segmentation) -> None:
    """Remember that a person had a hand in what a model drew, in the words of DICOM."""
    segments = segmentation.GetSegmentation()
    for segmentID in segments.GetSegmentIDs():
        segment, kind = segments.GetSegment(segmentID), vtk.reference("")
        if segment.GetTag(ALGORITHM_TYPE, kind) and str(kind) == "AUTOMATIC":
            segment.SetTag(ALGORITHM_TYPE, "SEMIAUTOMATIC")


def madeWith(result) -> str:
    """Name and version of the model that made it, for people; "" where EMIM did not make it."""
    name, version = modelName(result), modelVersion(result)
    return f"{name} ({versionText(version)})" if name and version else name


def versionText(version: str) -> str:
    """A model's version in a sentence: a fingerprint without a day does not tell what it is."""
    return version if not version or "," in version else _("code {version}").format(version=version)


def isMadeBy(result, model) -> bool:
    """Whether nothing speaks against that ``model`` made it: neither another name nor another version."""
    version = modelVersion(result)
    return modelName(result) in ("", model.name) and version in ("", model.version)


def referenceVolume(segmentation):
    """The volume whose grid the segmentation has, or None."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role)


def classifiedVolume(table):
    """The volume that a table of classes is named after, or None."""
    return table.GetNodeReference(CLASSIFIED)


def removeWithDisplay(node) -> None:
    """Remove a node with its display nodes, which the scene would keep."""
    for i in reversed(range(node.GetNumberOfDisplayNodes())):
        slicer.mrmlScene.RemoveNode(node.GetNthDisplayNode(i))
    slicer.mrmlScene.RemoveNode(node)
