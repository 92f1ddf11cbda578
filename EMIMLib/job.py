"""A worker followed by a timer of the event loop, so that the application is never blocked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import qt
import slicer

from EMIMLib.error_display import showError
from EMIMLib.worker import Worker

INTERVAL = 100  # ms


class Job:
    """Runs a :class:`Worker` in the background.

    Args:
        worker: not started yet.
        onEvent: called with every event (see :mod:`emim.events`).
        onFinished: called with the job once, after the last event.
    """

    _alive: set[Job] = set()
    _connected = False  # to the end of the application

    def __init__(
        self,
        worker: Worker,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[Job], None] | None = None,
    ) -> None:
        self.worker = worker
        self._onEvent = onEvent
        self._onFinished = onFinished
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL)
        self._timer.connect("timeout()", self._poll)
        self._polling = False
        self._finished = False
        self._eventFailed = False

    def start(self) -> None:
        """Start the worker.

        Raises:
            EmimError: when it cannot be started; ``onFinished`` is not called then.
        """
        if not Job._connected:
            slicer.app.connect("aboutToQuit()", Job.stopAll)
            Job._connected = True
        self.worker.start()
        Job._alive.add(self)
        self._timer.start()

    def cancel(self, grace: float = 2.0) -> None:
        """Ask the worker to stop; it is killed after ``grace`` seconds. Returns at once."""
        self.worker.cancel(grace)

    def abandon(self) -> None:
        """Cancel it and tell nobody any more: for a panel that goes away."""
        self._onEvent = self._onFinished = None
        self.cancel()

    @property
    def running(self) -> bool:
        return self in Job._alive

    @property
    def result(self) -> dict | None:
        return self.worker.result

    @property
    def error(self):
        return self.worker.error

    @property
    def cancelled(self) -> bool:
        return self.worker.cancelled

    def waitForFinished(self) -> dict:
        """Keep the application alive until the job is finished; return the result.

        Raises:
            EmimError: when the worker failed.
            Cancelled: when it was stopped.
        """
        while self.running:
            slicer.app.processEvents()
            self._poll()
            time.sleep(0.02)
        return self.worker.outcome()

    @staticmethod
    def stopAll() -> None:
        """Stop every worker that does not survive Slicer; called when the application quits."""
        jobs = [job for job in Job._alive if not job.worker.survivesSlicer]
        for job in list(Job._alive):
            job._timer.stop()  # the panels that the callbacks would change are going away
        for job in jobs:
            job.worker.cancel(grace=1.5)
        while any(job.worker.running for job in jobs):
            for job in jobs:
                job.worker.poll()
            time.sleep(0.05)
        Job._alive.clear()

    def _poll(self) -> None:
        if self._polling or self._finished:  # a callback may run the event loop itself
            return
        self._polling = True
        try:
            for event in self.worker.poll():
                self._tell(event)
        finally:
            self._polling = False
        if not self.worker.running:
            self._finish()

    def _tell(self, event: dict) -> None:
        if self._onEvent is None:
            return
        try:
            self._onEvent(event)
        except Exception as error:
            logging.exception("A callback failed for the event %s", event.get("type"))
            if not self._eventFailed:  # once is enough; events come by the hundred
                self._eventFailed = True
                showError(error)

    def _finish(self) -> None:
        self._finished = True
        self._timer.stop()
        Job._alive.discard(self)
        if self._onFinished is None:
            return
        try:
            self._onFinished(self)
        except Exception as error:
            logging.exception("A callback failed at the end of a job")
            showError(error, self.worker.log)
