"""The section “Installation” of both panels: check, install what is missing, choose folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from emim.volumes.cache import default_folder
from EMIMLib import dependencies, settings
from EMIMLib.error_display import showError
from EMIMLib.folder_edit import FolderEdit
from EMIMLib.job import Job
from EMIMLib.support_report import composeReport, infoWorker


class InstallationSection:
    """Fills ``layout`` with the controls.

    Args:
        layout: a box or form layout of the panel.
        onChanged: called after packages were installed or a folder was changed.
    """

    def __init__(self, layout, onChanged: Callable[[], None] | None = None) -> None:
        self._onChanged = onChanged
        self._job: Job | None = None
        self.widget = qt.QWidget()
        layout.addWidget(self.widget)
        form = qt.QFormLayout(self.widget)
        form.setContentsMargins(0, 0, 0, 0)
        self._addPackages(form)
        self._addFolders(form)
        self._addReport(form)
        self.update()

    def update(self) -> None:
        """Show what is missing now, and the folders, which the other panel may have changed."""
        self.modelsEdit.setFolder(settings.modelsFolder())
        self.runsEdit.setFolder(settings.runsFolder())
        self.cacheEdit.setFolder(settings.cacheFolder() or default_folder())
        absent = dependencies.missing()
        error = dependencies.blocked()
        if error is not None:
            self.statusLabel.text = str(error)
        elif absent:
            self.statusLabel.text = _("Missing: {names}").format(names=", ".join(map(str, absent)))
        else:
            self.statusLabel.text = "\n".join([_("Everything is installed."), *dependencies.warnings()])
        self.installButton.enabled = bool(absent) and error is None
        self.installButton.toolTip = (
            _("Ask, then download and install what is missing")
            if self.installButton.enabled
            else _("Nothing can or need be installed")
        )

    def cleanup(self) -> None:
        """Stop what runs; call it from the panel's cleanup."""
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def _addPackages(self, form) -> None:
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        # A long path must not widen the panel.
        self.statusLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self.statusLabel.toolTip = _("The Python packages that EMIM's workers need")
        form.addRow(_("Packages:"), self.statusLabel)
        self.installButton = qt.QPushButton(_("Install missing packages"))
        self.installButton.connect("clicked()", self._install)
        form.addRow(self.installButton)

    def _addFolders(self, form) -> None:
        self.modelsEdit = FolderEdit(
            settings.modelsFolder(),
            self._setModelsFolder,
            _("Where installed models lie; an update of EMIM leaves them alone"),
        )
        form.addRow(_("Models folder:"), self.modelsEdit)
        self.runsEdit = FolderEdit(
            settings.runsFolder(),
            self._setRunsFolder,
            _("Where training runs are put; they hold pictures of the cohort's images"),
        )
        form.addRow(_("Runs folder:"), self.runsEdit)
        self.cacheEdit = FolderEdit(
            settings.cacheFolder() or default_folder(),
            settings.setCacheFolder,
            _("Where training keeps prepared volumes, which can take much room; a new or empty folder"),
        )
        form.addRow(_("Cache folder:"), self.cacheEdit)

    def _addReport(self, form) -> None:
        self.checkButton = qt.QPushButton(_("Check installation"))
        self.checkButton.toolTip = _(
            "Start a worker as a test and report versions, GPU, memory, disk and how the last worker failed"
        )
        self.checkButton.connect("clicked()", self._check)
        form.addRow(self.checkButton)
        self.reportText = qt.QPlainTextEdit()
        self.reportText.readOnly = True
        self.reportText.setMinimumHeight(200)
        font = qt.QFont("monospace")
        font.setStyleHint(qt.QFont.TypeWriter)
        self.reportText.font = font
        self.reportText.lineWrapMode = qt.QPlainTextEdit.NoWrap
        self.reportText.toolTip = _(
            "The support report. It holds no images, but names folders of this computer and, where a worker "
            "failed, perhaps cases and files: read it before you send it."
        )
        form.addRow(self.reportText)
        self.copyButton = qt.QPushButton(_("Copy report"))
        self.copyButton.toolTip = _("Copy the report to the clipboard, to paste it into a message")
        self.copyButton.connect("clicked()", self._copy)
        form.addRow(self.copyButton)
        self.reportText.setVisible(False)
        self.copyButton.setVisible(False)

    def _install(self) -> None:
        try:
            dependencies.ensure(self.widget)
        except Exception as error:
            showError(error)
        self._changed()

    def _setModelsFolder(self, folder: Path) -> None:
        settings.setModelsFolder(folder)
        self._changed()

    def _setRunsFolder(self, folder: Path) -> None:
        settings.setRunsFolder(folder)
        self._changed()

    def _changed(self) -> None:
        self.update()
        if self._onChanged is not None:
            self._onChanged()

    def _check(self) -> None:
        self.checkButton.enabled = False
        self.checkButton.text = _("Checking …")
        job = Job(infoWorker(), onFinished=self._checked)
        try:
            job.start()
            self._job = job
        except Exception as error:
            showError(error)
            self._checked(job)

    def _checked(self, job: Job) -> None:
        self._job = None
        self.checkButton.enabled = True
        self.checkButton.text = _("Check installation")
        self.reportText.setPlainText(composeReport(job.worker))
        self.reportText.setVisible(True)
        self.copyButton.setVisible(True)
        self.update()

    def _copy(self) -> None:
        qt.QApplication.clipboard().setText(self.reportText.plainText)
