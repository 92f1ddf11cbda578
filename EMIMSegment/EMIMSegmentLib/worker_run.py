"""A worker at the service of the scene: what all runs of the module share."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from EMIMLib import Cancelled, EmimError
from EMIMLib.worker import Worker

PREPARING, RUNNING, LOADING = "preparing", "running", "loading"
FINISHED, FAILED, CANCELLED = "finished", "failed", "cancelled"


class WorkerRun:
    """Writes files, lets a worker compute, takes its result into the scene.

    Derived classes say what is written (:meth:`_prepare`) and what is taken (:meth:`_load`). Nothing is
    added to the scene unless the worker succeeded, and the temporary folder is gone afterwards in every
    case. Closing the scene cancels the run.

    Attributes:
        state: preparing, running, loading; then finished, failed or cancelled.
        error: why it failed, or None.
        sceneClosed: it was cancelled because the scene was closed.
        result: the worker's result event; empty before.
        summary: one sentence for people, after it has finished.
        log: all that the worker said.
        seconds: that it took.
    """

    def __init__(
        self,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[WorkerRun], None] | None = None,
    ) -> None:
        self.state = PREPARING
        self.error: EmimError | None = None
        self.sceneClosed = False
        self.result: dict = {}
        self.summary = ""
        self.seconds = 0.0
        self._onEvent = onEvent
        self._onFinished = onFinished
        self._worker: Worker | None = None
        self._job = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._fileNames: dict[str, str] = {}  # temporary file to the name that the user knows
        self._observation = None
        self._cancelRequested = False
        self._started = 0.0

    # For derived classes

    def _prepare(self, folder: Path) -> list[str]:
        """Write what the worker needs into ``folder``; return its arguments."""
        raise NotImplementedError

    def _load(self, result: dict) -> str:
        """Take the result into the scene; return the summary. What fails must leave no node."""
        raise NotImplementedError

    def _judge(self, error: EmimError) -> EmimError | None:
        """The worker failed; None when its result counts nevertheless."""
        return error

    # For the Logic

    @property
    def running(self) -> bool:
        return self.state in (PREPARING, RUNNING, LOADING)

    @property
    def cancelled(self) -> bool:
        return self.state == CANCELLED

    @property
    def log(self) -> str:
        return self._worker.log if self._worker is not None else ""

    def start(self, background: bool) -> None:
        """Prepare and start; ``background`` returns at once, and the event loop does the rest.

        Raises:
            EmimError: when the inputs are refused or the worker cannot be started. ``onFinished`` is not
                called then.
        """
        self._started = time.monotonic()
        try:
            parent = getattr(getattr(slicer, "app", None), "temporaryPath", None)
            self._folder = tempfile.TemporaryDirectory(
                prefix="emim-", dir=parent or None, ignore_cleanup_errors=True
            )
            self._worker = Worker(self._prepare(Path(self._folder.name)))
            self._observeScene()
            if background:
                from EMIMLib.job import Job  # needs the event loop

                self._job = Job(self._worker, onEvent=self._say, onFinished=lambda job: self._finish())
                self._job.start()
            else:
                self._worker.start()
            self.state = RUNNING
        except BaseException as error:
            self.state = FAILED
            self.error = error if isinstance(error, EmimError) else None
            self._cleanUp()
            raise

    def cancel(self) -> None:
        """Stop; returns at once, the end follows within about three seconds."""
        self._cancelRequested = True
        if self._worker is not None:
            self._worker.cancel()

    def wait(self) -> None:
        """Keep the application alive until the run has ended.

        Raises:
            EmimError: when it failed.
            Cancelled: when it was cancelled.
        """
        if self._job is not None:
            while self.running and self._job.running:  # the application ends its jobs when it quits
                slicer.app.processEvents()
                time.sleep(0.02)
        elif self.state == RUNNING:
            self._waitForWorker()
            self._finish()
        if self.error is not None:
            raise self.error
        if self.state != FINISHED:
            closed = _("The scene was closed.") if self.sceneClosed else _("Cancelled.")
            raise Cancelled(closed)

    # Inside

    def _waitForWorker(self) -> None:
        app = getattr(slicer, "app", None)
        try:
            self._worker.wait(self._say, app.processEvents if app is not None else None)
        except (EmimError, Cancelled):
            pass  # kept by the worker
        except BaseException:  # a failing callback, Ctrl-C: no process may stay behind
            self._worker.kill()
            while self._worker.running:
                self._worker.poll()
                time.sleep(0.02)
            self.state = CANCELLED
            self._cleanUp()
            raise

    def _finish(self) -> None:
        worker = self._worker
        self.result = worker.result or {}
        self.seconds = time.monotonic() - self._started
        failure = self._judge(worker.error) if worker.error is not None else None
        if self._cancelRequested or worker.cancelled:  # even if it was done just then
            state = CANCELLED
        elif failure is None:
            self.state = LOADING
            state = self._tryToLoad()
        else:
            self.error = self._inUsersWords(failure)
            state = FAILED
        self._cleanUp()
        self.state = state
        if self._onFinished is not None:
            self._onFinished(self)

    def _tryToLoad(self) -> str:
        try:
            self.summary = self._load(self.result)
            return FINISHED
        except EmimError as error:
            self.error = error
        except Exception as error:
            logging.exception("The result could not be taken into the scene")
            self.error = EmimError(
                _("The result could not be taken into the scene: {error}.").format(error=error),
                hint=_("This is a defect of EMIM; please report it with the log."),
            )
        return FAILED

    def _say(self, event: dict) -> None:
        if self._onEvent is not None:
            self._onEvent(event)

    def _status(self, text: str) -> None:
        self._say({"type": "status", "time": time.time(), "text": text})

    def _inUsersWords(self, error: EmimError) -> EmimError:
        """The worker names temporary files; the user knows the volumes that were written to them."""
        name = self._fileNames.get(error.where or "")
        return EmimError(error.what, name, error.hint) if name else error

    def _observeScene(self) -> None:
        scene = slicer.mrmlScene
        self._observation = scene, scene.AddObserver(scene.StartCloseEvent, self._onSceneClose)

    def _onSceneClose(self, caller, event) -> None:
        self.sceneClosed = True
        self.cancel()

    def _cleanUp(self) -> None:
        if self._observation is not None:
            scene, tag = self._observation
            scene.RemoveObserver(tag)
            self._observation = None
        if self._folder is not None:
            self._folder.cleanup()
