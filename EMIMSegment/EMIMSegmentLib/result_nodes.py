"""How the nodes of a result hang together in the scene, so that they are found again after loading it."""

from __future__ import annotations

import json

import slicer

MEASUREMENTS = "EMIM.measurements"  # node reference: segmentation to its table
PROBABILITY = "EMIM.probability"  # node references: segmentation to its probability maps
STRUCTURE = "EMIM.Structure"  # attribute of a probability map
MODEL = "EMIM.Model"  # attributes of a segmentation
MISSING = "EMIM.MissingModalities"
VALUE = "EMIM.LabelValue"  # tag of a segment: its value in a label map


def measurementsTable(segmentation):
    """The table of measurements of a segmentation, or None."""
    return segmentation.GetNodeReference(MEASUREMENTS)


def probabilityVolumes(segmentation) -> dict:
    """Structure to the volume node of its probabilities; empty when they were not asked for."""
    count = segmentation.GetNumberOfNodeReferences(PROBABILITY)
    nodes = [segmentation.GetNthNodeReference(PROBABILITY, i) for i in range(count)]
    return {node.GetAttribute(STRUCTURE): node for node in nodes if node is not None}


def missingModalities(segmentation) -> list[str]:
    """The modalities that were not available for this result."""
    return json.loads(segmentation.GetAttribute(MISSING) or "[]")


def modelName(segmentation) -> str:
    """The model that made it; "" for a segmentation that EMIM did not make."""
    return segmentation.GetAttribute(MODEL) or ""


def isResult(volume) -> bool:
    """Whether EMIM made this volume."""
    return volume.GetAttribute(STRUCTURE) is not None


def referenceVolume(segmentation):
    """The volume whose grid the segmentation has, or None."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role)


def removeWithDisplay(node) -> None:
    """Remove a node with its display nodes, which the scene would keep."""
    for i in reversed(range(node.GetNumberOfDisplayNodes())):
        slicer.mrmlScene.RemoveNode(node.GetNthDisplayNode(i))
    slicer.mrmlScene.RemoveNode(node)
