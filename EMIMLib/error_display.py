"""Show an error to a person: what happened, to what, what to do, with the log on demand."""

from __future__ import annotations

import logging
import traceback

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from emim.errors import Cancelled, EmimError

DETAILS_LIMIT = 20_000  # characters; a text box with megabytes would freeze


def showError(error: BaseException, log: str = "") -> None:
    """Show ``error`` in a window with Details and a Copy button, and wait until it is closed.

    It is only logged in testing mode and without a main window, so that scripts are never blocked.
    A :class:`Cancelled` is not shown: the user knows.
    """
    if isinstance(error, Cancelled):
        return
    logging.error(errorDetails(error, log))
    if slicer.app.testingEnabled() or slicer.util.mainWindow() is None:
        return
    dialog = errorDialog(error, log)
    dialog.exec_()
    dialog.deleteLater()


def errorDialog(error: BaseException, log: str = "") -> qt.QDialog:
    """The message box, not shown yet. Copying does not close it."""
    details = errorDetails(error, log)
    dialog = qt.QDialog(slicer.util.mainWindow())
    dialog.windowTitle = "EMIM"
    layout = qt.QGridLayout(dialog)
    layout.setSizeConstraint(qt.QLayout.SetFixedSize)  # as large as its content, with and without details

    icon = qt.QLabel()
    icon.setPixmap(dialog.style().standardIcon(qt.QStyle.SP_MessageBoxCritical).pixmap(qt.QSize(40, 40)))
    icon.setAlignment(qt.Qt.AlignTop)
    layout.addWidget(icon, 0, 0, 2, 1)
    title = _label(errorTitle(error))
    font = title.font
    font.setBold(True)
    title.font = font
    layout.addWidget(title, 0, 1)
    layout.addWidget(_label(_breakable(errorText(error))), 1, 1)

    detailsButton = ctk.ctkCollapsibleButton()
    detailsButton.text = _("Details")
    detailsButton.collapsed = True
    detailsButton.flat = True
    detailsButton.toolTip = _("The whole message and the log")
    detailsText = qt.QPlainTextEdit()
    detailsText.readOnly = True
    detailsText.plainText = details
    detailsText.toolTip = _("The whole message and the log")
    detailsText.setMinimumHeight(200)
    qt.QVBoxLayout(detailsButton).addWidget(detailsText)
    layout.addWidget(detailsButton, 2, 0, 1, 2)

    buttons = qt.QHBoxLayout()
    copyButton = qt.QPushButton(_("Copy"))
    copyButton.toolTip = _("Copy message and log to the clipboard, to paste them into a support request")
    copyButton.connect("clicked()", lambda: qt.QApplication.clipboard().setText(details))
    closeButton = qt.QPushButton(_("Close"))
    closeButton.toolTip = _("Close this message")
    closeButton.default = True
    closeButton.connect("clicked()", dialog.accept)
    buttons.addStretch(1)
    buttons.addWidget(copyButton)
    buttons.addWidget(closeButton)
    layout.addLayout(buttons, 3, 0, 1, 2)
    return dialog


def _label(text: str) -> qt.QLabel:
    label = qt.QLabel()
    label.textFormat = qt.Qt.PlainText  # a file name may look like HTML
    label.text = text
    label.wordWrap = True
    label.setMinimumWidth(480)
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    return label


def _breakable(text: str) -> str:
    """``text`` with invisible places where a line may end, so that a long path does not widen the window."""
    return text.replace("/", "/\u200b").replace("\\", "\\\u200b")


def errorTitle(error: BaseException) -> str:
    """One sentence: what happened."""
    if isinstance(error, EmimError):
        return error.what
    return _("Unexpected failure: {kind}: {text}").format(kind=type(error).__name__, text=error)


def errorText(error: BaseException) -> str:
    """Where it happened and what to do about it."""
    if not isinstance(error, EmimError):
        return _("This is a defect of EMIM; please report it with the details below.")
    return "\n\n".join(part for part in (error.where, error.hint) if part)


def errorDetails(error: BaseException, log: str = "") -> str:
    """All there is to know, for a support request."""
    parts = [str(error) if isinstance(error, EmimError) else errorTitle(error)]
    if not isinstance(error, EmimError):
        parts.append("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    if log.strip():
        parts.append(log.strip())
    text = "\n\n".join(parts)
    return text if len(text) <= DETAILS_LIMIT else text[:2000] + "\n[…]\n" + text[2000 - DETAILS_LIMIT :]
