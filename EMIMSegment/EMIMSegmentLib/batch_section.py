"""Segment or classify many examinations, one after the other."""

from __future__ import annotations

import html

import ctk
import qt
from slicer.i18n import tr as _

from EMIMLib.path_edit import followPath
from EMIMSegmentLib.marks import BAD, GOOD
from EMIMSegmentLib.section_job import SectionJob
from EMIMSegmentLib.tables import fillTable


class BatchSection:
    def __init__(self, ui, logic, state) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.job = SectionJob(
            state, ui.batchButton, ui.batchLogFrame, _("Segmenting all cases"), self._begin, self._onDone
        )
        ui.batchTable.visible = False
        for button in (ui.batchFolderRadioButton, ui.batchSceneRadioButton):
            button.connect("clicked(bool)", self._onChanged)
        for edit in (ui.batchFolderPathLineEdit, ui.batchOutputPathLineEdit):
            edit.filters = ctk.ctkPathLineEdit.Dirs
            followPath(edit, self._onChanged)

    @property
    def fromFolder(self) -> bool:
        return self.ui.batchFolderRadioButton.checked

    def update(self) -> None:
        ui, idle = self.ui, self.state.job is None
        for widget in (ui.batchFolderLabel, ui.batchFolderPathLineEdit):
            widget.visible = self.fromFolder
        for widget in (
            ui.batchFolderRadioButton,
            ui.batchSceneRadioButton,
            ui.batchFolderPathLineEdit,
            ui.batchOutputPathLineEdit,
            ui.batchOverwriteCheckBox,
        ):
            widget.enabled = idle
        reason = self._reason()
        self._showTask()
        self.job.update(reason)
        ui.batchHintLabel.visible = idle
        ui.batchHintLabel.text = html.escape(reason or self._plan())

    def _showTask(self) -> None:
        """Name what is going to be done with the chosen model."""
        ui = self.ui
        if self.state.classifies:
            toolTip = _("Classify all cases one after the other.")
            self.job.describe(_("Classifying all cases"), _("Classify all cases"), toolTip)
            ui.batchOutputPathLineEdit.toolTip = _("Folder for the result: a table, classes.csv.")
        else:
            toolTip = _("Segment all cases one after the other.")
            self.job.describe(_("Segmenting all cases"), _("Segment all cases"), toolTip)
            ui.batchOutputPathLineEdit.toolTip = _(
                "Folder for the results: label map, measurements and picture of each case, tables for all."
            )

    def _reason(self) -> str:
        """Why the batch cannot start, in words."""
        if not self.state.card:
            return _("Choose a model.")
        if self.fromFolder:
            if not _path(self.ui.batchFolderPathLineEdit):
                return _("Choose the folder of the cases.")
            return "" if _path(self.ui.batchOutputPathLineEdit) else _("Choose a folder for the results.")
        return "" if self.logic.loadedStudies(self.state.card) else _("No study is loaded.")

    def _plan(self) -> str:
        """What the batch is going to do."""
        reference = self._reference()
        if self.fromFolder:
            text = _("Cases and sequences are recognised by the names of files and folders.")
            if reference:
                text += " " + _(
                    "The grid chosen above does not count here: results get that of the model's own "
                    "reference, or of the first sequence."
                )
            return text
        studies = self.logic.loadedStudies(self.state.card)
        names = ", ".join(s.name for s in studies)
        text = _("{n} studies: {names}").format(n=len(studies), names=names)
        without = ", ".join(s.name for s in studies if reference and reference not in s.inputs)
        if without:
            another = _("Another sequence than {reference} gives the grid of {names}.")
            text += ". " + another.format(reference=reference, names=without)
        return text

    def _reference(self) -> str | None:
        """The modality that the user has chosen for the grid, where the model has it."""
        chosen = self.state.parameterNode.referenceModality
        return chosen if chosen in self.state.card.modalities else None

    def _begin(self, onEvent, onFinished):
        node, ui = self.state.parameterNode, self.ui

        def follow(event: dict) -> None:
            onEvent(event)
            self._showRows(self.logic.run)

        folder = _path(ui.batchFolderPathLineEdit)
        for edit in (ui.batchFolderPathLineEdit, ui.batchOutputPathLineEdit):
            edit.addCurrentPathToHistory()
        begin, options = self.logic.classifyBatch, {}
        if not self.state.classifies:
            begin = self.logic.batch
            options = {"quality": node.quality, "probabilities": node.probabilities}
        return begin(
            folder if self.fromFolder else self.logic.loadedStudies(self.state.card),
            self.state.model,
            _path(ui.batchOutputPathLineEdit) or None,
            reference=None if self.fromFolder else self._reference(),  # the core fails cases that lack it
            overwrite=ui.batchOverwriteCheckBox.checked,
            waitForCompletion=False,
            onEvent=follow,
            onFinished=onFinished,
            **options,
        )

    def _onDone(self, run) -> None:
        self._showRows(run)

    def _showRows(self, run) -> None:
        rows = getattr(run, "rows", None)
        if not rows:
            return
        table = self.ui.batchTable
        texts = [(row["case"], _resultText(row)) for row in rows]
        fillTable(table, (_("Case"), _("Result")), texts, stretch=1)
        for r, row in enumerate(rows):
            item = table.item(r, 1)
            item.setToolTip(
                "\n".join(t for t in (row["error"] or texts[r][1], row["where"], row["hint"]) if t)
            )
            item.setForeground(qt.QBrush(qt.QColor(BAD if row["error"] else GOOD)))
        table.visible = True

    def _onChanged(self, *_args) -> None:
        self.state.changed()


def _path(edit) -> str:
    """The folder in a ctkPathLineEdit; an unset one reads "." ."""
    return "" if edit.currentPath in ("", ".") else edit.currentPath


def _resultText(row: dict) -> str:
    if row["error"]:
        return row["error"]
    if "probabilities" in row:
        return f"{row['class']} {row['probabilities'][row['class']]:.1%}"
    return ", ".join(f"{name} {volume:.1f} mL" for name, volume in row["volumes_ml"].items())
