"""Stand-ins for CTK's file and folder pickers."""

import enum
import re

from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, QSettings, Signal

from slicerhost.widget_classes import properties, stand_in

MOST = 5  # paths in a history


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
            settingKey=(str, "", "retrieveHistory"),
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
        self._combo, browse = W.QComboBox(), W.QToolButton()
        self._combo.setEditable(True)
        self._combo.setInsertPolicy(W.QComboBox.NoInsert)
        self._edit = self._combo.lineEdit()
        browse.setText("…")
        layout.addWidget(self._combo, 1)
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

    def retrieveHistory(self):
        """As CTK's: an empty line takes up the latest path."""
        path = self.currentPath
        wasBlocked = self.blockSignals(True)
        self._combo.clear()
        self._combo.addItems(self._history()[:MOST])
        self._combo.setCurrentIndex(-1)
        if path:
            self.setCurrentPath(path)
        self.blockSignals(wasBlocked)
        if not path:
            self._combo.setCurrentIndex(0)

    def addCurrentPathToHistory(self):
        """As CTK's: taking the path out of the list and putting it back is told by signals."""
        path = self.currentPath
        if not path:
            return
        QSettings().setValue(self._historyKey(), [path, *(p for p in self._history() if p != path)])
        if (index := self._combo.findText(path)) >= 0:
            self._combo.removeItem(index)
        while self._combo.count >= MOST:
            self._combo.removeItem(self._combo.count - 1)
        self._combo.insertItem(0, path)
        self._combo.setCurrentIndex(0)

    def _historyKey(self):
        return "ctkPathLineEdit/" + (self.settingKey or self.objectName())

    def _history(self):
        found = QSettings().value(self._historyKey()) or []
        return [found] if isinstance(found, str) else list(found)


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
