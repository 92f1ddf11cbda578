"""The table cases × modalities on the screen."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from .cohort_table import CaseRow, CohortTable
from .rich_text import AMBER, GREEN, GREY, RED, colored
from .table_setup import fitHeight, setUpTable

# Red, green, blue, alpha; transparent enough for a light and a dark window. The text of the cell says it too.
BACKGROUND = {
    "ok": (0, 158, 115, 60),
    "note": (240, 200, 0, 90),
    "missing": (128, 128, 128, 50),
    "problem": (213, 94, 0, 120),
}
CASE_COLUMN = 0


class CaseTable:
    """Fills a ``QTableWidget``: check box and id of each case, a cell for each modality and the label."""

    def __init__(self, widget) -> None:
        self._widget = widget
        self._table: CohortTable | None = None
        self._columns: list[str] = []

    @staticmethod
    def legend() -> str:
        """What the signs in the cells mean, as rich text."""
        parts = [
            colored("✓", GREEN) + " " + _("usable"),
            colored("✓ !", AMBER) + " " + _("usable, with a note"),
            colored("–", GREY) + " " + _("missing"),
            colored("✕", RED) + " " + _("problem"),
        ]
        return "&nbsp;&nbsp; ".join(parts)

    def show(self, table: CohortTable | None) -> None:
        """Show another cohort, or the same one again, with the marks of the cases used."""
        widget = self._widget
        wasBlocked = widget.blockSignals(True)
        if table is not self._table:
            self._table = table
            self._fill()
        for number, row in enumerate(table.rows if table else ()):
            if row.usable:
                widget.item(number, CASE_COLUMN).setCheckState(
                    qt.Qt.Checked if row.included else qt.Qt.Unchecked
                )
        widget.blockSignals(wasBlocked)

    def selectedRows(self) -> list[CaseRow]:
        """The selected cases, from top to bottom."""
        if self._table is None:
            return []
        numbers = sorted({index.row() for index in self._widget.selectionModel().selectedRows()})
        return [self._table.rows[n] for n in numbers if n < len(self._table.rows)]

    def rowAt(self, number: int) -> CaseRow | None:
        rows = self._table.rows if self._table else []
        return rows[number] if 0 <= number < len(rows) else None

    def explanationAt(self, number: int, column: int) -> str:
        """Why a cell looks as it does, in words; for the first column, all about the case."""
        row = self.rowAt(number)
        if row is None or not 0 <= column <= len(self._columns):
            return ""
        if column == CASE_COLUMN:
            return row.tooltip
        return self._cell(row, self._columns[column - 1]).explanation

    def takeChecks(self) -> bool:
        """Take over the check boxes into the cohort; whether anything has changed."""
        changed = False
        for number, row in enumerate(self._table.rows if self._table else ()):
            if row.usable:
                included = self._widget.item(number, CASE_COLUMN).checkState() == qt.Qt.Checked
                changed = changed or included != row.included
                row.included = included
        return changed

    def _fill(self) -> None:
        widget, table = self._widget, self._table
        widget.clear()
        self._columns = [*table.modalities, "label"] if table else []
        widget.setRowCount(len(table.rows) if table else 0)
        names = [_("Labels") if column == "label" else column for column in self._columns]
        setUpTable(widget, [_("Case"), *names], CASE_COLUMN)
        fitHeight(widget, len(table.rows) if table else 0, least=3, most=10)
        for number, row in enumerate(table.rows if table else ()):
            self._fillRow(number, row)

    def _fillRow(self, number: int, row: CaseRow) -> None:
        first = qt.QTableWidgetItem(row.id if row.usable else f"✕ {row.id}")
        first.setToolTip(row.tooltip)
        if not row.usable:
            first.setBackground(_brush("problem"))
        self._widget.setItem(number, CASE_COLUMN, first)
        for column, name in enumerate(self._columns, 1):
            cell = self._cell(row, name)
            item = qt.QTableWidgetItem(f"✕ {cell.text}" if cell.state == "problem" else cell.text)
            item.setToolTip(cell.explanation)
            item.setBackground(_brush(cell.state))
            item.setTextAlignment(qt.Qt.AlignCenter)
            self._widget.setItem(number, column, item)

    @staticmethod
    def _cell(row: CaseRow, column: str):
        return row.label if column == "label" else row.cells[column]


def _brush(state: str):
    return qt.QBrush(qt.QColor(*BACKGROUND[state]))
