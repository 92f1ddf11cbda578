"""What a running worker says, for people: progress with the time left, a status line, a log."""

from __future__ import annotations

import ctk
import qt
from slicer.i18n import tr as _

from emim.errors import EmimError

SHOWN_LINES = 5000  # of the log; older ones go
SHOWN_AT_ONCE = 20_000  # characters of one event
STEPS = 1000  # of the progress bar


class LogPane(qt.QWidget):
    """Progress bar, status line, and a log that unfolds. Give it every event by :meth:`handle`."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)

        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        # A long path must not widen the panel.
        self.statusLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self.statusLabel.toolTip = _("What is being done now")
        layout.addWidget(self.statusLabel)

        self.progressBar = qt.QProgressBar()
        self.progressBar.toolTip = _("How much is done, and about how long the rest will take")
        layout.addWidget(self.progressBar)

        self.logButton = ctk.ctkCollapsibleButton()
        self.logButton.text = _("Log")
        self.logButton.collapsed = True
        self.logButton.flat = True
        self.logButton.toolTip = _("Everything the worker said, for a closer look when something is wrong")
        layout.addWidget(self.logButton)

        logLayout = qt.QVBoxLayout(self.logButton)
        self.logText = qt.QPlainTextEdit()
        self.logText.readOnly = True
        self.logText.maximumBlockCount = SHOWN_LINES
        self.logText.setMinimumHeight(120)
        self.logText.toolTip = _("Everything the worker said")
        logLayout.addWidget(self.logText)

        self.copyButton = qt.QPushButton(_("Copy log"))
        self.copyButton.toolTip = _("Copy the log to the clipboard, to paste it into a message")
        self.copyButton.connect("clicked()", self.copyLog)
        logLayout.addWidget(self.copyButton)
        self.clear()

    @property
    def text(self) -> str:
        """The log as shown."""
        return self.logText.plainText

    def start(self, title: str) -> None:
        """Show the pane, emptied, for a job that begins."""
        self.clear()
        self.statusLabel.text = title
        self.progressBar.setRange(0, 0)  # moves without saying how much: nobody knows yet
        self.progressBar.setVisible(True)
        self.setVisible(True)
        self._append(title)

    def handle(self, event: dict) -> None:
        """Show one event of a worker (see :mod:`emim.events`)."""
        kind = event.get("type")
        if kind == "status":
            self.statusLabel.text = str(event.get("text", ""))
            self._append(self.statusLabel.text)
        elif kind == "progress":
            self._progress(event)
        elif kind in ("warning", "error"):
            text = str(EmimError(str(event.get("what")), event.get("where"), event.get("hint")))
            self._append((_("Warning: ") if kind == "warning" else _("Error: ")) + text)
        elif kind == "log":
            self._append(str(event.get("text", "")))

    def finish(self, ok: bool, text: str) -> None:
        """Say how it ended; after a failure the log unfolds."""
        self.statusLabel.text = text
        self.progressBar.setRange(0, STEPS)
        self.progressBar.setValue(STEPS)
        self.progressBar.setFormat("")
        self.progressBar.setVisible(False)
        self._append(text)
        if not ok:
            self.logButton.collapsed = False

    def clear(self) -> None:
        self.statusLabel.text = ""
        self.progressBar.setVisible(False)
        self.progressBar.setRange(0, STEPS)
        self.progressBar.setValue(0)
        self.progressBar.setFormat("")
        self.logText.clear()

    def copyLog(self) -> None:
        qt.QApplication.clipboard().setText(self.text)

    def _progress(self, event: dict) -> None:
        done, total = event.get("done") or 0, event.get("total") or 0
        if event.get("text"):
            self.statusLabel.text = str(event["text"])
        if total <= 0:
            self.progressBar.setRange(0, 0)
            return
        self.progressBar.setRange(0, STEPS)
        self.progressBar.setValue(int(STEPS * min(max(done / total, 0.0), 1.0)))
        amount = _("{done} of {total}").format(done=done, total=total)
        left = event.get("seconds_left")
        if left is not None and done < total:
            amount += ", " + _("{time} left").format(time=duration(left))
        self.progressBar.setFormat(amount)

    def _append(self, text: str) -> None:
        if len(text) > SHOWN_AT_ONCE:
            text = "[…]\n" + text[-SHOWN_AT_ONCE:]
        if text:
            self.logText.appendPlainText(text)


def duration(seconds: float) -> str:
    """A time for people: "40 s", "3 min", "2 h 10 min", "4 d 3 h"."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return _("{n} s").format(n=seconds)
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{n} min").format(n=minutes)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("{h} h {m} min").format(h=hours, m=minutes) if minutes else _("{h} h").format(h=hours)
    days, hours = divmod(hours, 24)
    return _("{d} d {h} h").format(d=days, h=hours)
