"""A task of seconds to minutes: its button becomes Cancel meanwhile, errors are shown."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from EMIMLib import dependencies
from EMIMLib.error_display import showError

from .panel_state import PanelState
from .task_progress import TaskProgress


class ShortTask:
    """Runs one task at a time and gives the button back afterwards.

    Args:
        state: told which task is running, so that the other sections wait.
        button: starts the task; cancels it while it runs.
        progress: where progress is shown.
        title: of the task, such as "Reading the cohort…".
        begin: ``begin(onEvent, onFinished)`` starts the task and returns its run; it may refuse by raising.
        done: ``done(run)`` is called after a success.
    """

    def __init__(
        self,
        state: PanelState,
        button,
        progress: TaskProgress,
        title: str,
        begin: Callable,
        done: Callable,
    ) -> None:
        self._state, self._button, self._progress, self._title = state, button, progress, title
        self._begin, self._done = begin, done
        self._text, self._toolTip = button.text, button.toolTip
        self._run = None
        self._cancelling = False
        button.connect("clicked(bool)", self._onClicked)

    @property
    def running(self) -> bool:
        return self._state.task is self

    def update(self, reason: str = "") -> None:
        """Set the button; ``reason`` says in words why the task cannot start, empty when it can."""
        if self.running:
            self._button.text = _("Cancel")
            self._button.toolTip = _("Stop this.")
            self._button.enabled = not self._cancelling
            return
        if self._state.task is not None:
            reason = _("Something else is being done; wait for it or cancel it.")
        self._button.text = self._text
        self._button.toolTip = reason or self._toolTip
        self._button.enabled = not reason

    def start(self) -> None:
        """Start the task; a refusal is shown."""
        if self._state.task is not None or not self._ready():
            return
        self._cancelling = False
        self._state.task = self  # before the start: a task may end while it starts
        self._progress.start(self._title)
        self._state.changed()
        try:
            run = self._begin(self._progress.handle, self._onFinished)
        except Exception as error:
            self._end(_("Not started."))
            showError(error)
            return
        if self.running:
            self._run = run

    def cancel(self) -> None:
        """Ask the running task to stop; returns at once."""
        if self.running and self._run is not None:
            self._cancelling = True
            self._run.cancel()
            self._state.changed()

    def _ready(self) -> bool:
        """Whether all packages are there, after asking for those that are missing."""
        try:
            return dependencies.ensure(self._button)
        except Exception as error:
            showError(error)
            return False

    def _onClicked(self, checked: bool = False) -> None:
        if self.running:
            self.cancel()
        else:
            self.start()

    def _onFinished(self, run) -> None:
        if run.cancelled:
            self._end(_("Cancelled."))
        elif run.error is not None:
            self._end(_("Failed: {what}").format(what=run.error.what))
            showError(run.error, run.log)
        else:
            self._end()
            self._done(run)
            self._state.changed()

    def _end(self, text: str = "") -> None:
        self._run = None
        self._state.task = None
        self._progress.end(text)
        self._state.changed()
