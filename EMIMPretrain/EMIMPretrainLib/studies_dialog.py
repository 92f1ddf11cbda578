"""The window that shows which loaded studies go into a cohort, and lets the user change it."""

from __future__ import annotations

from pathlib import Path

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.folder_edit import FolderEdit

from .loaded_studies import LoadedStudy, StudyVolume, modalityNames
from .patients_table import FILE
from .shown_errors import onceAtATime, shownErrors
from .study_choices import StudyChoices
from .table_setup import setUpTable

NAME, CHOICE, REMARK = range(3)  # columns


class StudiesDialog:
    """A row for each study, with its name in the cohort, and one for each of its volumes, with its modality.

    Args:
        folder: proposed cohort folder.
        patterns: the user's name patterns by modality.

    Attributes:
        folder: that the user has chosen.

    Raises:
        EmimError: when no volume is loaded.
    """

    def __init__(self, logic, folder: Path, patterns: dict[str, list[str]]) -> None:
        self._logic, self._patterns, self.folder = logic, patterns, Path(folder)
        self._choices = StudyChoices()
        self._keepPatients: bool | None = None  # None: the user has not said
        self._folderEdited = False  # typed in, and not ended yet
        self._studies: list[LoadedStudy] = []
        self._rows: list[tuple[LoadedStudy, StudyVolume | None]] = []  # None: the row of the study itself
        proposed = logic.loadedStudies(self.folder, patterns)
        self.window = qt.QDialog(slicer.util.mainWindow())
        self.window.windowTitle = _("EMIM: add loaded studies to a cohort")
        self.window.resize(860, 560)
        self._build(qt.QVBoxLayout(self.window))
        self._show(proposed)

    def exec(self) -> bool:
        """Open the window and wait; whether studies were added."""
        added = self.window.exec_()
        self.window.deleteLater()
        return bool(added)

    def _build(self, layout) -> None:
        about = qt.QLabel(
            _(
                "Each ticked study becomes a folder with one NRRD file for each modality, as it is seen: "
                "transforms are applied. The files hold voxels and position, no names; a face stays in the "
                "image. The names of the folders tell nothing about the patient unless you type it: "
                "case-007_ses-2 is the second study of case-007."
            )
        )
        about.wordWrap = True
        layout.addWidget(about)
        self.folderEdit = FolderEdit(self.folder, self._onFolder, _("Folder of the cohort; may be new."))
        self.folderEdit.line.connect("textEdited(QString)", self._onFolderEdited)
        self.folderEdit.line.connect("editingFinished()", self._onFolderEnded)
        layout.addWidget(self.folderEdit)
        self.table = qt.QTableWidget()
        self.table.toolTip = _("Tick the studies to add, and say which modality each volume is.")
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        setUpTable(self.table, [_("Loaded"), _("In the cohort"), _("Why")], stretched=REMARK)
        self.table.connect("cellChanged(int,int)", self._onTicked)
        layout.addWidget(self.table)
        self.patientsBox = qt.QCheckBox(_("Keep a list of patients ({file})").format(file=FILE))
        self.patientsBox.toolTip = _(
            "Case, DICOM Patient ID and Study Instance UID, in the folder. By it, later studies of a patient "
            "get the patient's number also another day. Do not pass it on with the images."
        )
        self.patientsBox.connect("clicked(bool)", self._onKeepPatients)
        layout.addWidget(self.patientsBox)
        self.reasonLabel = qt.QLabel()
        self.reasonLabel.textFormat = qt.Qt.PlainText
        self.reasonLabel.wordWrap = True
        layout.addWidget(self.reasonLabel)
        buttons = qt.QHBoxLayout()
        buttons.addStretch(1)
        self.addButton = qt.QPushButton(_("Add and scan"))
        self.addButton.toolTip = _("Write the ticked studies into the folder, and scan it.")
        self.addButton.connect("clicked()", self._onAdd)
        buttons.addWidget(self.addButton)
        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.toolTip = _("Write nothing.")
        self.cancelButton.connect("clicked()", self.window.reject)
        buttons.addWidget(self.cancelButton)
        for button in (self.addButton, self.cancelButton):
            button.autoDefault = False  # Enter ends a name, it does not write
        layout.addLayout(buttons)
        self._checkTimer = qt.QTimer(self.window)
        self._checkTimer.setSingleShot(True)
        self._checkTimer.setInterval(0)
        self._checkTimer.connect("timeout()", self._check)

    def _show(self, studies: list[LoadedStudy]) -> None:
        rows = [(study, volume) for study in studies for volume in (None, *study.volumes)]
        shown = [_key(*row) for row in self._rows]
        self._studies, self._rows = studies, rows
        self.patientsBox.checked = (
            (self.folder / FILE).exists() if self._keepPatients is None else self._keepPatients
        )
        if shown != [_key(*row) for row in rows]:  # else the click that ended the folder may be on a row
            self._makeRows()
        self._update()

    def _makeRows(self) -> None:
        wasBlocked = self.table.blockSignals(True)
        self.table.setRowCount(0)
        self.table.setRowCount(len(self._rows))
        for number, (study, volume) in enumerate(self._rows):
            first = qt.QTableWidgetItem(study.title if volume is None else "      " + volume.name)
            self.table.setItem(number, NAME, first)
            if volume is None:
                font = qt.QFont()
                font.setBold(True)
                first.setFont(font)
            self.table.setCellWidget(
                number, CHOICE, self._nameEdit(number) if volume is None else self._box(number)
            )
            self.table.setItem(number, REMARK, qt.QTableWidgetItem())
        self.table.blockSignals(wasBlocked)

    def _nameEdit(self, number: int):
        edit = qt.QLineEdit()
        edit.toolTip = _("Name of the case and of its folder.")
        edit.connect("textChanged(QString)", lambda text: self._onNamed(number, text))
        return edit

    def _box(self, number: int):
        box = ctk.ctkComboBox()
        box.scrollWheelEffect = ctk.ctkComboBox.NeverScroll  # the wheel scrolls the table
        box.toolTip = _("As which modality the volume is written.")
        box.addItem(_("left out"), "")
        for modality in modalityNames(self._patterns):
            box.addItem(modality, modality)
        box.connect("currentIndexChanged(int)", lambda index: self._onChosen(number, box.itemData(index)))
        return box

    def _update(self) -> None:
        """Show in the rows what has been proposed and chosen."""
        wasBlocked = self.table.blockSignals(True)
        for number, (study, volume) in enumerate(self._rows):
            widget = self.table.cellWidget(number, CHOICE)
            wasWidgetBlocked = widget.blockSignals(True)
            if volume is None:
                state = qt.Qt.Checked if study.included else qt.Qt.Unchecked
                self.table.item(number, NAME).setCheckState(state)
                if widget.text.strip() != study.name:  # else it may be being typed
                    widget.text = study.name
            else:
                widget.setCurrentIndex(widget.findData(volume.modality))
                widget.enabled = volume.usable
            widget.blockSignals(wasWidgetBlocked)
            remark = study.note if volume is None else volume.reason
            self.table.item(number, REMARK).setText(remark)
            self.table.item(number, REMARK).setToolTip(remark)
        self.table.blockSignals(wasBlocked)
        self._check()

    def _check(self) -> None:
        """Say what keeps the studies from being added."""
        try:
            self._logic.checkStudies(self._studies, self.folder, self._patterns)
            problem = ""
        except EmimError as error:
            problem = " ".join(text for text in (error.what, error.hint) if text)
        self.addButton.enabled = not problem
        self.reasonLabel.text = problem or _("Studies to add: {n}.").format(
            n=sum(study.included for study in self._studies)
        )

    def _onFolder(self, folder: Path) -> None:
        with shownErrors():
            studies = self._logic.loadedStudies(folder, self._patterns)
            self._choices.applyTo(studies)
            self.folder = folder
            self._show(studies)
        self.folderEdit.setFolder(self.folder)

    def _onFolderEdited(self, text: str) -> None:
        self._folderEdited = True

    def _onFolderEnded(self) -> None:
        """A click that ends the typing of the folder must not write what nobody has looked at."""
        if self._folderEdited:
            self._folderEdited = False
            self.addButton.enabled = False
            self._checkTimer.start()

    def _onTicked(self, number: int, column: int) -> None:
        study, volume = self._rows[number]
        if column == NAME and volume is None:
            ticked = self.table.item(number, NAME).checkState() == qt.Qt.Checked
            self._choices.tick(study, ticked)
            self._update()

    def _onNamed(self, number: int, name: str) -> None:
        self._choices.rename(self._rows[number][0], name.strip(), self._studies)
        self._update()

    def _onChosen(self, number: int, modality: str) -> None:
        self._choices.choose(*self._rows[number], modality)
        self._update()

    def _onKeepPatients(self, checked: bool) -> None:
        self._keepPatients = checked

    @onceAtATime
    def _onAdd(self) -> None:
        with shownErrors(wait=True):
            keep = self.patientsBox.checked
            self._logic.addStudies(self._studies, self.folder, self._patterns, keepPatients=keep)
            self.window.accept()


def _key(study: LoadedStudy, volume: StudyVolume | None) -> tuple[str, str]:
    """Equal for rows that show the same."""
    return study.title, "" if volume is None else volume.nodeID
