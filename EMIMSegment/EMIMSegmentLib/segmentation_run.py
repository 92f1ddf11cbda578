"""One segmentation: from volumes in the scene to a segmentation in the scene."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from EMIMSegmentLib.case_run import CaseRun
from EMIMSegmentLib.load_result import readSegmentation, takeSegmentation
from EMIMSegmentLib.measured_content import contentChecksum, noteMeasured
from EMIMSegmentLib.measurements_table import updateMeasurements
from EMIMSegmentLib.probability_maps import readProbability, updateProbabilities
from EMIMSegmentLib.result_nodes import sizeChangeText


class SegmentationRun(CaseRun):
    """Segments the given volumes.

    Args:
        model, inputs, reference: see :class:`CaseRun`; the result gets the grid of the reference.
        outputSegmentation: its segments are replaced; None, or edited while the run lasts: a new node.
        device, quality: as ``emim segment`` takes them.
        probabilities: make a volume of the probability of each structure.

    Attributes:
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
        super().__init__(model, inputs, reference, onEvent, onFinished)
        self.segmentation = self.table = None
        self.probabilities: dict = {}
        self._outputID = outputSegmentation.GetID() if outputSegmentation is not None else None
        self._replaced = contentChecksum(outputSegmentation) if outputSegmentation is not None else ""
        self._options = ["--device", device, "--quality", quality]
        if probabilities:
            self._options.append("--probabilities")

    def _prepare(self, folder: Path) -> list[str]:
        output = folder / "result.seg.nrrd"
        return ["segment", *self._inputArguments(folder), "--output", str(output), *self._options]

    def _load(self, result: dict) -> str:
        # All files are read before the scene is touched, so that a damaged one leaves nothing behind.
        matrix, transformID = self._place()
        read = readSegmentation(Path(result["output"]), matrix)
        maps = {
            name: readProbability(Path(path), matrix)
            for name, path in (result.get("probabilities") or {}).items()
        }
        reference = self._referenceNode()
        target = slicer.mrmlScene.GetNodeByID(self._outputID) if self._outputID else None
        edited = None
        if target is not None and contentChecksum(target) != self._replaced:
            edited, target = target, None
        self.segmentation = takeSegmentation(
            read, target, self._model, reference, self.missing, transformID, self._sizeChange
        )
        self.probabilities = updateProbabilities(self.segmentation, maps, self.card.structures)
        self.table = updateMeasurements(self.segmentation, measurementsOf(result), list(self._inputs))
        noteMeasured(self.segmentation)
        summary = f"{self._describe(_('Segmented'), result)} {sizeChangeText(self.segmentation)}".rstrip()
        if edited is None:
            return summary
        text = _("“{kept}” was edited meanwhile, so it was left as it is; the result is “{new}”.")
        return f"{summary} {text.format(kept=edited.GetName(), new=self.segmentation.GetName())}"


def measurementsOf(result: dict) -> list[dict]:
    """The measurements in a worker's result."""
    return result.get("measurements") or [
        {"structure": name, "volume_ml": volume} for name, volume in result["volumes_ml"].items()
    ]
