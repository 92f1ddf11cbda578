"""All runs of this computer, and what can be done with the selected one."""

from __future__ import annotations

import time
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib import dependencies

from .panel_state import PanelState
from .rich_text import LIGHTS, colored
from .shown_errors import onceAtATime, shownErrors
from .table_setup import fitHeight, setUpTable
from .verdict_words import COLOURS

INTERVAL = 5000  # ms between two looks for runs that others have started
KINDS = {"pretrain": _("pre-train"), "finetune": _("fine-tune"), "classification": _("classify")}
STATES = {
    "running": _("running"),
    "paused": _("paused"),
    "finished": _("finished"),
    "failed": _("failed"),
    "waiting": _("waiting"),
    "starting": _("starting"),
    "pausing": _("pausing"),
    "cancelling": _("cancelling"),
    "cancelled": _("cancelled"),
}
LIGHT_MEANING = _("green: learns; amber: undecided or in part; red: does not learn; grey: too early to tell")
LIGHT, NAME, KIND, STATE, UPDATED = range(5)


class RunsSection:
    """Lists runs; the selected row is ``state.monitor``."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._folders: list[Path] = []
        self._listed = []  # RunStates, as last read
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL)
        self._timer.connect("timeout()", self.refresh)
        table = ui.runsTable
        headers = ["", _("Run"), _("Kind"), _("State"), _("Updated")]
        setUpTable(table, headers, stretched=NAME)
        table.connect("itemSelectionChanged()", self._onSelected)
        ui.refreshRunsButton.connect("clicked(bool)", self._onRefresh)
        ui.addRunButton.connect("clicked(bool)", self._onAdd)
        ui.removeRunButton.connect("clicked(bool)", self._onRemove)
        ui.pauseButton.connect("clicked(bool)", self._onPause)
        ui.resumeButton.connect("clicked(bool)", self._onResume)
        ui.cancelButton.connect("clicked(bool)", self._onCancel)
        ui.openReportButton.connect("clicked(bool)", self._onOpenReport)
        ui.openRunFolderButton.connect("clicked(bool)", self._onOpenFolder)
        self._toolTips = {b: b.toolTip for b in (ui.pauseButton, ui.resumeButton, ui.cancelButton)}

    def watch(self, visible: bool) -> None:
        """Look for runs now and then while the module is shown."""
        if visible:
            self.refresh()
            self._timer.start()
        else:
            self._timer.stop()

    def close(self) -> None:
        self._timer.stop()

    def attach(self, folder: str | Path) -> None:
        """Select a run by its folder; a problem is shown."""
        with shownErrors():
            self.state.select(self.logic.attach(folder))

    def attachRemembered(self) -> None:
        """Select the run the scene remembers, or else one that is being trained now."""
        node = self.state.parameterNode
        if node is None or self.state.monitor is not None:
            return
        known = [str(run.folder) for run in self._listed]
        running = [str(run.folder) for run in self._listed if run.state == "running"]
        wanted = [node.currentRun] if node.currentRun in known else running
        if wanted:
            self.attach(wanted[0])

    def refresh(self) -> None:
        """Read the list of runs again."""
        self._listed = self.logic.runs()
        self.state.changed()

    def update(self) -> None:
        self._fill()
        monitor, ui = self.state.monitor, self.ui
        own = monitor.folder if monitor else None
        training = [run.name for run in self._listed if run.state == "running" and run.folder != own]
        if monitor and monitor.running:
            training.insert(0, monitor.name)
        self.state.training = training[0] if training else ""
        self._set(ui.pauseButton, bool(monitor and monitor.canPause), _("The selected run is not training."))
        self._set(
            ui.cancelButton, bool(monitor and monitor.canCancel), _("The selected run is not training.")
        )
        self._set(
            ui.resumeButton,
            bool(monitor and monitor.canResume),
            _("Only a run that was paused, cancelled or has failed can be resumed."),
        )
        ui.openReportButton.enabled = bool(monitor and self._report().is_file())
        ui.openRunFolderButton.enabled = bool(monitor and monitor.folder.is_dir())
        ui.removeRunButton.enabled = bool(monitor and self.logic.isAddedRun(monitor.folder))

    def _set(self, button, possible: bool, why: str) -> None:
        button.enabled = possible
        button.toolTip = self._toolTips[button] if possible else why

    def _fill(self) -> None:
        monitor, table = self.state.monitor, self.ui.runsTable
        rows = [(Path(run.folder), self._cells(run)) for run in self._listed]
        if monitor is not None:
            own = (monitor.folder, self._monitorCells(monitor))
            known = [folder for folder, _cells in rows]
            if monitor.folder in known:
                rows[known.index(monitor.folder)] = own
            else:
                rows.insert(0, own)
        self._folders = [folder for folder, _cells in rows]
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        fitHeight(table, len(rows), least=3, most=6)
        for number, (folder, cells) in enumerate(rows):
            for column, text in enumerate(cells):
                self._setText(number, column, text, str(folder))
        if monitor is not None:
            table.selectRow(self._folders.index(monitor.folder))
        else:
            table.clearSelection()
        table.blockSignals(wasBlocked)

    def _setText(self, row: int, column: int, text: str, folder: str) -> None:
        table = self.ui.runsTable
        if column == LIGHT:  # a label, because the colour of a selected item's text is not its own
            label = table.cellWidget(row, column)
            if label is None:
                label = qt.QLabel()
                label.setAlignment(qt.Qt.AlignCenter)
                label.toolTip = LIGHT_MEANING
                table.setCellWidget(row, column, label)
            label.text = colored("●", LIGHTS[text]) if text else ""
            return
        item = table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            table.setItem(row, column, item)
        item.setText(text)
        item.setToolTip(folder)

    def _cells(self, run, state: str = "", light: str | None = None) -> list[str]:
        state = state or run.state
        words = STATES.get(state, state)
        if run.steps and state != "finished":
            words += f" {run.step}/{run.steps}"
        elif run.step:
            words += f" {run.step}"
        light = _light(run) if light is None else light
        kind = KINDS["classification" if run.task == "classification" else run.command]
        return [light, run.name, kind, words, _when(run.updated)]

    def _monitorCells(self, monitor) -> list[str]:
        if monitor.state is None:
            kind = KINDS.get("classification" if monitor.classifies else monitor.command, "")
            state = STATES.get(monitor.phase, monitor.phase)
            return ["grey", monitor.name, kind, state, _("now")]
        return self._cells(monitor.state, monitor.phase, self.logic.verdict(monitor).colour)

    def _report(self) -> Path:
        return self.state.monitor.folder / "report" / "report.html"

    def _onSelected(self) -> None:
        numbers = [index.row() for index in self.ui.runsTable.selectionModel().selectedRows()]
        if not numbers or numbers[0] >= len(self._folders):
            return
        folder = self._folders[numbers[0]]
        if self.state.monitor is None or self.state.monitor.folder != folder:
            self.attach(folder)

    def _onRefresh(self, checked: bool = False) -> None:
        self.refresh()

    def _onAdd(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Add a run"))
        if folder:
            with shownErrors():
                self.logic.addRun(folder)
            self.refresh()

    def _onRemove(self, checked: bool = False) -> None:
        with shownErrors():
            self.logic.forgetRun(self.state.monitor.folder)
            self.state.select(None)
        self.refresh()

    def _onPause(self, checked: bool = False) -> None:
        with shownErrors():
            self.logic.pause(self.state.monitor)
        self.state.changed()

    @onceAtATime
    def _onResume(self, checked: bool = False) -> None:
        with shownErrors():
            if not dependencies.ensure(self.ui.resumeButton):
                return
            with slicer.util.WaitCursor():
                self.state.select(self.logic.resume(self.state.monitor.folder))

    def _onCancel(self, checked: bool = False) -> None:
        with shownErrors():
            self.logic.cancel(self.state.monitor)
        self.state.changed()

    def _onOpenReport(self, checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report())))

    def _onOpenFolder(self, checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.state.monitor.folder)))


def _light(run) -> str:
    """The traffic light of a run that is not watched; "" where its files hold no verdict."""
    return COLOURS.get(run.verdict["state"], "grey") if run.verdict else ""


def _when(seconds: float | None) -> str:
    """A time, as short as a table wants it: the hour today, else the day."""
    if not seconds:
        return ""
    moment = time.localtime(seconds)
    today = time.strftime("%Y-%m-%d", moment) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M" if today else "%Y-%m-%d", moment)
