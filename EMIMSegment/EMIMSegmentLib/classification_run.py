"""One classification: from volumes in the scene to the probability of each class."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from EMIMSegmentLib.case_run import CaseRun
from EMIMSegmentLib.class_table import updateClassTable


class ClassificationRun(CaseRun):
    """Tells to which class an examination belongs.

    Args:
        model, inputs, reference: see :class:`CaseRun`.
        outputTable: table node that is replaced; None: a new node.
        device: as ``emim classify`` takes it.

    Attributes:
        probabilities: class to probability, in the model's order; empty before it has finished.
        table: node; None before it has finished.
    """

    def __init__(
        self,
        model,
        inputs: dict,
        *,
        reference: str | None = None,
        outputTable=None,
        device: str = "auto",
        onEvent=None,
        onFinished=None,
    ) -> None:
        super().__init__(model, inputs, reference, onEvent, onFinished)
        self.probabilities: dict[str, float] = {}
        self.table = None
        self._outputID = outputTable.GetID() if outputTable is not None else None
        self._device = device

    def _prepare(self, folder: Path) -> list[str]:
        return ["classify", *self._inputArguments(folder), "--device", self._device]

    def _load(self, result: dict) -> str:
        told = result["probabilities"]
        probabilities = {name: float(told[name]) for name in self.card.classes}
        target = slicer.mrmlScene.GetNodeByID(self._outputID) if self._outputID else None
        self.table = updateClassTable(target, self._model, probabilities, self._referenceNode(), self.missing)
        self.probabilities = probabilities
        return self._describe(_("Classified"), result)
