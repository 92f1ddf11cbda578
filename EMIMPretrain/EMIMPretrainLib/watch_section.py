"""See whether the selected run goes well: verdict, progress, log, plots, reconstruction."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from emim.run_state import EventTail
from EMIMLib.error_display import showError
from EMIMLib.log_pane import LogPane

from .panel_state import PanelState
from .rich_text import LIGHTS, bold, colored, lines, plain
from .shown_errors import onceAtATime, shownErrors

KINDS = {"pretrain": _("pre-training"), "finetune": _("fine-tuning")}
LIGHT_SIZE = 34  # px
# Of buttons that mean something else while a fine-tuning run is shown.
FINETUNE_TOOLTIPS = {
    "showLossButton": _("Loss over the steps: the error that training makes smaller."),
    "showRankButton": _(
        "Validation Dice over the steps: how well the model's structures overlap with your labels in cases "
        "it did not learn from; 0: not at all, 1: wholly."
    ),
    "showPreviewButton": _(
        "Load the image, your labels and the model's prediction of a validation case into the red, yellow "
        "and green view."
    ),
}
CLASSIFICATION_TOOLTIPS = {
    "showLossButton": FINETUNE_TOOLTIPS["showLossButton"],
    "showRankButton": _(
        "Validation scores over the steps: AUC and accuracies in cases it did not learn from."
    ),
    "showPreviewButton": _(
        "A classification run has no picture to show: it answers with a class, not an image."
    ),
}


class WatchSection:
    """Shows ``state.monitor``."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._pane = LogPane()
        ui.watchLogFrame.layout().addWidget(self._pane)
        self._monitor = None  # the run shown
        self._ended = True  # its end has been told
        self._chart = ""  # role of the plot that is in the layout
        self._hiddenWhole = False  # and the network saw nothing of the modality shown
        buttons = (ui.showLossButton, ui.showRankButton, ui.showPreviewButton)
        self._toolTips = {button: button.toolTip for button in buttons}  # of pre-training
        ui.showLossButton.connect("clicked(bool)", self._onShowLoss)
        ui.showRankButton.connect("clicked(bool)", self._onShowRank)
        ui.showPreviewButton.connect("clicked(bool)", self._onShowPreview)
        ui.previewModalityComboBox.connect("currentIndexChanged(int)", self._onModality)

    def show(self) -> None:
        """Take the run that is selected now."""
        old, monitor = self._monitor, self.state.monitor
        self._monitor = monitor
        sameRun = old is not None and monitor is not None and old.folder == monitor.folder
        if self.state.previewing and not sameRun:
            self.state.previewing = False
            self.logic.endPreview()
        if monitor is None:
            self._pane.clear()
            return
        self._ended = not monitor.running
        self._pane.start(monitor.name)
        self._showHistory()
        if self._ended:
            self._pane.finish(monitor.phase != "failed", monitor.phaseText)
        if self._chart:
            self._showChart(self._chart)

    def update(self) -> None:
        monitor, ui = self._monitor, self.ui
        shown = monitor is not None
        for widget in (self._pane, ui.verdictLightLabel, ui.verdictLabel, ui.previewModalityComboBox):
            widget.setVisible(shown)
        ui.showLossButton.enabled = ui.showRankButton.enabled = shown
        if not shown:
            ui.watchTitleLabel.text = _("Start a run, or select one in the list of runs.")
            ui.showPreviewButton.enabled = False
            ui.previewLabel.setVisible(False)
            return
        kind = _("classification") if monitor.classifies else KINDS.get(monitor.command, "")
        ui.watchTitleLabel.text = f"{bold(monitor.name)} ({plain(kind)})"
        finetuning = monitor.command == "finetune"
        ui.showRankButton.text = _("Show Dice plot") if finetuning else _("Show rank plot")
        if monitor.classifies:
            ui.showRankButton.text = _("Show accuracy plot")
        ui.showPreviewButton.text = _("Show prediction") if finetuning else _("Show reconstruction")
        toolTips = CLASSIFICATION_TOOLTIPS if monitor.classifies else FINETUNE_TOOLTIPS if finetuning else {}
        for button, toolTip in self._toolTips.items():
            button.toolTip = toolTips.get(button.objectName, toolTip)
        self._updateVerdict()
        self._updatePreview()

    def handle(self, event: dict) -> None:
        """Take a new event of the run."""
        self._pane.handle(event)
        if event["type"] == "preview" and self.state.previewing:
            self._showPreview()

    def stateChanged(self) -> None:
        """The run's phase or numbers have changed."""
        monitor = self._monitor
        if monitor.running:
            self._ended = False
            self._pane.statusLabel.text = monitor.phaseText
            return
        if not self._ended:
            self._ended = True
            self._pane.finish(monitor.phase != "failed", monitor.phaseText)
            if monitor.phase == "failed" and monitor.startedHere and monitor.error is not None:
                showError(monitor.error, monitor.log)

    def sceneClosed(self) -> None:
        """Charts and volumes are gone."""
        self._chart = ""
        self.state.previewing = False

    def _showHistory(self) -> None:
        """What the run said before it was selected."""
        file = self._monitor.folder / "events.jsonl"
        for event in EventTail(file).read() if file.is_file() else ():
            if event.get("type") in ("status", "warning", "error"):
                self._pane.handle(event)

    def _updateVerdict(self) -> None:
        verdict = self.logic.verdict(self._monitor)
        color = LIGHTS[verdict.colour]
        self.ui.verdictLightLabel.text = f'<span style="color:{color}; font-size:{LIGHT_SIZE}px">●</span>'
        advice = plain(_("What to do: {advice}").format(advice=verdict.advice)) if verdict.advice else ""
        self.ui.verdictLabel.text = lines(
            [f"<b>{colored(verdict.title, color)}</b>", plain(verdict.text), advice]
        )

    def _updatePreview(self) -> None:
        modalities, combo = self.logic.previewModalities(self._monitor), self.ui.previewModalityComboBox
        if [combo.itemText(i) for i in range(combo.count)] != modalities:
            wasBlocked = combo.blockSignals(True)
            combo.clear()
            for modality in modalities:
                combo.addItem(modality)
            combo.blockSignals(wasBlocked)
        node = self.state.parameterNode
        wanted = node.previewModality if node else ""
        if wanted in modalities and combo.currentText != wanted:
            wasBlocked = combo.blockSignals(True)
            combo.setCurrentIndex(modalities.index(wanted))
            combo.blockSignals(wasBlocked)
        combo.setVisible(bool(modalities))
        text = self.logic.previewText(self._monitor)
        self.ui.showPreviewButton.enabled = bool(text)
        if self._monitor.classifies:
            text = ""
        elif not text:
            text = _("The first picture comes with the first validation.") if self._monitor.running else ""
        elif self.state.previewing and self._monitor.command == "pretrain":
            text += _(". Red: original, yellow: what the network saw, green: what it restored.")
            if self._hiddenWhole:
                text += " " + _("This modality was hidden whole; it was restored from the other ones.")
        elif self.state.previewing:
            text += _(". Red: image, yellow: your labels, green: what the model finds.")
        self.ui.previewLabel.text = text
        self.ui.previewLabel.setVisible(bool(text))

    def _showChart(self, role: str) -> None:
        with shownErrors():
            charts = self.logic.showCharts(self._monitor)
            other = next(node for name, node in charts.items() if name != "loss")
            self.logic.showChartInLayout(charts["loss"] if role == "loss" else other)
            self._chart = role

    @onceAtATime
    def _showPreview(self) -> None:
        node = self.state.parameterNode
        with shownErrors(wait=True):
            nodes = self.logic.showPreview(self._monitor, self.ui.previewModalityComboBox.currentText)
            self.state.previewing = bool(nodes)
            self._hiddenWhole = "masked" in nodes and _isUniform(nodes["masked"])
            if node:
                node.previewModality = self.ui.previewModalityComboBox.currentText
        self._updatePreview()

    def _onShowLoss(self, checked: bool = False) -> None:
        self._showChart("loss")

    def _onShowRank(self, checked: bool = False) -> None:
        self._showChart("rank")

    def _onShowPreview(self, checked: bool = False) -> None:
        self._showPreview()

    def _onModality(self, index: int) -> None:
        node = self.state.parameterNode
        if node:
            node.previewModality = self.ui.previewModalityComboBox.currentText
        if self.state.previewing:
            self._showPreview()


def _isUniform(volume) -> bool:
    """Whether all voxels of a volume node have the same value."""
    voxels = slicer.util.arrayFromVolume(volume)
    return voxels.min() == voxels.max()
