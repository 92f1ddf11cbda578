"""Rigid alignment of the inputs to one of them, as transforms that can be looked at and taken away.

The alignment of a volume is a linear transform node between the volume and the transform it had before.
The volume refers to it, so that it is found again after the scene was saved and loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.export_volume import exportVolume, gridOf, isSheared, matrixToWorld
from EMIMSegmentLib.worker_run import WorkerRun

ROLE = "EMIM.alignment"  # node reference: volume to the transform that aligns it
GRID = "EMIM.alignedGrid"  # attribute of the volume: its IJK to RAS matrix, row by row, when it was aligned


class AlignmentRun(WorkerRun):
    """Aligns all inputs to that of the modality ``reference``.

    Attributes:
        alignments: modality to what the worker says of it: translation_mm, rotation_deg,
            similarity_before, similarity_after, warning.
        transforms: modality to transform node.
    """

    def __init__(self, inputs: dict, reference: str, onEvent=None, onFinished=None) -> None:
        super().__init__(onEvent, onFinished)
        inputs = {m: node for m, node in inputs.items() if node is not None}
        if reference not in inputs:
            raise EmimError(
                _("{modality} cannot be the reference: it has no volume.").format(modality=reference),
                hint=_("Choose one of: {names}.").format(names=", ".join(inputs)),
            )
        if len(inputs) < 2:
            raise EmimError(
                _("There is nothing to align to {modality}.").format(modality=reference),
                hint=_("Choose the volume of at least one other modality."),
            )
        for modality, volume in inputs.items():
            _refuse(modality, volume)
        self.alignments: dict = {}
        self.transforms: dict = {}
        self._reference = reference
        self._inputs = {m: node.GetID() for m, node in inputs.items()}

    def _prepare(self, folder: Path) -> list[str]:
        arguments = ["register"]
        for i, (modality, nodeID) in enumerate(self._inputs.items()):
            volume = slicer.mrmlScene.GetNodeByID(nodeID)
            self._status(_("Writing {modality} for the worker").format(modality=modality))
            path = folder / f"{i}.nrrd"
            self._fileNames[str(path)] = f"{modality}: {volume.GetName()}"
            fixed = modality == self._reference
            exportVolume(volume, path, parent=volume.GetParentTransformNode() if fixed else _original(volume))
            arguments += ["--fixed" if fixed else "--moving", f"{modality}={path}"]
        return arguments

    def _load(self, result: dict) -> str:
        self.alignments = result["alignments"]
        fixed = slicer.mrmlScene.GetNodeByID(self._inputs[self._reference])
        for modality, found in self.alignments.items():
            volume = slicer.mrmlScene.GetNodeByID(self._inputs[modality])
            if volume is None:  # removed meanwhile
                continue
            _refuse(modality, volume)  # it may have been put under another transform meanwhile
            transform = _align(volume, np.array(found["matrix_ras"], float))
            if fixed is not None:
                names = {"volume": volume.GetName(), "fixed": fixed.GetName()}
                transform.SetName(_("{volume} aligned to {fixed}").format(**names))
            self.transforms[modality] = transform
        doubtful = [m for m, found in self.alignments.items() if found.get("warning")]
        text = _("Aligned {names} to {reference}.").format(
            names=", ".join(self.alignments), reference=self._reference
        )
        if doubtful:
            text += " " + _("Look closely at {names}.").format(names=", ".join(doubtful))
        return text


def alignmentOf(volume):
    """The transform that aligns a volume, shown or not; None when it was not aligned.

    Nor is it any longer once the user has hardened the transform, or put the volume below another one.
    """
    transform = volume.GetNodeReference(ROLE)
    if transform is None:
        return None
    itsPlaces = (transform.GetID(), transform.GetTransformNodeID())
    grid = np.array((volume.GetAttribute(GRID) or "").split(), float)
    unchanged = grid.size == 0 or np.allclose(grid, gridOf(volume).ravel(), atol=1e-3)
    return transform if unchanged and volume.GetTransformNodeID() in itsPlaces else None


def isAlignmentShown(volume) -> bool:
    transform = alignmentOf(volume)
    return transform is not None and volume.GetTransformNodeID() == transform.GetID()


def setAlignmentShown(inputs: dict, shown: bool) -> None:
    """Put the volumes where they were aligned to, or back, for a look before and after."""
    for volume in _aligned(inputs):
        transform = alignmentOf(volume)
        volume.SetAndObserveTransformNodeID(transform.GetID() if shown else transform.GetTransformNodeID())


def removeAlignment(inputs: dict) -> None:
    """Put the volumes back for good and remove the transforms."""
    setAlignmentShown(inputs, False)
    for volume in _aligned(inputs):
        transform = alignmentOf(volume)
        volume.RemoveNodeReferenceIDs(ROLE)
        slicer.mrmlScene.RemoveNode(transform)


def _aligned(inputs: dict) -> list:
    return [node for node in inputs.values() if node is not None and alignmentOf(node) is not None]


def _original(volume):
    """The transform a volume had before it was aligned."""
    return (alignmentOf(volume) if isAlignmentShown(volume) else volume).GetParentTransformNode()


def _align(volume, matrix: np.ndarray):
    """Move ``volume`` by ``matrix`` (world RAS, 4x4) beyond the transform it has; return the node."""
    parent = _original(volume)
    toWorld = matrixToWorld(volume, parent)
    transform = alignmentOf(volume)
    if transform is None:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        volume.SetNodeReferenceID(ROLE, transform.GetID())
        volume.SetAttribute(GRID, " ".join(f"{x:.9g}" for x in gridOf(volume).ravel()))
    local = np.linalg.inv(toWorld) @ matrix @ toWorld  # the new transform lies below the old one
    slicer.util.updateTransformMatrixFromArray(transform, local)
    transform.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def _refuse(modality: str, volume) -> None:
    parent = _original(volume)
    if matrixToWorld(volume, parent) is None:
        raise EmimError(
            _("{modality} lies under a non-linear transform and cannot be aligned.").format(
                modality=modality
            ),
            volume.GetName(),
            _("Harden the transform first (Transforms module), or remove it."),
        )
    if isSheared(volume):
        raise EmimError(
            _("The grid of {modality} is sheared; it cannot be aligned.").format(modality=modality),
            volume.GetName(),
            _("Resample the volume first (Resample Scalar/Vector/DWI Volume)."),
        )
