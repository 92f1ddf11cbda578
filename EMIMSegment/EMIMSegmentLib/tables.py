"""Fill the small tables of the panel."""

from __future__ import annotations

from collections.abc import Sequence

import qt


def fillTable(table, headers: Sequence[str], rows: Sequence[Sequence[str]], stretch: int = 0) -> None:
    """Show texts; column ``stretch`` takes the room that is left, numbers go to the right."""
    table.setColumnCount(len(headers))
    table.setHorizontalHeaderLabels(list(headers))
    table.setRowCount(len(rows))
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            if c != stretch and text[:1].isdigit():
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            table.setItem(r, c, item)
    table.verticalHeader().visible = False
    header = table.horizontalHeader()
    for c in range(len(headers)):
        mode = qt.QHeaderView.Stretch if c == stretch else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(c, mode)
    _fitHeight(table)


def _fitHeight(table, most: int = 8) -> None:
    """Make the table as high as its rows, up to ``most`` of them."""
    line = table.fontMetrics().height()
    table.verticalHeader().setDefaultSectionSize(line + 6)
    lines = 1 + max(table.horizontalHeaderItem(c).text().count("\n") for c in range(table.columnCount))
    table.setFixedHeight(min(table.rowCount, most) * (line + 6) + lines * line + 14)


def colorItem(item, color: Sequence[float]) -> None:
    """Put a square in ``color`` (red, green, blue from 0 to 1) before the text of a table item."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor.fromRgbF(*color))
    item.setIcon(qt.QIcon(pixmap))


def tableText(table) -> str:
    """The table as tab-separated text, headers first, for a spreadsheet."""
    columns = range(table.columnCount)
    lines = [[table.horizontalHeaderItem(c).text() for c in columns]]
    lines += [[table.item(r, c).text() for c in columns] for r in range(table.rowCount)]
    return "\n".join("\t".join(text.replace("\n", " ") for text in line) for line in lines)
