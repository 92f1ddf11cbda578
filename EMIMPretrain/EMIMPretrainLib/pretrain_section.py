"""Settings of pre-training, an estimate, and the start."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from EMIMLib import dependencies, settings

from .estimate_view import EstimateView
from .panel_state import PanelState
from .shown_errors import onceAtATime, shownErrors

DEVICE_NAMES = {
    "auto": _("Automatic"),
    "cuda": _("Graphics card (NVIDIA)"),
    "mps": _("Graphics card (Apple)"),
    "cpu": _("Processor (CPU)"),
}
FOR_WHOM = {
    "tiny": _("For a first try, and for computers without a graphics card: an hour to an evening."),
    "base": _("For one graphics card with 8 GB or more and dozens of cases: a day or two."),
    "large": _("For a graphics card with 24 GB or more and hundreds of cases: several days."),
}


class PretrainSection:
    """Starts pre-training of ``state.table`` with the parameter node's settings."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.estimate = EstimateView(
            state,
            ui.estimateButton,
            ui.estimateProgressBar,
            ui.estimateLabel,
            self._beginEstimate,
            self._question,
        )
        for device in settings.DEVICES:
            ui.deviceComboBox.addItem(DEVICE_NAMES.get(device, device), device)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._onDevice)
        ui.startPretrainButton.connect("clicked(bool)", self._onStart)
        self._startToolTip = ui.startPretrainButton.toolTip

    def update(self) -> None:
        node = self.state.parameterNode
        if node is None:
            return
        preset = self.logic.presetValues(node.preset)
        words = _("{whom} {steps} steps on cubes of {crop} voxels a side.")
        self.ui.presetLabel.text = words.format(whom=FOR_WHOM[node.preset], **preset)
        for name, box in (
            ("maskUnit", self.ui.maskUnitSpinBox),
            ("crop", self.ui.cropSpinBox),
            ("steps", self.ui.stepsSpinBox),
            ("batch", self.ui.batchSpinBox),
        ):
            text = _("{n} (preset)").format(n=preset[name])
            if box.specialValueText != text:  # setting it would disturb who is typing
                box.specialValueText = text
        self._showDevice()
        reason = self._reason()
        self.estimate.update(reason)
        reason = reason or self.state.busyReason()
        self.ui.startPretrainButton.enabled = not reason
        self.ui.startPretrainButton.toolTip = reason or self._startToolTip

    def _reason(self) -> str:
        """Why pre-training cannot start, in words; empty when it can."""
        table = self.state.table
        if table is None:
            return _("Scan a cohort first.")
        if not table.usedRows:
            return _("No case of the cohort is used; tick some.")
        return self.logic.settingsProblem(self.logic.pretrainSettings(self.state.parameterNode))

    def _question(self) -> tuple:
        node, table = self.state.parameterNode, self.state.table
        if node is None or table is None:
            return ()
        wanted = self.logic.pretrainSettings(node)
        return table.source, tuple(table.excludedIds), tuple(wanted.items()), settings.device()

    def _showDevice(self) -> None:
        combo, device = self.ui.deviceComboBox, settings.device()
        wasBlocked = combo.blockSignals(True)
        if combo.findData(device) < 0:
            combo.addItem(device, device)
        combo.setCurrentIndex(combo.findData(device))
        combo.blockSignals(wasBlocked)

    def _beginEstimate(self, onEvent, onFinished):
        pretrainSettings = self.logic.pretrainSettings(self.state.parameterNode)
        return self.logic.estimate(self.state.table, pretrainSettings, onEvent=onEvent, onFinished=onFinished)

    def _onDevice(self, index: int) -> None:
        settings.setDevice(self.ui.deviceComboBox.itemData(index))
        self.state.changed()

    @onceAtATime
    def _onStart(self, checked: bool = False) -> None:
        node = self.state.parameterNode
        with shownErrors():
            if not dependencies.ensure(self.ui.startPretrainButton):
                return
            with slicer.util.WaitCursor():
                run = self.logic.startPretraining(
                    self.state.table,
                    settings=self.logic.pretrainSettings(node),
                    name=node.runName.strip(),
                )
                self.state.select(run)
