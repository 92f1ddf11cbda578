"""Stand-ins for CTK's file and folder pickers."""

import enum
import re

from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, Signal

from slicerhost.widget_classes import properties, stand_in


@stand_in
class ctkPathLineEdit(W.QWidget):
    class Filter(enum.IntFlag):
        Dirs, Files, Readable, Writable, Executable = 0x001, 0x002, 0x010, 0x020, 0x040

    Dirs, Files, Readable, Writable = Filter.Dirs, Filter.Files, Filter.Readable, Filter.Writable
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    locals().update(
        properties(
            filters=(int, 0x3F),
            nameFilters=("QStringList", ()),
            settingKey=(str, ""),
            label=(str, ""),
            showBrowseButton=(bool, True),
            showHistoryButton=(bool, True),
            currentFileExtension=(str, ""),
            options=(int, 0),
        )
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = W.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit, browse = W.QLineEdit(), W.QToolButton()
        browse.setText("…")
        layout.addWidget(self._edit)
        layout.addWidget(browse)
        self._valid = False
        self._edit.textChanged.connect(self._changed)

    def _changed(self, text):
        """As CTK's: only a path that its validator accepts is told."""
        globs = re.findall(r"\*\.(\w+)", " ".join(self.nameFilters))
        wanted = "|".join(rf".*\.{g}?" for g in globs) or ".+"
        was, self._valid = self._valid, re.fullmatch(wanted, text) is not None
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != was:
            self.validInputChanged.emit(self._valid)

    def _get(self):
        return self._edit.text

    def setCurrentPath(self, path):
        self._edit.setText(path)

    currentPath = Property(str, _get, setCurrentPath)

    def addCurrentPathToHistory(self):
        """The stand-in keeps no history."""


@stand_in
class ctkDirectoryButton(W.QPushButton):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    locals().update(properties(caption=(str, ""), acceptMode=(int, 0)))

    def _get(self):
        return self.__dict__.get("_directory", ".")

    def setDirectory(self, directory):
        if directory != self._get():
            self._directory = directory
            self.setText(directory)
            self.directoryChanged.emit(directory)

    directory = Property(str, _get, setDirectory)
