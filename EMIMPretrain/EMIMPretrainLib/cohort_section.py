"""Choose a cohort, scan it, and choose its cases."""

from __future__ import annotations

import ctk
from slicer.i18n import tr as _

from EMIMLib.path_edit import followPath

from .case_table import CaseTable
from .panel_state import PanelState
from .rich_text import RED, bold, colored, lines, plain
from .short_task import ShortTask
from .shown_case import showCase
from .shown_errors import shownErrors
from .task_progress import TaskProgress

SHOWN = 3  # cases that are named where many are left out


class CohortSection:
    """Keeps ``state.table`` at what a scan of the parameter node's folder found."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._cases = CaseTable(ui.cohortTable)
        # Of the parameter node, as last shown; None at first, when the widget may show what it remembers.
        self._folder: str | None = None
        self._shown = None  # the table and its choice of cases, as last drawn
        self._proposed = None  # structures told by the last cohort, until the user changes them
        progress = TaskProgress(ui.cohortProgressBar, ui.cohortStatusLabel)
        self.scan = ShortTask(
            state, ui.scanButton, progress, _("Reading the cohort…"), self._beginScan, self._onScanned
        )
        self.practice = ShortTask(
            state,
            ui.practiceButton,
            progress,
            _("Making synthetic heads…"),
            self._beginPractice,
            self._onPracticeMade,
        )
        ui.cohortLegendLabel.text = CaseTable.legend()
        ui.cohortPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        followPath(ui.cohortPathLineEdit, self._onPath)
        ui.cohortTable.connect("cellChanged(int,int)", self._onCellChanged)
        ui.cohortTable.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)
        ui.cohortTable.connect("currentCellChanged(int,int,int,int)", self._onCurrentCell)
        ui.cohortTable.connect("itemSelectionChanged()", self._updateButtons)
        ui.includeCasesButton.connect("clicked(bool)", self._onInclude)
        ui.excludeCasesButton.connect("clicked(bool)", self._onExclude)
        ui.showCaseButton.connect("clicked(bool)", self._onShowCase)
        self._explanation = ""

    def update(self) -> None:
        node, table = self.state.parameterNode, self.state.table
        folder = node.cohortFolder if node else ""
        if folder != self._folder:  # else it is what the user is typing
            self._folder = folder
            wasBlocked = self.ui.cohortPathLineEdit.blockSignals(True)
            self.ui.cohortPathLineEdit.currentPath = folder
            self.ui.cohortPathLineEdit.blockSignals(wasBlocked)
        if table is not None and table.source != folder:
            self.state.table = table = None
        shown = (table, tuple(table.excludedIds)) if table else None
        if shown != self._shown:
            self._explanation = self._explanation if table and self._shown else ""
            self._shown = shown
            self._cases.show(table)
        found = table is not None
        for widget in (self.ui.cohortTable, self.ui.cohortLegendLabel, self.ui.caseDetailsLabel):
            widget.setVisible(found)
        for widget in (self.ui.includeCasesButton, self.ui.excludeCasesButton, self.ui.showCaseButton):
            widget.setVisible(found)
        self.ui.cohortSummaryLabel.text = self._summary()
        self.ui.caseDetailsLabel.text = self._explanation or self._leftOut()
        self.scan.update("" if folder else _("Choose a folder first."))
        self.practice.update()
        self._updateButtons()

    def _summary(self) -> str:
        table = self.state.table
        if table is None:
            if self.state.parameterNode and self.state.parameterNode.cohortFolder:
                return _("Press <i>Scan</i> to see what the folder holds.")
            return _(
                "<b>Choose the folder of your MRI</b>, with or without labels.<br>"
                "DICOM? Load it, and <i>Add loaded studies</i> makes the folder.<br>"
                "No data at hand? <i>Make a practice cohort</i> makes synthetic heads on this computer."
            )
        subjects = len({row.subject for row in table.rows})
        counted = _("Cases: {cases}; subjects: {subjects}; modalities: {modalities} ({names}).").format(
            cases=len(table.rows),
            subjects=subjects,
            modalities=len(table.modalities),
            names=", ".join(table.modalities),
        )
        return lines([bold(counted), plain(table.summary)])

    def _leftOut(self) -> str:
        rows = [row for row in self.state.table.rows if not row.usable] if self.state.table else []
        shown = [f"{row.id}: {'; '.join(row.problems)}" for row in rows[:SHOWN]]
        if len(rows) > SHOWN:
            shown.append(_("and {n} more").format(n=len(rows) - SHOWN))
        return lines([colored(_("Left out:"), RED), *map(plain, shown)]) if rows else ""

    def _updateButtons(self) -> None:
        rows = self._cases.selectedRows()
        usable = [row for row in rows if row.usable]
        self.ui.includeCasesButton.enabled = any(not row.included for row in usable)
        self.ui.excludeCasesButton.enabled = any(row.included for row in usable)
        self.ui.showCaseButton.enabled = len(rows) == 1

    def _beginScan(self, onEvent, onFinished):
        node = self.state.parameterNode
        return self.logic.scan(
            node.cohortFolder,
            patterns=self.logic.parsePatterns(node.patterns),
            labelPattern=node.labelPattern,
            onEvent=onEvent,
            onFinished=onFinished,
        )

    def _beginPractice(self, onEvent, onFinished):
        return self.logic.makePracticeCohort(onEvent=onEvent, onFinished=onFinished)

    def _onScanned(self, run) -> None:
        node = self.state.parameterNode
        if node is None or run.table.source != node.cohortFolder:
            return  # the scene was closed, or another folder chosen, meanwhile
        self._explanation = ""
        self.logic.applyExcluded(node, run.table)
        self.state.table = run.table
        present = self.logic.structures(node)
        if present and present != self._proposed:
            return
        with shownErrors():
            if known := self.logic.knownStructures(run.table):
                self._proposed = known
                self.logic.setStructures(node, known)

    def _onPracticeMade(self, run) -> None:
        if self.state.parameterNode is None:
            return
        self.state.table = None
        self.state.parameterNode.cohortFolder = str(run.folder)
        self.scan.start()

    def _onPath(self, path: str) -> None:
        node = self.state.parameterNode
        if node and node.cohortFolder != path:
            self._folder = path
            node.cohortFolder = path

    def _onCellChanged(self, row: int, column: int) -> None:
        if self._cases.takeChecks():
            self._keepChoice()

    def _onInclude(self, checked: bool = False) -> None:
        self._include(True)

    def _onExclude(self, checked: bool = False) -> None:
        self._include(False)

    def _include(self, included: bool) -> None:
        for row in self._cases.selectedRows():
            if row.usable:
                row.included = included
        self._keepChoice()

    def _keepChoice(self) -> None:
        if self.state.parameterNode:
            self.logic.rememberExcluded(self.state.parameterNode, self.state.table)
        self.state.changed()

    def _onCurrentCell(self, row: int, column: int) -> None:
        self._explanation = plain(self._cases.explanationAt(row, column))
        self.ui.caseDetailsLabel.text = self._explanation or self._leftOut()

    def _onDoubleClicked(self, row: int, column: int) -> None:
        self._load(self._cases.rowAt(row))

    def _onShowCase(self, checked: bool = False) -> None:
        rows = self._cases.selectedRows()
        self._load(rows[0] if rows else None)

    def _load(self, row) -> None:
        if row is not None:
            showCase(row, self.logic, self.state)
            self.state.changed()
