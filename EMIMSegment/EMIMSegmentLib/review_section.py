"""What became of each case of a batch; a double-click, Enter or a button shows a case."""

from __future__ import annotations

import html

import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib.error_display import showError
from EMIMSegmentLib.batch_table import title
from EMIMSegmentLib.marks import BAD, CHECK, GOOD, marked, paragraph
from EMIMSegmentLib.tables import fillTable


class ReviewSection:
    """The table of a batch, filled while it runs.

    Args:
        onSegmentation: called with the segmentation node of a case that is shown.
    """

    def __init__(self, ui, logic, state, onSegmentation) -> None:
        self.ui, self.logic, self.state, self._onSegmentation = ui, logic, state, onSegmentation
        self._rows: list[dict] = []
        self._model = None
        self._message = self._reason = ""
        self._showing = False
        self._fillTimer = qt.QTimer(ui.batchTable)  # many cases may come at once
        self._fillTimer.setSingleShot(True)
        self._fillTimer.setInterval(0)
        self._fillTimer.connect("timeout()", self.fill)
        ui.batchTable.connect("cellActivated(int,int)", self._onActivated)  # a double-click
        for key in ("Return", "Enter"):  # on macOS these activate no cell; a shortcut comes before the table
            shortcut = qt.QShortcut(ui.batchTable)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.setContext(qt.Qt.WidgetShortcut)
            shortcut.connect("activated()", self.showChosen)
        ui.batchTable.connect("itemSelectionChanged()", lambda: self.update(self._reason))
        ui.batchShowButton.connect("clicked(bool)", self._onShow)

    def setRows(self, rows: list[dict], model) -> None:
        """Show the rows of a batch that was made with ``model``."""
        if rows != self._rows:
            self._rows, self._model = list(rows), model
            self._fillTimer.start()

    def forget(self) -> None:
        """Let go of what is in the scene: it is being closed. Cases of files can be loaded again."""
        self._message = ""
        self._rows = [row for row in self._rows if "nodes" not in row]
        self.fill()

    def update(self, reason: str) -> None:
        """Bring the button up to date; ``reason`` says in words why no case can be shown now."""
        ui, self._reason = self.ui, reason
        if not reason and self._chosen() is None:
            reason = _("Choose a case in the table.")
        for widget in (ui.batchTable, ui.batchShowButton, ui.batchShownLabel):
            widget.visible = bool(self._rows)
        ui.batchShowButton.enabled = not reason
        ui.batchShowButton.toolTip = reason or _("Show this case and its result in the views.")
        ui.batchShownLabel.text = self._message

    def showChosen(self) -> None:
        """Show the case that is chosen in the table; a problem is shown."""
        row, node = self._chosen(), self.state.parameterNode
        if row is None or node is None or self._showing or not self.ui.batchShowButton.enabled:
            return
        self._showing = True  # the wait cursor lets clicks through
        try:
            with slicer.util.WaitCursor():
                shown = self.logic.showCase(
                    row, self._model, opacity=node.segmentationOpacity, surface=node.showSurface
                )
        except Exception as error:
            showError(error)
            return
        finally:
            self._showing = False
        self._message = _describe(row, shown.kept)
        if shown.segmentation is not None:
            self._onSegmentation(shown.segmentation)
        self.state.changed()

    def _chosen(self) -> dict | None:
        """The row of the case that is chosen in the table."""
        table = self.ui.batchTable
        indexes = table.selectionModel().selectedRows()
        name = table.item(indexes[0].row(), 0).data(qt.Qt.UserRole) if indexes else None
        return next((row for row in self._rows if row["case"] == name), None)

    def fill(self) -> None:
        """Show the rows in the table now."""
        table, chosen = self.ui.batchTable, self._chosen()
        texts = [(title(row), _resultText(row)) for row in self._rows]
        fillTable(table, (_("Case"), _("Result")), texts, stretch=1)
        for r, row in enumerate(self._rows):
            table.item(r, 0).setData(qt.Qt.UserRole, row["case"])
            table.item(r, 0).setToolTip(row["case"])
            item = table.item(r, 1)
            item.setToolTip(
                "\n".join(t for t in (row["error"] or texts[r][1], row["where"], row["hint"]) if t)
            )
            item.setForeground(qt.QBrush(qt.QColor(BAD if row["error"] else GOOD)))
        if chosen is None:
            table.clearSelection()
        else:  # rows may have come above it
            table.selectRow(self._rows.index(chosen))
        self.state.changed()

    def _onActivated(self, row: int, column: int) -> None:
        self.showChosen()

    def _onShow(self, checked: bool = False) -> None:
        self.showChosen()


def _describe(row: dict, kept: tuple[str, ...]) -> str:
    name = row["case"] if title(row) == row["case"] else f"{title(row)} ({row['case']})"
    text = html.escape(_("{name} is shown.").format(name=name))
    if not kept:
        return text
    stay = _("Still in the scene, because changed or drawn on: {names}.").format(names=", ".join(kept))
    return paragraph(text, marked(stay, CHECK, "●"))


def _resultText(row: dict) -> str:
    if row["error"]:
        return row["error"]
    if "probabilities" in row:
        return f"{row['class']} {row['probabilities'][row['class']]:.1%}"
    return ", ".join(f"{name} {volume:.1f} mL" for name, volume in row["volumes_ml"].items())
