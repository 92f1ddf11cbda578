"""Stand-in for Slicer's table view: draws a vtkMRMLTableNode in a QTableWidget."""

from PySide6 import QtWidgets as W

from slicerhost.widget_pixels import pixels_of


class TableView:
    """Draws the table that its table view node names."""

    def __init__(self, node):
        self.node = node
        self._size = (500, 300)

    def resize(self, width, height):
        self._size = (width, height)

    def table(self):
        """The table node shown, or None."""
        return self.node.GetTableNode()

    def pixels(self):
        """The table as an array (row from the top, column, RGB), uint8."""
        widget = W.QTableWidget()
        if self.table():
            _fill(widget, self.table())
        widget.resize(*self._size)
        return pixels_of(widget)


def _fill(widget, node):
    rows, columns = node.GetNumberOfRows(), node.GetNumberOfColumns()
    widget.setRowCount(rows)
    widget.setColumnCount(columns)
    widget.setHorizontalHeaderLabels([node.GetColumnName(column) for column in range(columns)])
    for row in range(rows):
        for column in range(columns):
            widget.setItem(row, column, W.QTableWidgetItem(node.GetCellText(row, column)))
    widget.resizeColumnsToContents()
