"""A short command of the core that runs beside Slicer and ends with an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from EMIMLib import EmimError


class CoreTask:
    """One command, from its start to its answer. Ends with Slicer.

    Args:
        arguments: of ``emim``, without ``--json``.
        onEvent: called with every event of the command.
        onFinished: called once with this task, when it has ended in whatever way.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[CoreTask], None] | None = None,
    ) -> None:
        from EMIMLib.job import Job
        from EMIMLib.worker import Worker

        self._onFinished = onFinished
        self._error: EmimError | None = None
        self._job = Job(Worker(list(arguments)), onEvent, self._finished)

    def start(self) -> None:
        """Start the command.

        Raises:
            EmimError: when it cannot be started.
        """
        try:
            self._job.start()
        except EmimError:
            self.clean()
            raise

    def cancel(self) -> None:
        """Stop the command; nothing it made is kept. Returns at once."""
        self._job.cancel()

    def abandon(self) -> None:
        """Stop the command, and call nobody back any more."""
        self._job.abandon()
        self.clean()

    @property
    def running(self) -> bool:
        return self._job.running

    @property
    def cancelled(self) -> bool:
        return self._job.cancelled

    @property
    def error(self) -> EmimError | None:
        """Why it failed, or None."""
        return self._error or self._job.error

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._job.worker.log

    def waitForFinished(self) -> Any:
        """Block, while the window stays alive, until the command has ended.

        Returns:
            What :meth:`answer` gives.

        Raises:
            EmimError: when it failed.
            Cancelled: when it was cancelled.
        """
        try:
            self._job.waitForFinished()
        except EmimError:
            if self.error is not None:
                raise
        if self._error:
            raise self._error
        return self.answer()

    def answer(self) -> Any:
        """What the caller asked for; here None."""
        return None

    def read(self, result: dict[str, Any]) -> None:
        """Take the answer from the fields of the result event."""

    def clean(self) -> None:
        """Remove what the command left for :meth:`read`; called at its end, also when it failed."""

    def _finished(self, job: Any) -> None:
        if job.result is not None and self.error is None and not job.cancelled:
            try:
                self.read(job.result)
            except Exception as error:  # whatever it is, who waits for the end must hear of it
                self._error = EmimError(
                    f"The answer of the core is not understood ({type(error).__name__}: {error}).",
                    hint="Modules and core are of different versions: install the extension again.",
                )
        self.clean()
        if self._onFinished:
            self._onFinished(self)
