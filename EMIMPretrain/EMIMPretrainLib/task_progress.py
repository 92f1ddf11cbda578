"""Progress of a short task: a bar and a line of words, there only while something is done."""

from __future__ import annotations

from slicer.i18n import tr as _

from .durations import durationText


class TaskProgress:
    """Shows the events of the core in a ``QProgressBar`` and, where there is one, a ``QLabel``."""

    def __init__(self, bar, label=None) -> None:
        self._bar, self._label = bar, label
        self.end()

    def start(self, text: str) -> None:
        self._bar.setRange(0, 0)  # busy, until the core says how much there is to do
        self._bar.setVisible(True)
        self._say(text)

    def handle(self, event: dict) -> None:
        """Take one event (see :mod:`emim.events`)."""
        if event["type"] == "progress":
            self._bar.setRange(0, event["total"])
            self._bar.setValue(event["done"])
            left = event.get("seconds_left")
            parts = [
                event.get("text") or "",
                _("{time} left").format(time=durationText(left)) if left else "",
            ]
            self._say(" · ".join(part for part in parts if part))
        elif event["type"] == "status":
            self._say(event["text"])

    def end(self, text: str = "") -> None:
        """Hide the bar; ``text`` stays, such as why there is no result."""
        self._bar.setVisible(False)
        self._say(text)

    def _say(self, text: str) -> None:
        if self._label is not None:
            self._label.text = text
            self._label.setVisible(bool(text))
