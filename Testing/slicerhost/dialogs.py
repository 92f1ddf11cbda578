"""Stand-in for the person in front of the screen: answers modal dialogs, which nobody else would close.

A test queues the answers (``host.answer(...)``) before it makes dialogs open. A dialog that opens without an
answer is an error.
"""

import functools

from PySide6 import QtCore, QtGui, QtWidgets

_SECONDS = 5
_FILE_DIALOGS = ("getOpenFileName", "getSaveFileName", "getExistingDirectory", "getOpenFileNames")
_MESSAGES = ("information", "question", "warning", "critical")

answers = []  # for the next dialogs, in order: a value, or a function of the dialog that returns it
openedUrls = []  # what was given to QDesktopServices.openUrl


def _answer(what, dialog=None):
    if not answers:
        raise RuntimeError(f"{what} was opened and nobody answers it; use host.answer(...)")
    answer = answers.pop(0)
    return answer(dialog) if callable(answer) else answer


def _static(name, *arguments, **options):
    """A dialog opened by a static method; PythonQt returns the choice alone, where PySide6 has a tuple."""
    texts = [a for a in (*arguments, *options.values()) if isinstance(a, str)]
    return _answer(f"{name} ({'; '.join(texts)})")


def _exec(self, *_position):
    """Runs a dialog or menu. One without an answer may close itself within some seconds."""
    try:
        return _answer("a dialog", self) if answers else _wait_for(self, *_position)
    finally:
        if self.__dict__.pop("_delete_after", False):
            QtCore.QObject.deleteLater(self)


def _wait_for(dialog, *_position):
    unanswered = []

    def give_up():
        unanswered.append(dialog)
        dialog.close()

    timer = QtCore.QTimer(dialog)
    timer.setSingleShot(True)
    timer.timeout.connect(give_up)
    timer.start(int(_SECONDS * 1000))
    result = dialog.exec(*_position)
    timer.stop()
    if unanswered:
        raise RuntimeError(
            f"nobody closed {type(dialog).__name__} '{dialog.windowTitle}'; use host.answer(...)"
        )
    return result


def _delete_later(self):
    """Slicer calls deleteLater before exec_; without an outer event loop that would delete it while open."""
    self.__dict__["_delete_after"] = True


def _open_url(url):
    openedUrls.append(url.toString())
    return True


def install():
    """Puts the answers in the place of Qt's dialogs."""
    for cls, names in (
        (QtWidgets.QFileDialog, _FILE_DIALOGS),
        (QtWidgets.QMessageBox, _MESSAGES),
        (QtWidgets.QInputDialog, ("getText", "getItem", "getInt", "getDouble", "getMultiLineText")),
        (QtWidgets.QColorDialog, ("getColor",)),
    ):
        for name in names:
            setattr(cls, name, staticmethod(functools.partial(_static, f"{cls.__name__}.{name}")))
    QtWidgets.QDialog.deleteLater = _delete_later
    QtWidgets.QDialog.exec_ = QtWidgets.QMenu.exec_ = _exec
    QtGui.QDesktopServices.openUrl = staticmethod(_open_url)
