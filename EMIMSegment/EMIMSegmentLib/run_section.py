"""Choose how to segment, and segment."""

from __future__ import annotations

import sys

from slicer.i18n import tr as _

from EMIMLib import settings
from EMIMSegmentLib.marks import CHECK, QUIET, marked
from EMIMSegmentLib.result_nodes import referenceVolume
from EMIMSegmentLib.section_job import SectionJob


class RunSection:
    """Apply, and what it needs to know.

    Args:
        whyNot: says in words why the inputs cannot be segmented; empty when they can.
        onResult: called with the run after a success.
    """

    def __init__(self, ui, logic, state, whyNot, onResult) -> None:
        self.ui, self.logic, self.state, self._whyNot = ui, logic, state, whyNot
        self._onResult = onResult
        self._inputIDs = set()
        self._fillChoices()
        self.job = SectionJob(
            state, ui.applyButton, ui.runLogFrame, _("Segmenting"), self._begin, self._onDone
        )

    def update(self) -> None:
        ui, node, idle = self.ui, self.state.parameterNode, self.state.job is None
        self._leaveForeignResult()
        self._choose(ui.qualityComboBox, node.quality)
        self._choose(ui.deviceComboBox, settings.device())
        for widget in (
            ui.qualityComboBox,
            ui.deviceComboBox,
            ui.outputSelector,
            ui.surfaceCheckBox,
            ui.probabilitiesCheckBox,
        ):
            widget.enabled = idle
        reason = self._whyNot()
        self.job.update(reason)
        ui.applyHintLabel.text = self._hint(reason)
        ui.applyHintLabel.visible = idle and bool(ui.applyHintLabel.text)

    def _leaveForeignResult(self) -> None:
        """When the inputs change to another case, the next result becomes a new segmentation."""
        ids = {volume.GetID() for volume in self.state.inputs().values()}
        if ids == self._inputIDs:
            return
        self._inputIDs = ids
        node = self.state.parameterNode
        made = referenceVolume(node.outputSegmentation) if node.outputSegmentation else None
        if ids and made is not None and made.GetID() not in ids:
            node.outputSegmentation = None

    def _hint(self, reason: str) -> str:
        if reason:
            return marked(reason, QUIET)
        node = self.state.parameterNode
        if node.outputSegmentation:
            text = _("Apply replaces what “{name}” holds now.").format(name=node.outputSegmentation.GetName())
            return marked(text, CHECK, "●")
        return ""

    def _begin(self, onEvent, onFinished):
        node = self.state.parameterNode
        return self.logic.process(
            self.state.inputs(),
            self.state.model,
            reference=self.state.reference(),
            outputSegmentation=node.outputSegmentation,
            quality=node.quality,
            probabilities=node.probabilities,
            surface=node.showSurface,
            opacity=node.segmentationOpacity,
            waitForCompletion=False,
            onEvent=onEvent,
            onFinished=onFinished,
        )

    def _onDone(self, run) -> None:
        # The user may have gone to another module meanwhile, which leaves the panel without its node.
        self.logic.getParameterNode().outputSegmentation = run.segmentation
        self._onResult(run)

    def _fillChoices(self) -> None:
        ui = self.ui
        for text, value in (
            (_("Fast: for a first look"), "fast"),
            (_("Balanced"), "balanced"),
            (_("Best: several times slower"), "best"),
        ):
            ui.qualityComboBox.addItem(text, value)
        gpu = (_("GPU (Apple)"), "mps") if sys.platform == "darwin" else (_("GPU (NVIDIA)"), "cuda")
        for text, value in ((_("Automatic"), "auto"), gpu, (_("CPU: works everywhere, slower"), "cpu")):
            ui.deviceComboBox.addItem(text, value)
        ui.qualityComboBox.connect("currentIndexChanged(int)", self._onQuality)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDevice)

    def _choose(self, combo, value: str) -> None:
        index = combo.findData(value)
        if index < 0:  # set from elsewhere, such as cuda:1
            combo.addItem(value, value)
            index = combo.count - 1
        wasBlocked = combo.blockSignals(True)
        combo.setCurrentIndex(index)
        combo.blockSignals(wasBlocked)

    def _onQuality(self, index: int) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.quality = self.ui.qualityComboBox.itemData(index)

    def _onDevice(self, index: int) -> None:
        settings.setDevice(self.ui.deviceComboBox.itemData(index))
