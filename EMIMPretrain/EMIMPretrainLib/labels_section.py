"""Labels drawn in Segment Editor, exported for training."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .case_loader import caseOf
from .label_export import otherCase
from .panel_state import PanelState
from .shown_case import showCase
from .shown_errors import onceAtATime, shownErrors
from .table_setup import fitHeight, setUpTable


class LabelsSection:
    """Matches segmentation nodes with cases of the cohort, and exports them as label maps."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.exported: dict = {}  # case id to label map
        self._shownTable = None
        self._segmentation = ""  # id of the node that a case was last guessed for
        setUpTable(ui.exportedLabelsTable, [_("Case"), _("Exported label map")], stretched=1)
        ui.exportedLabelsTable.setVisible(False)
        ui.labelCaseComboBox.connect("currentIndexChanged(int)", self._onCase)
        ui.loadLabelCaseButton.connect("clicked(bool)", self._onLoad)
        ui.exportLabelsButton.connect("clicked(bool)", self._onExport)
        ui.removeLabelsButton.connect("clicked(bool)", self._onRemove)
        self._exportToolTip = ui.exportLabelsButton.toolTip

    def labelledIds(self) -> set[str]:
        """Cases that are used and have labels, of the cohort or exported."""
        table = self.state.table
        if table is None:
            return set()
        used = {row.id for row in table.usedRows}
        return {row.id for row in table.labelledRows} | (used & set(self.exported))

    def update(self) -> None:
        node, table = self.state.parameterNode, self.state.table
        if table is not self._shownTable:
            self._shownTable = table
            self._fillCases()
            self._readExported()
        if node is None:
            return
        self._guessCase()
        combo = self.ui.labelCaseComboBox
        index = combo.findData(node.labelCase) if node.labelCase else -1
        if combo.currentIndex != index:
            wasBlocked = combo.blockSignals(True)
            combo.setCurrentIndex(index)
            combo.blockSignals(wasBlocked)
        row = self._row()
        self.ui.loadLabelCaseButton.enabled = row is not None
        self.ui.removeLabelsButton.enabled = row is not None and row.id in self.exported
        reason = self._reason(row)
        self.ui.exportLabelsButton.enabled = not reason
        self.ui.exportLabelsButton.toolTip = reason or self._exportToolTip

    def _reason(self, row) -> str:
        """Why nothing can be exported, in words; empty when it can."""
        node = self.state.parameterNode
        if self.state.table is None:
            return _("Scan a cohort first.")
        if row is None:
            return _("Choose the case that the segmentation was drawn on.")
        if node.labelSegmentation is None:
            return _("Choose a segmentation.")
        if other := otherCase(node.labelSegmentation, row):
            text = _("The segmentation was drawn on case {other}, not on {id}.")
            return text.format(other=other, id=row.id)
        problem = self.logic.structuresProblem(self.logic.structures(node))
        return _("Structures: {problem}").format(problem=problem) if problem else ""

    def _row(self):
        node, table = self.state.parameterNode, self.state.table
        if node is None or table is None:
            return None
        return next((row for row in table.rows if row.id == node.labelCase), None)

    def _guessCase(self) -> None:
        """A segmentation drawn on a case that was loaded here belongs to that case."""
        node = self.state.parameterNode
        segmentation = node.labelSegmentation
        identifier = segmentation.GetID() if segmentation else ""
        if identifier == self._segmentation:
            return
        self._segmentation = identifier
        if segmentation is None:
            return
        case = caseOf(segmentation)
        if case and self.ui.labelCaseComboBox.findData(case) >= 0:
            node.labelCase = case

    def _fillCases(self) -> None:
        combo = self.ui.labelCaseComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for row in self.state.table.rows if self.state.table else ():
            if row.usable:
                combo.addItem(row.id, row.id)
        combo.setCurrentIndex(-1)
        combo.blockSignals(wasBlocked)

    def _readExported(self) -> None:
        self.exported = self.logic.exportedLabels(self.state.table) if self.state.table else {}
        table = self.ui.exportedLabelsTable
        table.setRowCount(len(self.exported))
        for number, (caseId, file) in enumerate(self.exported.items()):
            table.setItem(number, 0, qt.QTableWidgetItem(caseId))
            item = qt.QTableWidgetItem(file.name)
            item.setToolTip(str(file))
            table.setItem(number, 1, item)
        fitHeight(table, len(self.exported), most=5)
        table.setVisible(bool(self.exported))

    def _onCase(self, index: int) -> None:
        if self.state.parameterNode and index >= 0:
            self.state.parameterNode.labelCase = self.ui.labelCaseComboBox.itemData(index)

    def _onLoad(self, checked: bool = False) -> None:
        showCase(self._row(), self.logic, self.state)
        self.state.changed()

    @onceAtATime
    def _onExport(self, checked: bool = False) -> None:
        node, row, table = self.state.parameterNode, self._row(), self.state.table
        replaced = self.logic.replacedLabels(node.labelSegmentation, row, table)
        question = _(
            "Case {id} has an exported label map, and this segmentation was not loaded from it.\n\n"
            "Replace the label map by the segmentation?\n\n{path}"
        )
        if replaced and not slicer.util.confirmOkCancelDisplay(question.format(id=row.id, path=replaced)):
            return
        with shownErrors(wait=True):
            structures = self.logic.structures(node)
            self.logic.exportLabels(node.labelSegmentation, node.labelReference, row, structures, table)
        self._readExported()
        self.state.changed()

    def _onRemove(self, checked: bool = False) -> None:
        row = self._row()
        question = _("Delete the exported label map of case {id}?\n\n{path}")
        if not slicer.util.confirmOkCancelDisplay(question.format(id=row.id, path=self.exported[row.id])):
            return
        with shownErrors():
            self.logic.removeLabels(row, self.state.table)
        self._readExported()
        self.state.changed()
