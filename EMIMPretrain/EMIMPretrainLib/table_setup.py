"""How the tables of the panel look."""

from __future__ import annotations

from collections.abc import Sequence

import qt

ROW_HEIGHT = 24  # px, of the header too
FRAME = 2  # px, above and below the rows together


def setUpTable(table, headers: Sequence[str], stretched: int = 0) -> None:
    """Give a ``QTableWidget`` its columns; ``stretched`` takes the room that the others leave."""
    table.setColumnCount(len(headers))
    table.setHorizontalHeaderLabels(list(headers))
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
    header = table.horizontalHeader()
    header.setFixedHeight(ROW_HEIGHT)
    for column in range(len(headers)):
        fits = qt.QHeaderView.Stretch if column == stretched else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(column, fits)


def fitHeight(table, rows: int, least: int = 2, most: int = 8) -> None:
    """Make the table as high as its rows need, within limits; more rows are scrolled to."""
    shown = min(max(rows, least), most)
    table.setFixedHeight((shown + 1) * ROW_HEIGHT + FRAME)
