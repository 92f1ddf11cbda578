"""Say how the files of each modality are named, and see at once what that means."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from EMIMLib import EmimError

from .panel_state import PanelState
from .rich_text import AMBER, RED, colored, lines, plain
from .table_setup import fitHeight, setUpTable

NAMES = 200  # file names in the preview
WORDS = {"label": _("labels"), "mask": _("brain mask, not used"), None: _("not used")}
DELAY = 300  # ms after the last key before the preview is made again


class PatternsSection:
    """Keeps the parameter node's ``patterns`` at what the table says, one ``MODALITY=PATTERN`` a line.

    Args:
        scan: the task of the cohort section that reads the folder.
    """

    def __init__(self, ui, logic, state: PanelState, scan) -> None:
        self.ui, self.logic, self.state, self._scan = ui, logic, state, scan
        self._shown = None  # the patterns in the table
        self._previewed = None  # what the preview was made of
        self._folder, self._names = "", []
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.connect("timeout()", self._preview)
        table = ui.patternsTable
        setUpTable(table, [_("Modality"), _("File names")], stretched=1)
        setUpTable(ui.previewTable, [_("File"), _("Taken for")])
        fitHeight(table, 0)
        fitHeight(ui.previewTable, 0)
        table.connect("cellChanged(int,int)", self._onCellChanged)
        ui.addPatternButton.connect("clicked(bool)", self._onAdd)
        ui.removePatternButton.connect("clicked(bool)", self._onRemove)
        ui.rescanButton.connect("clicked(bool)", self._onRescan)
        ui.patternsGroupBox.connect("toggled(bool)", self._onOpened)

    def update(self) -> None:
        node = self.state.parameterNode
        text = node.patterns if node else ""
        if text != self._shown:
            self._shown = text
            self._fill(text)
        wanted = (node.cohortFolder, text, node.labelPattern) if node else None
        if wanted != self._previewed and not self.ui.patternsGroupBox.collapsed:
            self._timer.start()
        idle = self.state.task is None
        self.ui.rescanButton.enabled = bool(idle and node and node.cohortFolder)

    def close(self) -> None:
        self._timer.stop()

    def addPattern(self, modality: str = "", pattern: str = "") -> None:
        """Put one more line into the table."""
        table = self.ui.patternsTable
        wasBlocked = table.blockSignals(True)
        number = len(self._rows())
        table.setRowCount(number + 1)
        table.setItem(number, 0, qt.QTableWidgetItem(modality))
        table.setItem(number, 1, qt.QTableWidgetItem(pattern))
        table.blockSignals(wasBlocked)
        fitHeight(table, number + 1)
        table.setCurrentCell(number, 0)
        self._keep()

    def _rows(self) -> list[tuple[str, str]]:
        table = self.ui.patternsTable
        rows = []
        while table.item(len(rows), 0) is not None:
            number = len(rows)
            rows.append(tuple(table.item(number, column).text().strip() for column in (0, 1)))
        return rows

    def _fill(self, text: str) -> None:
        rows = [line.partition("=") for line in text.splitlines() if line.strip()]
        table = self.ui.patternsTable
        wasBlocked = table.blockSignals(True)
        table.setRowCount(0)
        table.setRowCount(len(rows))
        for number, (modality, _separator, pattern) in enumerate(rows):
            table.setItem(number, 0, qt.QTableWidgetItem(modality.strip()))
            table.setItem(number, 1, qt.QTableWidgetItem(pattern.strip()))
        table.blockSignals(wasBlocked)
        fitHeight(table, len(rows))

    def _keep(self) -> None:
        """Whole lines go to the parameter node; a half-written one waits in the table."""
        text = "\n".join(
            f"{modality}={pattern}" for modality, pattern in self._rows() if modality and pattern
        )
        self._shown = text
        if self.state.parameterNode and self.state.parameterNode.patterns != text:
            self.state.parameterNode.patterns = text

    def _preview(self) -> None:
        node = self.state.parameterNode
        if node is None:
            return
        self._previewed = (node.cohortFolder, node.patterns, node.labelPattern)
        if node.cohortFolder != self._folder:
            self._folder = node.cohortFolder
            self._names = self.logic.namesIn(self._folder, NAMES) if self._folder else []
        try:
            found = self._match(node)
        except EmimError as error:
            problem = f"{error.what} {error.where or ''}"
            self.ui.previewSummaryLabel.text = lines([colored(problem, RED), plain(error.hint or "")])
            return
        table = self.ui.previewTable
        table.setRowCount(len(found))
        fitHeight(table, len(found), most=6)
        for number, (name, modality) in enumerate(found):
            table.setItem(number, 0, qt.QTableWidgetItem(name))
            table.item(number, 0).setToolTip(name)
            table.setItem(number, 1, qt.QTableWidgetItem(WORDS.get(modality, modality)))
        counts: dict[str, int] = {}
        for _name, modality in found:
            counts[modality or ""] = counts.get(modality or "", 0) + 1
        parts = [f"{modality} {n}" for modality, n in sorted(counts.items()) if modality]
        unused = _("not used: {n}").format(n=counts[""]) if counts.get("") else ""
        first = _("Of {n} file names: {parts}").format(n=len(found), parts=", ".join(parts) or "–")
        self.ui.previewSummaryLabel.text = (
            lines([plain(first), colored(unused, AMBER)]) if found else _("The folder has no image files.")
        )

    def _match(self, node) -> list[tuple[str, str | None]]:
        patterns = self.logic.parsePatterns(node.patterns)
        if node.labelPattern:
            patterns.setdefault("label", []).append(node.labelPattern)
        return self.logic.matchPreview(self._names, patterns)

    def _onCellChanged(self, row: int, column: int) -> None:
        self._keep()
        self.update()

    def _onAdd(self, checked: bool = False) -> None:
        self.addPattern()

    def _onRemove(self, checked: bool = False) -> None:
        number = self.ui.patternsTable.currentRow()
        if number >= 0:
            self.ui.patternsTable.removeRow(number)
            self._keep()
            self.update()

    def _onRescan(self, checked: bool = False) -> None:
        self._scan.start()

    def _onOpened(self, opened: bool) -> None:
        self.update()
