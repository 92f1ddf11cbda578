"""What fine-tuning is to learn: structures, or classes from a file."""

from __future__ import annotations

import os

import ctk
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.path_edit import followPath

from .panel_state import PanelState
from .rich_text import AMBER, bold, colored, lines, plain

FEW = 5  # cases of a class


class TaskSection:
    """Task, file of classes and mode of training; shows of Fine-tune what belongs to the task."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._stepsToolTip = ui.finetuneStepsSpinBox.toolTip
        # Of the parameter node, as last shown; None at first, when the widget may show what it remembers.
        self._file: str | None = None
        self._readFor = None  # what the latest reading was of
        self._classes: dict[str, str] = {}
        self._problem: EmimError | None = None
        for text, value in (
            (_("Segmentation: find structures"), "segmentation"),
            (_("Classification: tell cases apart"), "classification"),
        ):
            ui.taskComboBox.addItem(text, value)
        for text, value in (
            (_("the whole network"), "full"),
            (_("a linear probe, the network stays as it is"), "linear"),
            (_("nothing: vote of the nearest cases (kNN)"), "knn"),
        ):
            ui.modeComboBox.addItem(text, value)
        ui.classesPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.taskComboBox.connect("currentIndexChanged(int)", self._onTask)
        ui.modeComboBox.connect("currentIndexChanged(int)", self._onMode)
        followPath(ui.classesPathLineEdit, self._onFile)

    @property
    def classifies(self) -> bool:
        node = self.state.parameterNode
        return bool(node and node.task == "classification")

    @property
    def classes(self) -> dict[str, str]:
        """Case id to class as the file says; empty where it cannot be used."""
        return self._classes

    def reason(self) -> str:
        """Why the classes cannot be learned, in words; empty when they can."""
        if not self.state.parameterNode.classesFile:
            return _("Choose the file that says which class each case has.")
        return self._problem.what if self._problem else ""

    def update(self) -> None:
        node, ui, classifies = self.state.parameterNode, self.ui, self.classifies
        for widget in (
            ui.labelsLabel,
            ui.drawnLabelsGroupBox,
            ui.structuresTitle,
            ui.structuresTable,
            ui.structuresFromCohortButton,
            ui.structuresFromSegmentationButton,
            ui.addStructureButton,
            ui.removeStructureButton,
        ):
            widget.setVisible(not classifies)
        for widget in (ui.classesFrame, ui.modeComboBox, ui.modeComboBoxTitle):
            widget.setVisible(classifies)
        if node is None:
            return
        _choose(ui.taskComboBox, node.task)
        _choose(ui.modeComboBox, node.classificationMode)
        trains = not (classifies and node.classificationMode == "knn")
        ui.finetuneStepsSpinBox.enabled = trains
        ui.finetuneStepsSpinBox.toolTip = self._stepsToolTip if trains else _("kNN trains nothing.")
        if node.classesFile != self._file:  # else it is what the user is typing
            self._file = node.classesFile
            wasBlocked = ui.classesPathLineEdit.blockSignals(True)
            ui.classesPathLineEdit.currentPath = node.classesFile
            ui.classesPathLineEdit.blockSignals(wasBlocked)
        if classifies:
            self._read()
            ui.classesLabel.text = self._text()

    def _read(self) -> None:
        """Read the file when it, or the choice of cases, is another one than before."""
        table, file = self.state.table, self.state.parameterNode.classesFile
        wanted = (table, tuple(r.id for r in table.usedRows) if table else (), file, _changed(file))
        if wanted == self._readFor:
            return
        self._readFor, self._classes, self._problem = wanted, {}, None
        if table is None or not file:
            return
        try:
            self._classes = self.logic.readClasses(file, table)
        except EmimError as error:
            self._problem = error

    def _text(self) -> str:
        """What was read."""
        if self.state.table is None or not self.state.parameterNode.classesFile:
            return plain(_("CSV with the columns case (or subject) and class, or JSON."))
        if self._problem:
            hint = plain(self._problem.hint or "")
            return lines([colored("✕ " + self._problem.what, AMBER), hint])
        counts = self.logic.classCounts(self._classes)
        each = ", ".join(f"{bold(name)} {count}" for name, count in counts.items())
        without = len(self.state.table.usedRows) - len(self._classes)
        rest = _("Cases without a class, which are not used: {n}.").format(n=without) if without else ""
        few = [name for name, count in counts.items() if count < FEW]
        warning = colored(_("Very few cases: {names}.").format(names=", ".join(few)), AMBER) if few else ""
        return lines([_("Cases of each class: {each}.").format(each=each), plain(rest), warning])

    def _onTask(self, index: int) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.task = self.ui.taskComboBox.itemData(index)

    def _onMode(self, index: int) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.classificationMode = self.ui.modeComboBox.itemData(index)

    def _onFile(self, path: str) -> None:
        path = "" if path == "." else path
        if self.state.parameterNode and self.state.parameterNode.classesFile != path:
            self._file = path
            self.state.parameterNode.classesFile = path


def _choose(combo, value: str) -> None:
    wasBlocked = combo.blockSignals(True)
    combo.setCurrentIndex(combo.findData(value))
    combo.blockSignals(wasBlocked)


def _changed(file: str) -> float:
    """When the file was last changed, so that it is read again; 0 where there is none."""
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0
