"""The window that shows which loaded studies go into a cohort, and lets the user change it."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.folder_edit import FolderEdit

from .loaded_studies import LoadedStudy, StudyVolume, modalityNames
from .patients_table import FILE
from .shown_errors import onceAtATime, shownErrors
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
        self._studies: list[LoadedStudy] = []
        self._rows: list[LoadedStudy | StudyVolume] = []
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

    def _show(self, studies: list[LoadedStudy]) -> None:
        self._studies = studies
        self._rows = [row for study in studies for row in (study, *study.volumes)]
        self.patientsBox.checked = (self.folder / FILE).exists()
        wasBlocked = self.table.blockSignals(True)
        self.table.setRowCount(0)
        self.table.setRowCount(len(self._rows))
        for number, row in enumerate(self._rows):
            show = self._showStudy if isinstance(row, LoadedStudy) else self._showVolume
            show(number, row)
        self.table.blockSignals(wasBlocked)
        self._check()

    def _showStudy(self, number: int, study: LoadedStudy) -> None:
        first = qt.QTableWidgetItem(study.title)
        font = qt.QFont()
        font.setBold(True)
        first.setFont(font)
        first.setCheckState(qt.Qt.Checked if study.included else qt.Qt.Unchecked)
        name = qt.QLineEdit(study.name)
        name.toolTip = _("Name of the case and of its folder.")
        name.connect("textChanged(QString)", lambda text: self._onNamed(study, text))
        self._put(number, first, name, study.note)

    def _showVolume(self, number: int, volume: StudyVolume) -> None:
        box = qt.QComboBox()
        box.toolTip = _("As which modality the volume is written.")
        box.addItem(_("left out"), "")
        for modality in modalityNames(self._patterns):
            box.addItem(modality, modality)
        box.setCurrentIndex(box.findData(volume.modality))
        box.enabled = volume.usable
        box.connect("currentIndexChanged(int)", lambda index: self._onChosen(volume, box.itemData(index)))
        self._put(number, qt.QTableWidgetItem("      " + volume.name), box, volume.reason)

    def _put(self, number: int, first, choice, remark: str) -> None:
        self.table.setItem(number, NAME, first)
        self.table.setCellWidget(number, CHOICE, choice)
        item = qt.QTableWidgetItem(remark)
        item.setToolTip(remark)
        self.table.setItem(number, REMARK, item)

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
            self.folder = folder
            self._show(studies)
        self.folderEdit.setFolder(self.folder)

    def _onTicked(self, number: int, column: int) -> None:
        if column == NAME and isinstance(self._rows[number], LoadedStudy):
            self._rows[number].included = self.table.item(number, NAME).checkState() == qt.Qt.Checked
            self._check()

    def _onNamed(self, study: LoadedStudy, name: str) -> None:
        study.name = name.strip()
        self._check()

    def _onChosen(self, volume: StudyVolume, modality: str) -> None:
        volume.modality, volume.reason = modality, _("chosen by you")
        self.table.item(self._rows.index(volume), REMARK).setText(volume.reason)
        self._check()

    @onceAtATime
    def _onAdd(self) -> None:
        with shownErrors(wait=True):
            keep = self.patientsBox.checked
            self._logic.addStudies(self._studies, self.folder, self._patterns, keepPatients=keep)
            self.window.accept()
