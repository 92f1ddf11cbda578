"""One examination given to the worker: what segmentation and classification share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from emim.inference.inputs import modality_called
from EMIMLib import EmimError
from EMIMLib.export_volume import exportVolume, frameOf, gridOf, isSheared, sizeChange
from EMIMSegmentLib.input_checks import byModality, checkInputs
from EMIMSegmentLib.worker_run import WorkerRun


class CaseRun(WorkerRun):
    """Checks the volumes of one examination, and writes them for the worker.

    Args:
        model: :class:`EMIMLib.models.InstalledModel`.
        inputs: modality to volume node; names as :func:`EMIMSegmentLib.input_checks.byModality` takes them.
        reference: modality on whose grid all are brought; None: the model's own, else the first.

    Attributes:
        card: of the model.
        missing: modalities that are not given.
    """

    def __init__(self, model, inputs: dict, reference: str | None, onEvent=None, onFinished=None) -> None:
        super().__init__(onEvent, onFinished)
        self.card = model.card
        inputs = byModality(self.card, inputs)
        refuseProblems(self.card, inputs)
        self.missing = [m for m in self.card.modalities if m not in inputs]
        self._model = model
        self._inputs = {m: inputs[m].GetID() for m in self.card.modalities if m in inputs}
        self._reference = chooseReference(self.card, inputs, reference)
        self._toReference = self._grid = np.eye(4)  # from the frame; IJK to RAS of the reference
        self._transformID: str | None = None  # of the transform above the reference
        self._sizeChange = 0.0  # by that transform

    def _inputArguments(self, folder: Path) -> list[str]:
        """Write the volumes into ``folder``; the arguments that name model, inputs and reference."""
        node = slicer.mrmlScene.GetNodeByID
        reference = node(self._inputs[self._reference])
        frame, self._toReference = frameOf(reference)
        self._grid, self._transformID = gridOf(reference), reference.GetTransformNodeID()
        self._sizeChange = sizeChange(reference)
        arguments = ["--model", str(self._model.path)]
        for i, (modality, nodeID) in enumerate(self._inputs.items()):
            volume = node(nodeID)
            self._status(_("Writing {modality} for the worker").format(modality=modality))
            path = folder / f"{i}.nrrd"
            self._fileNames[str(path)] = f"{modality}: {volume.GetName()}"
            exportVolume(volume, path, frame)
            arguments += ["--input", f"{modality}={path}"]
        return [*arguments, "--reference", self._reference]

    def _referenceNode(self):
        """The volume node of the reference; None when it was removed meanwhile."""
        return slicer.mrmlScene.GetNodeByID(self._inputs[self._reference])

    def _place(self) -> tuple[np.ndarray, str | None]:
        """Where a result, which is in the coordinates of the frame, belongs now.

        Returns a matrix (4, 4) for its positions (RAS mm), and the ID of the transform above it: those that
        keep it over the voxels of the reference, or where that was if it was removed.
        """
        reference = self._referenceNode()
        if reference is not None:  # it may have been moved, or its transform hardened
            moved = gridOf(reference) @ np.linalg.inv(self._grid)
            return moved @ self._toReference, reference.GetTransformNodeID()
        if self._transformID and slicer.mrmlScene.GetNodeByID(self._transformID) is not None:
            return self._toReference, self._transformID
        return np.eye(4), None

    def _describe(self, done: str, result: dict) -> str:
        """One sentence that begins with ``done``, such as "Segmented"."""
        text = _("{done} in {seconds:.0f} s on {device}").format(
            done=done, seconds=self.seconds, device=result.get("device") or "?"
        )
        if self.missing:
            text += _(", without {names}").format(names=", ".join(self.missing))
        return text + "."


def refuseProblems(card, inputs: dict) -> None:
    """Raise the first problem that makes it impossible to segment ``inputs``.

    Raises:
        EmimError: naming all of them.
    """
    blocking = [p for p in checkInputs(card, inputs) if p.blocking]
    if blocking:
        what = " ".join(dict.fromkeys(p.what for p in blocking))
        where = ", ".join(dict.fromkeys(p.modality for p in blocking if p.modality))
        raise EmimError(what, where or None, blocking[0].hint)


def chooseReference(card, inputs: dict, reference: str | None) -> str:
    """The modality whose grid the result gets.

    Raises:
        EmimError: when it is not among the inputs, or its grid is sheared.
    """
    if reference:
        reference = modality_called(card, reference) or reference
    if reference and reference not in inputs:
        raise EmimError(
            _("{modality} cannot be the reference: it has no volume.").format(modality=reference),
            hint=_("Choose one of: {names}.").format(names=", ".join(inputs)),
        )
    own = card.preprocess.reference
    first = next(m for m in card.modalities if m in inputs)
    chosen = reference or (own if own in inputs else first)
    if isSheared(inputs[chosen]):
        raise EmimError(
            _("The grid of the reference volume is sheared; no result can be written on it."),
            inputs[chosen].GetName(),
            _("Choose another reference, or resample the volume (Resample Scalar/Vector/DWI Volume)."),
        )
    return chosen
