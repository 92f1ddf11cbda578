"""A long task of one section: its button becomes Cancel, a log pane follows it, errors are shown."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from EMIMLib import dependencies
from EMIMLib.error_display import errorTitle, showError
from EMIMLib.log_pane import LogPane
from EMIMSegmentLib.panel_state import PanelState


class SectionJob:
    """Runs one task at a time and gives the button back afterwards.

    Args:
        state: told which job is running, so that the other sections wait.
        button: starts the task by ``begin``; cancels it while it runs.
        frame: an empty widget with a layout, for the log pane.
        title: of the task, for the log pane.
        begin: ``begin(onEvent, onFinished)`` starts the task and returns its run; it may refuse by raising.
        done: ``done(run)`` is called after a success.
        agree: asks the person what is to be asked first; False: the task is not started.
    """

    def __init__(
        self,
        state: PanelState,
        button,
        frame,
        title: str,
        begin: Callable,
        done: Callable,
        agree: Callable[[], bool] = lambda: True,
    ) -> None:
        self.state, self.button, self.title = state, button, title
        self._begin, self._done, self._agree = begin, done, agree
        self._text, self._toolTip = button.text, button.toolTip
        self.pane = LogPane()
        self.pane.setVisible(False)
        frame.layout().addWidget(self.pane)
        self.run = None
        self._cancelling = self._abandoned = False
        button.connect("clicked(bool)", self._onClicked)

    @property
    def running(self) -> bool:
        return self.state.job is self

    def describe(self, title: str, text: str, toolTip: str) -> None:
        """The task means something else from now on (text and tooltip of the button); not while it runs."""
        if not self.running:
            self.title, self._text, self._toolTip = title, text, toolTip

    def update(self, reason: str) -> None:
        """Set the button; ``reason`` says in words why the task cannot start, empty when it can."""
        if self.running:
            self.button.text = _("Cancel")
            self.button.toolTip = _("Stop. Nothing half-made is left in the scene.")
            self.button.enabled = not self._cancelling
            return
        if self.state.job:
            reason = _("Something else is running.")
        self.button.text = self._text
        self.button.toolTip = reason or self._toolTip
        self.button.enabled = not reason

    def start(self) -> None:
        """Start the task; a refusal is shown."""
        if self.state.job or not self._hasPackages() or not self._agree():
            return
        self._cancelling = False
        self.state.job = self  # before the start: a task may end while it starts
        self.pane.start(self.title)
        self.state.changed()
        try:
            run = self._begin(self.pane.handle, self._onFinished)
        except Exception as error:
            self._end(False, errorTitle(error), error)
            return
        if self.running:
            self.run = run

    def cancel(self) -> None:
        """Ask the running task to stop; returns at once."""
        if self.running and self.run is not None:
            self._cancelling = True
            self.run.cancel()
            self.state.changed()

    def abandon(self) -> None:
        """Stop what runs and show nothing any more: the panel goes away."""
        self._abandoned = True
        if self.run is not None:
            self.run.cancel()

    def _onClicked(self, checked: bool = False) -> None:
        if self.running:
            self.cancel()
        else:
            self.start()

    def _hasPackages(self) -> bool:
        try:
            return dependencies.ensure(self.button)
        except Exception as error:
            showError(error)
            return False

    def _onFinished(self, run) -> None:
        if self._abandoned:
            return
        if run.cancelled:
            text = _("Stopped, because the scene was closed.") if run.sceneClosed else _("Cancelled.")
            self._end(False, text)
        elif run.error is not None:
            self._end(False, errorTitle(run.error), run.error, run.log)
        else:
            self._end(True, run.summary)
            self._done(run)
            self.state.changed()

    def _end(self, ok: bool, text: str, error: Exception | None = None, log: str = "") -> None:
        self.run = None
        self.state.job = None
        self.pane.finish(ok, text)
        self.state.changed()
        if error is not None:
            showError(error, log)
