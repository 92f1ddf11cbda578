"""Choose how to segment or classify, and do it."""

from __future__ import annotations

import sys

from slicer.i18n import tr as _

from EMIMLib import settings
from EMIMSegmentLib.classification_run import ClassificationRun
from EMIMSegmentLib.marks import CHECK, QUIET, marked
from EMIMSegmentLib.replace_question import CANCEL, NEW, askToReplace
from EMIMSegmentLib.result_nodes import classifiedVolume, isMadeBy, modelName, referenceVolume
from EMIMSegmentLib.section_job import SectionJob


class RunSection:
    """Apply, and what it needs to know.

    Args:
        whyNot: says in words why the inputs cannot be used; empty when they can.
        onResult: called with the run after a successful segmentation, ``onClasses`` after a classification.
    """

    def __init__(self, ui, logic, state, whyNot, onResult, onClasses) -> None:
        self.ui, self.logic, self.state, self._whyNot = ui, logic, state, whyNot
        self._onResult, self._onClasses = onResult, onClasses
        self._resultFor = None  # input ids and model that the chosen result was last judged for
        self._fillChoices()
        self.job = SectionJob(
            state, ui.applyButton, ui.runLogFrame, _("Segmenting"), self._begin, self._onDone, self._agree
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
        self._showTask()
        reason = self._whyNot()
        self.job.update(reason)
        ui.applyHintLabel.text = self._hint(reason)
        ui.applyHintLabel.visible = idle and bool(ui.applyHintLabel.text)

    def _showTask(self) -> None:
        """Hide what means nothing for the task of the chosen model."""
        ui, classifies = self.ui, self.state.classifies
        for widget in (
            ui.qualityLabel,
            ui.qualityComboBox,
            ui.outputLabel,
            ui.outputSelector,
            ui.alsoLabel,
            ui.surfaceCheckBox,
            ui.probabilitiesCheckBox,
        ):
            widget.visible = not classifies
        ui.runCollapsibleButton.text = _("Classify") if classifies else _("Segment")
        if classifies:
            toolTip = _("Tell to which class this examination belongs.")
            self.job.describe(_("Classifying"), _("Apply"), toolTip)
        else:
            self.job.describe(_("Segmenting"), _("Apply"), _("Segment the inputs."))

    def _leaveForeignResult(self) -> None:
        """When inputs or model change to others, the next result becomes a new node."""
        self._leaveForeignTable()
        ids = {volume.GetID() for volume in self.state.inputs().values()}
        card, node = self.state.card, self.state.parameterNode
        wanted = ids, (card.name, self.state.model.version) if card else None
        if wanted == self._resultFor:
            return
        self._resultFor = wanted
        result = node.outputSegmentation
        if result is None or not ids or card is None:
            return
        made = referenceVolume(result)
        ofOthers = made.GetID() not in ids if made is not None else bool(modelName(result))
        if ofOthers or not isMadeBy(result, self.state.model):
            node.outputSegmentation = None

    def _leaveForeignTable(self) -> None:
        node, card, reference = self.state.parameterNode, self.state.card, self.state.reference()
        table = node.outputTable
        if table is None or card is None or not self.state.classifies or not reference:
            return
        volume = classifiedVolume(table)
        if not isMadeBy(table, self.state.model) or volume is not self.state.inputs()[reference]:
            node.outputTable = None

    def _hint(self, reason: str) -> str:
        if reason:
            return marked(reason, QUIET)
        node = self.state.parameterNode
        output = node.outputTable if self.state.classifies else node.outputSegmentation
        if output:
            text = _("Apply replaces what “{name}” holds now.").format(name=output.GetName())
            return marked(text, CHECK, "●")
        return ""

    def _agree(self) -> bool:
        """Ask before what a person drew or corrected is replaced; False when the run is not wanted."""
        node = self.state.parameterNode
        output = node.outputSegmentation
        if self.state.classifies or output is None or not self.logic.holdsOwnWork(output):
            return True
        answer = askToReplace(output)
        if answer == NEW:
            node.outputSegmentation = None
        return answer != CANCEL

    def _begin(self, onEvent, onFinished):
        node = self.state.parameterNode
        if self.state.classifies:
            return self.logic.classify(
                self.state.inputs(),
                self.state.model,
                reference=self.state.reference(),
                outputTable=node.outputTable,
                waitForCompletion=False,
                onEvent=onEvent,
                onFinished=onFinished,
            )
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
        node = self.logic.getParameterNode()
        self._resultFor = None  # another patient may have been chosen since
        if isinstance(run, ClassificationRun):
            node.outputTable = run.table
            self._onClasses(run)
        else:
            node.outputSegmentation = run.segmentation
            self._onResult(run)

    def _fillChoices(self) -> None:
        ui = self.ui
        for text, value in (
            (_("Fast: for a first look"), "fast"),
            (_("Balanced"), "balanced"),
            (_("Best: twice as slow"), "best"),
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
