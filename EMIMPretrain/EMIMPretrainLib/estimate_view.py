"""How long training would take, asked for by a button and shown until it is about something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .panel_state import PanelState
from .rich_text import GREEN, RED, colored, lines, plain
from .short_task import ShortTask
from .task_progress import TaskProgress


class EstimateView:
    """Runs an estimate and shows its answer.

    Args:
        begin: ``begin(onEvent, onFinished)`` starts the estimate and returns its run.
        question: ``question()`` is everything the answer depends on, to be compared.
    """

    def __init__(
        self, state: PanelState, button, bar, label, begin: Callable, question: Callable[[], Any]
    ) -> None:
        self._label, self._begin, self._question = label, begin, question
        self._asked = None  # what the running or shown estimate is about
        title = _("Trying a few steps…")
        self._task = ShortTask(state, button, TaskProgress(bar, label), title, self._start, self._onFinished)

    def update(self, reason: str) -> None:
        """``reason`` says why nothing can be estimated now, empty when it can."""
        if not self._task.running and self._asked is not None and self._asked != self._question():
            self._asked = None
            self._show("")
        self._task.update(reason)

    def _start(self, onEvent, onFinished):
        self._asked = self._question()
        return self._begin(onEvent, onFinished)

    def _onFinished(self, run) -> None:
        self._show(estimateText(run.estimate))

    def _show(self, text: str) -> None:
        self._label.text = text
        self._label.setVisible(bool(text))


def estimateText(estimate) -> str:
    """An ``Estimate`` as rich text, with a plain yes or no."""
    verdict = [colored("✕ " + warning, RED) for warning in estimate.warnings]
    fits = colored("✓ " + _("This fits on this computer."), GREEN)
    return lines([plain(estimate.text), *(verdict or [fits])])
