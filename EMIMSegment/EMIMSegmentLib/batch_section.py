"""Segment or classify many examinations, one after the other."""

from __future__ import annotations

import html

import ctk
from slicer.i18n import tr as _

from EMIMLib.path_edit import followPath, rememberPath
from EMIMSegmentLib.review_section import ReviewSection
from EMIMSegmentLib.section_job import SectionJob


class BatchSection:
    """Starts a batch, and shows what became of its cases.

    Args:
        onSegmentation: called with the segmentation node of a case that the user looks at.
    """

    def __init__(self, ui, logic, state, onSegmentation) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.job = SectionJob(
            state, ui.batchButton, ui.batchLogFrame, _("Segmenting all cases"), self._begin, self._onDone
        )
        self._model = None  # that the latest batch was made with
        self.review = ReviewSection(ui, logic, state, onSegmentation)
        ui.batchFormatComboBox.addItem(_(".nii.gz: for other programs"), ".nii.gz")
        ui.batchFormatComboBox.addItem(_(".seg.nrrd: for Slicer, with names, colours, overlaps"), ".seg.nrrd")
        ui.batchFormatComboBox.connect("currentIndexChanged(int)", self._onFormat)
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
            ui.batchFormatComboBox,
            ui.batchOverwriteCheckBox,
        ):
            widget.enabled = idle
        self._showFormat()
        reason = self._reason()
        self._showTask()
        self.job.update(reason)
        busy = not idle and not (self.job.running and self.fromFolder)  # a run may need what is shown
        self.review.update(_("Something else is running.") if busy else "")
        ui.batchHintLabel.visible = idle
        ui.batchHintLabel.text = html.escape(reason or self._plan())

    def forget(self) -> None:
        """Let go of what is in the scene: it is being closed."""
        self.review.forget()

    def _showFormat(self) -> None:
        combo = self.ui.batchFormatComboBox
        for widget in (self.ui.batchFormatLabel, combo):
            widget.visible = not self.state.classifies
        wasBlocked = combo.blockSignals(True)
        combo.setCurrentIndex(combo.findData(self.state.parameterNode.batchExtension))
        combo.blockSignals(wasBlocked)

    def _showTask(self) -> None:
        """Name what is going to be done with the chosen model."""
        ui = self.ui
        if self.state.classifies:
            toolTip = _("Classify all cases one after the other.")
            self.job.describe(_("Classifying all cases"), _("Classify all cases"), toolTip)
            into = _("Folder for the result: a table, classes.csv.")
        else:
            toolTip = _("Segment all cases one after the other.")
            self.job.describe(_("Segmenting all cases"), _("Segment all cases"), toolTip)
            into = _(
                "Folder for the results: label map, measurements and picture of each case, tables for all."
            )
            if not self.fromFolder:
                into = _("Folder for the results: the segmentation of each study.")
        if not self.fromFolder:
            into += " " + _("DICOM studies are called case- and a code there, not after the patient.")
        ui.batchOutputPathLineEdit.toolTip = into

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
            sentences = [_("Cases and sequences are recognised by the names of files and folders.")]
            if reference:
                sentences.append(
                    _(
                        "The grid chosen above does not count here: results get that of the model's own "
                        "reference, or of the first sequence."
                    )
                )
            return " ".join([*sentences, *self._lost()])
        studies = self.logic.loadedStudies(self.state.card)
        names = ", ".join(s.title if s.title == s.name else f"{s.title} ({s.name})" for s in studies)
        counted = _("{n} studies: {names}") if len(studies) > 1 else _("1 study: {names}")
        text, sentences = counted.format(n=len(studies), names=names), self._lost()
        without = ", ".join(s.title for s in studies if reference and reference not in s.inputs)
        if without:
            another = _("Another sequence than {reference} gives the grid of {names}.")
            sentences.insert(0, another.format(reference=reference, names=without))
        return ". ".join([text, " ".join(sentences)]) if sentences else text

    def _lost(self) -> list[str]:
        """What the files will not hold, in a sentence; empty where nothing is lost."""
        from emim.evaluation.masks import partly_overlapping

        written = self.fromFolder or _path(self.ui.batchOutputPathLineEdit)
        pair = partly_overlapping(self.state.card.structures)
        if not written or pair is None or self.state.parameterNode.batchExtension == ".seg.nrrd":
            return []
        text = _("Where {a} and {b} overlap, .nii.gz holds only one of them; .seg.nrrd holds both.")
        return [text.format(a=pair[0].name, b=pair[1].name)]

    def _reference(self) -> str | None:
        """The modality that the user has chosen for the grid, where the model has it."""
        chosen = self.state.parameterNode.referenceModality
        return chosen if chosen in self.state.card.modalities else None

    def _begin(self, onEvent, onFinished):
        node, ui = self.state.parameterNode, self.ui
        self._model = self.state.model

        def follow(event: dict) -> None:
            onEvent(event)
            self._takeRows(self.logic.run)

        folder = _path(ui.batchFolderPathLineEdit)
        for edit in (ui.batchFolderPathLineEdit, ui.batchOutputPathLineEdit):
            rememberPath(edit)
        begin, options = self.logic.classifyBatch, {}
        if not self.state.classifies:
            begin = self.logic.batch
            options = {"quality": node.quality, "probabilities": node.probabilities}
            options["extension"] = node.batchExtension
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
        self._takeRows(run)
        self.review.fill()

    def _takeRows(self, run) -> None:
        if rows := getattr(run, "rows", None):
            self.review.setRows(rows, self._model)

    def _onFormat(self, index: int) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.batchExtension = self.ui.batchFormatComboBox.itemData(index)

    def _onChanged(self, *_args) -> None:
        self.state.changed()


def _path(edit) -> str:
    """The folder in a ctkPathLineEdit; an unset one reads "." ."""
    return "" if edit.currentPath in ("", ".") else edit.currentPath
