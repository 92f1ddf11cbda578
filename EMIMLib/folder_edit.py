"""A line to choose a folder in: typed or browsed, with a button that opens it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _


class FolderEdit(qt.QWidget):
    """Shows a folder that need not exist yet.

    Args:
        folder: shown first.
        onChosen: called with the new folder, a full path, when the user has chosen another one.
        toolTip: what the folder is for.
    """

    def __init__(self, folder: Path, onChosen: Callable[[Path], None], toolTip: str, parent=None) -> None:
        super().__init__(parent)
        self._folder = Path(folder)
        self._onChosen = onChosen
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.line = qt.QLineEdit(str(folder))
        self.line.toolTip = toolTip
        self.line.connect("editingFinished()", self._typed)
        layout.addWidget(self.line)
        self.browseButton = self._button(layout, "…", _("Choose another folder"), self._browse)
        self.openButton = self._button(
            layout, _("Open"), _("Show the folder in the file browser"), self._open
        )

    def setFolder(self, folder: Path) -> None:
        """Show a folder that was chosen elsewhere."""
        if Path(folder) != self._folder:
            self._folder = Path(folder)
            self.line.text = str(folder)

    def _button(self, layout, text: str, toolTip: str, slot: Callable[[], None]):
        button = qt.QToolButton()
        button.text = text
        button.toolTip = toolTip
        button.connect("clicked()", slot)
        layout.addWidget(button)
        return button

    def _typed(self) -> None:
        folder = Path(self.line.text.strip()).expanduser()
        if not self.line.text.strip() or not folder.is_absolute():
            self.line.text = str(self._folder)
        elif folder != self._folder:
            self._folder = folder
            self._onChosen(folder)

    def _browse(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self, _("Choose a folder"), str(self._folder))
        if folder:
            self.line.text = str(folder)
            self._typed()

    def _open(self) -> None:
        with contextlib.suppress(OSError):  # the file browser will say that it is not there
            self._folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._folder)))
