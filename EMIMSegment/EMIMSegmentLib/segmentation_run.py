"""One segmentation: from volumes in the scene to a segmentation in the scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMSegmentLib.export_inputs import exportVolume, frameOf, isSheared
from EMIMSegmentLib.input_checks import checkInputs
from EMIMSegmentLib.load_result import readSegmentation, takeSegmentation
from EMIMSegmentLib.measurements_table import updateMeasurements
from EMIMSegmentLib.probability_maps import readProbability, updateProbabilities
from EMIMSegmentLib.worker_run import WorkerRun


class SegmentationRun(WorkerRun):
    """Segments the given volumes.

    Args:
        model: :class:`EMIMLib.models.InstalledModel`.
        inputs: modality to volume node.
        reference: modality whose grid the result gets; None: the model's own, else the first.
        outputSegmentation: its segments are replaced; None: a new node.
        device, quality: as ``emim segment`` takes them.
        probabilities: make a volume of the probability of each structure.

    Attributes:
        card: of the model.
        missing: modalities that are not given.
        segmentation, table: nodes; None before it has finished.
        probabilities: structure to volume node.
    """

    def __init__(
        self,
        model,
        inputs: dict,
        *,
        reference: str | None = None,
        outputSegmentation=None,
        device: str = "auto",
        quality: str = "balanced",
        probabilities: bool = False,
        onEvent=None,
        onFinished=None,
    ) -> None:
        super().__init__(onEvent, onFinished)
        self.card = model.card
        self.segmentation = self.table = None
        self.probabilities: dict = {}
        inputs = {m: node for m, node in inputs.items() if node is not None}
        refuseProblems(self.card, inputs)
        self.missing = [m for m in self.card.modalities if m not in inputs]
        self._model = model
        self._inputs = {m: inputs[m].GetID() for m in self.card.modalities if m in inputs}
        self._reference = chooseReference(self.card, inputs, reference)
        self._toReference = np.eye(4)
        self._outputID = outputSegmentation.GetID() if outputSegmentation is not None else None
        self._options = ["--device", device, "--quality", quality]
        if probabilities:
            self._options.append("--probabilities")

    def _prepare(self, folder: Path) -> list[str]:
        node = slicer.mrmlScene.GetNodeByID
        frame, self._toReference = frameOf(node(self._inputs[self._reference]))
        arguments = ["segment", "--model", str(self._model.path)]
        for i, (modality, nodeID) in enumerate(self._inputs.items()):
            volume = node(nodeID)
            self._status(_("Writing {modality} for the worker").format(modality=modality))
            path = folder / f"{i}.nrrd"
            self._fileNames[str(path)] = f"{modality}: {volume.GetName()}"
            exportVolume(volume, path, frame)
            arguments += ["--input", f"{modality}={path}"]
        output = folder / "result.seg.nrrd"
        return [*arguments, "--reference", self._reference, "--output", str(output), *self._options]

    def _load(self, result: dict) -> str:
        # All files are read before the scene is touched, so that a damaged one leaves nothing behind.
        read = readSegmentation(Path(result["output"]), self._toReference)
        maps = {
            name: readProbability(Path(path), self._toReference)
            for name, path in (result.get("probabilities") or {}).items()
        }
        reference = slicer.mrmlScene.GetNodeByID(self._inputs[self._reference])
        target = slicer.mrmlScene.GetNodeByID(self._outputID) if self._outputID else None
        self.segmentation = takeSegmentation(read, target, self.card, reference, self.missing)
        self.probabilities = updateProbabilities(self.segmentation, maps, self.card.structures)
        self.table = updateMeasurements(self.segmentation, measurementsOf(result), list(self._inputs))
        return self._describe(result)

    def _describe(self, result: dict) -> str:
        text = _("Segmented in {seconds:.0f} s on {device}").format(
            seconds=self.seconds, device=result.get("device") or "?"
        )
        if self.missing:
            text += _(", without {names}").format(names=", ".join(self.missing))
        return text + "."


def measurementsOf(result: dict) -> list[dict]:
    """The measurements in a worker's result."""
    return result.get("measurements") or [
        {"structure": name, "volume_ml": volume} for name, volume in result["volumes_ml"].items()
    ]


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
