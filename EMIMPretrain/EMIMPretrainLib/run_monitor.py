"""Watching one training run, whoever started it, by the files in its folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from emim.run_state import EventTail, RunState, read_run
from EMIMLib import Cancelled, EmimError

from .durations import durationText
from .run_holder import killHolder
from .run_metrics import RunMetrics

INTERVAL = 500  # ms
RUNNING = ("starting", "running", "pausing", "cancelling")
GRACE = 2.0  # seconds that a run gets to stop by itself when it is cancelled


class RunMonitor:
    """One training run.

    The phase is "starting" (the cohort is read; there is no run folder yet), "running", "pausing",
    "cancelling", or one without a process: "waiting" (not begun), "paused" (both can be resumed),
    "finished", "failed", "cancelled" (before there was anything to resume).

    Args:
        folder: the run folder; may not exist yet when ``arguments`` are given.
        arguments: of the command that trains in it, to be started here; None: only watch.
        onEvent: called with (monitor, event) for every new event.
        onState: called with the monitor when phase, progress or metrics have changed.

    Attributes:
        state: what the run's files say, or None before there is a folder.
        metrics: its numbers.
        error: why it failed, or could not be resumed; None otherwise.
    """

    def __init__(
        self,
        folder: str | Path,
        arguments: Sequence[str] | None = None,
        onEvent: Callable[[RunMonitor, dict], None] | None = None,
        onState: Callable[[RunMonitor], None] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.onEvent = onEvent
        self.onState = onState
        self.listeners: list[Callable[[RunMonitor], None]] = []
        self.state: RunState | None = None
        self.metrics = RunMetrics()
        self.error: EmimError | None = None
        self._tail = EventTail(self.folder / "events.jsonl")
        self._job = None if arguments is None else self._makeJob(arguments)
        self._request = ""  # "pausing" or "cancelling"
        self._begun = False  # the command started here has its run folder
        self._killAt: float | None = None  # of a run that was not started here
        self._readAt = 0.0  # when the state was read
        self._foreign = False  # another process trains in the folder; the one started here was refused
        self._reportedPhase = ""
        self._polling = False
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL)
        self._timer.connect("timeout()", self.poll)

    def start(self) -> None:
        """Begin to watch; start the command first, if one was given.

        Raises:
            EmimError: when it cannot be started, or there is no run in the folder.
        """
        if self._job is not None:
            self._job.start()
        else:
            self.state = read_run(self.folder)
        if self.folder.is_dir():
            for event in self._tail.read():
                self.metrics.add(event)
        self.poll()
        self._timer.start()

    def stop(self) -> None:
        """Watch no longer; the run goes on."""
        self._timer.stop()
        self.onEvent = self.onState = None
        self.listeners.clear()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def startedHere(self) -> bool:
        return self._job is not None

    @property
    def phase(self) -> str:
        recorded = self.state.state if self.state else ""
        if self._job is not None and self._job.running:
            if self._request:
                return self._request
            return "running" if self._begun else "starting"
        if recorded == "running":  # by somebody else
            return self._request or recorded
        if self._job is not None and self._job.cancelled and not recorded:
            return "cancelled"
        if self._job is not None and self._job.error is not None and not self._foreign:
            return "failed"
        return recorded or "failed"

    @property
    def running(self) -> bool:
        return self.phase in RUNNING

    @property
    def command(self) -> str:
        """ "pretrain" or "finetune"."""
        if self.state:
            return self.state.command
        return self._job.worker.arguments[0] if self._job is not None else ""

    @property
    def classifies(self) -> bool:
        """Whether it fine-tunes for classification."""
        if self.state:
            return self.state.task == "classification"
        return self._job is not None and "classification" in self._job.worker.arguments

    @property
    def canPause(self) -> bool:
        return self.phase == "running"

    @property
    def canCancel(self) -> bool:
        return self.running and self.phase != "cancelling"

    @property
    def canResume(self) -> bool:
        resumable = ("waiting", "paused", "failed")
        return not self.running and self.state is not None and self.state.state in resumable

    @property
    def canInstall(self) -> bool:
        """Whether there is a model to install."""
        return self.phase == "finished" and self.command == "finetune" and (self.folder / "model").is_dir()

    @property
    def progress(self) -> tuple[int, int, float | None]:
        """(done, total, seconds left) of what the run does now; total 0: not known."""
        metrics = self.metrics
        return metrics.done, metrics.total, metrics.secondsLeft if self.running else None

    @property
    def log(self) -> str:
        """What the worker printed, if it was started here; else the latest status."""
        return self._job.worker.log if self._job is not None else self.metrics.status

    @property
    def phaseText(self) -> str:
        """The phase in words, with how far it is."""
        done, total, left = self.progress
        step, steps = (self.state.step, self.state.steps) if self.state else (0, 0)
        texts = {
            "starting": self.metrics.status or _("Starting."),
            "running": self.metrics.status or _("Running."),
            "waiting": _("The training has not begun yet; resume it."),
            "pausing": _("Pausing after this step …"),
            "cancelling": _("Cancelling …"),
            "paused": _(
                "Stopped at step {step} of {steps}. It can be resumed from where it was last saved."
            ).format(step=step, steps=steps or "?"),
            "finished": _("Finished at step {steps}.").format(steps=step),
            "cancelled": _("Cancelled before the training began; nothing was kept."),
        }
        phase = self.phase
        if phase == "running" and self.metrics.unit == "step" and total:
            text = _("Step {done} of {total}").format(done=done, total=total)
            return text + (_(", {time} left").format(time=durationText(left)) if left else "")
        if phase == "failed":
            what = self.error.what if self.error else _("The run has failed.")
            more = _("It can be resumed from where it was last saved.") if self.canResume else ""
            return f"{what} {more}".rstrip()
        return texts.get(phase, phase)

    def pause(self) -> None:
        """Ask the run to stop after this step with a checkpoint.

        Raises:
            EmimError: when it is not running, or has not begun to train.
        """
        if not self.canPause:
            raise EmimError(
                _("The run cannot be paused now: {text}").format(text=self.phaseText),
                self.folder,
                _("Before the training has begun, cancel it instead."),
            )
        self._writeCancelFile()
        self._setRequest("pausing")

    def cancel(self) -> None:
        """Stop the run within seconds, killed if need be; it can be resumed from its last checkpoint.

        A run on another machine cannot be killed: it stops at its next step.
        """
        if not self.canCancel:
            return
        if self._job is not None and self._job.running:
            self._job.cancel(GRACE)
        else:
            self._writeCancelFile()
            self._killAt = time.monotonic() + GRACE
        self._setRequest("cancelling")

    def waitForFinished(self, timeout: float | None = None) -> RunState | None:
        """Block, while the window stays alive, until the run has ended.

        Args:
            timeout: seconds after which to give up; the run goes on.

        Raises:
            EmimError: when it failed, or the time is over.
            Cancelled: when it was paused or cancelled, also before it had begun.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self.running:
            slicer.app.processEvents()
            self.poll()
            if end is not None and time.monotonic() > end:
                raise EmimError(_("The run has not ended yet."), self.folder, _("Wait longer."))
            time.sleep(0.05)
        if self.error is not None:
            raise self.error
        if self.phase in ("waiting", "paused", "cancelled"):
            raise Cancelled(self.phaseText)
        return self.state

    def poll(self) -> None:
        """Read what is new, and tell the listeners; called by a timer."""
        if self._polling:  # a callback may run the event loop
            return
        self._polling = True
        try:
            events = self._tail.read() if self.folder.is_dir() else []
            for event in events:
                self.metrics.add(event)
                if self._job is None:
                    self._tell(event)
            now = time.monotonic()
            if events or now - self._readAt > 2 * INTERVAL / 1000:
                self._refreshState()
            phase = self.phase
            if self._killAt is not None and now > self._killAt and phase == "cancelling":
                self._killAt = None
                killHolder(self.folder)
            if events or phase != self._reportedPhase:
                self._announce(phase)
        finally:
            self._polling = False

    def _refreshState(self) -> None:
        if not (self.folder / "config.json").is_file():
            return
        try:
            self.state = read_run(self.folder)
        except EmimError as error:  # being written, or removed by somebody
            logging.debug("The run cannot be read: %s", error)
            return
        self._readAt = time.monotonic()
        self._begun = self._begun or self.state.state == "running"
        self.metrics.readLines(self.folder)
        if not self.running:
            self._request, self._killAt = "", None
            if self._job is None and self.state.state == "failed" and self.state.error:
                self.error = _errorOf(self.state.error)

    def _announce(self, phase: str) -> None:
        self._reportedPhase = phase
        for listener in (*self.listeners, self.onState):
            self._call(listener, self)

    def _tell(self, event: dict[str, Any]) -> None:
        self._call(self.onEvent, self, event)

    def _call(self, listener: Callable | None, *arguments: Any) -> None:
        if listener is None:
            return
        try:
            listener(*arguments)
        except Exception:  # a defect of one panel must not end the watching
            logging.exception("A listener of the run %s failed", self.name)

    def _setRequest(self, request: str) -> None:
        self._request = request
        self._announce(self.phase)

    def _writeCancelFile(self) -> None:
        try:
            (self.folder / "cancel").touch()
        except OSError as error:
            raise EmimError(
                _("The run cannot be stopped: {reason}.").format(reason=error.strerror or error),
                self.folder,
                _("Check the rights of the run folder."),
            ) from error

    def _makeJob(self, arguments: Sequence[str]) -> Any:
        from EMIMLib.job import Job
        from EMIMLib.worker import Worker

        worker = Worker(list(arguments), cancelFile=self.folder / "cancel", survivesSlicer=True)
        return Job(worker, self._jobEvent, self._jobFinished)

    def _jobEvent(self, event: dict[str, Any]) -> None:
        if self.state is None:  # before there is a run folder, its file cannot tell
            self.metrics.add(event)
        self._tell(event)

    def _jobFinished(self, job: Any) -> None:
        self.error = job.error
        self._refreshState()
        self._foreign = job.error is not None and self.state is not None and self.state.state == "running"
        self.poll()


def _errorOf(error: dict[str, Any]) -> EmimError:
    return EmimError(str(error.get("what")), error.get("where"), error.get("hint"))
