"""The table of structures that fine-tuning shall learn."""

from __future__ import annotations

import re

import ctk
import qt
from slicer.i18n import tr as _

from EMIMLib import terminology

from .labels_section import LabelsSection
from .panel_state import PanelState
from .shown_errors import shownErrors
from .structures import nextColor
from .table_setup import fitHeight, setUpTable

NAME, VALUES, COLOR, TERM = range(4)
TERM_WIDTH = 130  # px


class StructuresSection:
    """Keeps the parameter node's structures at what the table says."""

    def __init__(self, ui, logic, state: PanelState, labels: LabelsSection) -> None:
        self.ui, self.logic, self.state, self.labels = ui, logic, state, labels
        self._shown = None  # the structures in the table
        self._terms = {name: text for name, (text, _color) in terminology.terms().items()}
        table = ui.structuresTable
        setUpTable(table, [_("Name"), _("Label values"), _("Colour"), _("Term")])
        table.horizontalHeader().setSectionResizeMode(TERM, qt.QHeaderView.Interactive)
        table.setColumnWidth(TERM, TERM_WIDTH)
        table.connect("cellChanged(int,int)", self._onCellChanged)
        ui.structuresFromCohortButton.connect("clicked(bool)", self._onFromCohort)
        ui.structuresFromSegmentationButton.connect("clicked(bool)", self._onFromSegmentation)
        ui.addStructureButton.connect("clicked(bool)", self._onAdd)
        ui.removeStructureButton.connect("clicked(bool)", self._onRemove)

    def update(self) -> None:
        node = self.state.parameterNode
        structures = self.logic.structures(node) if node else []
        if structures != self._shown:
            self._shown = structures
            self._fill(structures)
        table = self.state.table
        self.ui.structuresFromCohortButton.enabled = bool(
            table and (table.labelValues or self.labels.exported)
        )
        self.ui.structuresFromSegmentationButton.enabled = bool(node and node.labelSegmentation)
        self.ui.removeStructureButton.enabled = bool(structures)

    def _fill(self, structures: list[dict]) -> None:
        table = self.ui.structuresTable
        wasBlocked = table.blockSignals(True)
        table.setRowCount(0)
        table.setRowCount(len(structures))
        fitHeight(table, len(structures), least=3)
        for number, structure in enumerate(structures):
            table.setItem(number, NAME, qt.QTableWidgetItem(structure["name"]))
            values = ", ".join(str(v) for v in structure["values"])
            table.setItem(number, VALUES, qt.QTableWidgetItem(values))
            table.setCellWidget(number, COLOR, self._colorButton(structure["color"]))
            table.setCellWidget(number, TERM, self._termBox(structure.get("terminology")))
        table.blockSignals(wasBlocked)

    def _colorButton(self, color):
        button = ctk.ctkColorPickerButton()
        button.displayColorName = False
        button.setColor(qt.QColor(*color))
        button.toolTip = _("Colour of the structure; click to change it.")
        button.connect("colorChanged(QColor)", self._onEdited)
        return button

    def _termBox(self, text: str | None):
        box = qt.QComboBox()
        box.toolTip = _(
            "Standard term of the structure, as DICOM and Slicer use it; it goes into the results."
        )
        box.addItem(_("(none)"), "")
        for name, term in self._terms.items():
            box.addItem(name, term)
        if text and box.findData(text) < 0:
            box.addItem(_meaning(text), text)
        box.setCurrentIndex(max(0, box.findData(text or "")))
        box.connect("currentIndexChanged(int)", self._onEdited)
        return box

    def _read(self) -> list[dict]:
        table, structures = self.ui.structuresTable, []
        while table.item(len(structures), NAME) is not None:
            number = len(structures)
            color = table.cellWidget(number, COLOR).color
            box = table.cellWidget(number, TERM)
            values = table.item(number, VALUES)
            structures.append(
                {
                    "name": table.item(number, NAME).text().strip(),
                    "values": [int(n) for n in re.findall(r"\d+", values.text() if values else "")],
                    "color": [color.red(), color.green(), color.blue()],
                    "terminology": box.itemData(box.currentIndex) or None,
                }
            )
        return structures

    def _keep(self, structures: list[dict]) -> None:
        if self.state.parameterNode:
            self.logic.setStructures(self.state.parameterNode, structures)
        self.state.changed()

    def _onEdited(self, value=None) -> None:
        self._shown = self._read()
        self._keep(self._shown)

    def _onCellChanged(self, row: int, column: int) -> None:
        self._onEdited()

    def _onFromCohort(self, checked: bool = False) -> None:
        with shownErrors():
            self._keep(self.logic.knownStructures(self.state.table))

    def _onFromSegmentation(self, checked: bool = False) -> None:
        node = self.state.parameterNode
        with shownErrors():
            known = self.logic.knownStructures(self.state.table) if self.state.table else ()
            self._keep(self.logic.structuresFromSegmentation(node.labelSegmentation, self._read(), known))

    def _onAdd(self, checked: bool = False) -> None:
        structures = self._read()
        value = max([0, *(v for s in structures for v in s["values"])]) + 1
        new = {"name": "", "values": [value], "color": nextColor(structures), "terminology": None}
        self._keep([*structures, new])
        self.ui.structuresTable.setCurrentCell(len(structures), NAME)

    def _onRemove(self, checked: bool = False) -> None:
        number, structures = self.ui.structuresTable.currentRow(), self._read()
        if 0 <= number < len(structures):
            del structures[number]
            self._keep(structures)


def _meaning(term: str) -> str:
    """The name of a structure in Slicer's terminology text."""
    parts = term.split("~")
    return parts[2].split("^")[-1] if len(parts) > 2 else term
