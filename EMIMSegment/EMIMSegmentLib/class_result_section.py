"""Read how probable each class is."""

from __future__ import annotations

import html

import qt
from slicer.i18n import tr as _

from EMIMSegmentLib.marks import CHECK, marked, paragraph
from EMIMSegmentLib.tables import fillTable, tableText


class ClassResultSection:
    """Shows the table of classes in the parameter node while a classification model is chosen."""

    def __init__(self, ui, logic, state) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        ui.copyClassesButton.connect("clicked(bool)", self._onCopy)

    def showRun(self, run) -> None:
        """Show what a run has found."""
        self.state.changed()
        self.ui.resultCollapsibleButton.collapsed = False

    def update(self) -> None:
        ui, classifies = self.ui, self.state.classifies
        node = self.state.parameterNode.outputTable if classifies else None
        ui.classResultFrame.visible = node is not None
        ui.resultCollapsibleButton.toolTip = (
            _("Read how probable each class is.")
            if classifies
            else _("Look at the segmentation, read its measurements, save it.")
        )
        if not classifies:
            return
        if node is None:
            ui.resultLabel.text = _("The probability of each class appears here after Apply.")
            return
        missing = ", ".join(self.logic.missingModalities(node))
        without = marked(_("made without {names}").format(names=missing), CHECK, "●") if missing else ""
        made = _("{name}, made with {model}").format(
            name=f"<b>{html.escape(node.GetName())}</b>", model=html.escape(self.logic.madeWith(node))
        )
        ui.resultLabel.text = paragraph(made, without)
        self._fill(self.logic.classProbabilities(node))

    def _fill(self, probabilities: dict[str, float]) -> None:
        table = self.ui.classesTable
        rows = [(name, f"{share:.1%}") for name, share in probabilities.items()]
        fillTable(table, (_("Class"), _("Probability")), rows)
        for column in range(2 if rows else 0):  # the likely one
            font = table.item(0, column).font()
            font.setBold(True)
            table.item(0, column).setFont(font)

    def _onCopy(self, checked: bool = False) -> None:
        qt.QApplication.clipboard().setText(tableText(self.ui.classesTable))
