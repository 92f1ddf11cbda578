"""Run a command of ``emim`` in a process of its own and follow what it says.

No Qt and no Slicer here: :mod:`EMIMLib.job` adds the event loop. The worker writes to files, which are read
as they grow: there is no pipe that could fill up, and a training run goes on when Slicer ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emim.errors import Cancelled, EmimError
from emim.events import ARGUMENTS
from EMIMLib.interpreter import pythonExecutable, workerEnvironment
from EMIMLib.job_folder import newJobFolder
from EMIMLib.output_tail import OutputTail
from EMIMLib.process_tree import describeExit, killTree, startOptions

DONE, CANCELLED = 0, 3  # exit codes of emim
LOG_LIMIT = 400_000  # characters kept of what was printed
# Slicer's launcher stands between: what ends its Python by a signal is told so, with an exit code of 1.
LAUNCHER_LOST_IT = "exit abnormally - Report the problem"
PYTHON_CRASH = re.compile("Fatal Python error|Windows fatal exception")  # of the fault handler
PYTHON_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*", re.MULTILINE)


class Worker:
    """One run of ``python -m emim …``.

    Args:
        arguments: the command and its options, such as ``["segment", "--model", …]``.
        cancelFile: file that the command takes as the wish to stop (``cancel`` in a run folder).
        survivesSlicer: go on when Slicer ends; otherwise the worker stops by itself then.
        environment: variables to add to the worker's environment.

    Attributes:
        result: fields of the result event, or None.
        exitCode: of the process, or None while it runs.
        cancelled: it was asked to stop, or stopped on purpose, before it was done.
        error: why it failed, or None.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cancelFile: Path | None = None,
        survivesSlicer: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.arguments = [str(a) for a in arguments]
        self.survivesSlicer = survivesSlicer
        self.result: dict | None = None
        self.exitCode: int | None = None
        self.cancelled = False
        self.error: EmimError | None = None
        self._cancelFile = None if cancelFile is None else Path(cancelFile)
        self._environment = environment or {}
        self._process: subprocess.Popen | None = None
        self._folder: Path | None = None
        self._tails: list[OutputTail] = []
        self._log: list[str] = []
        self._logLength = 0
        self._reported: EmimError | None = None
        self._cancelRequested = False
        self._killAt: float | None = None

    def start(self) -> None:
        """Start the process.

        Raises:
            EmimError: when it cannot be started.
        """
        if self._process is not None:
            raise RuntimeError("a worker runs once")
        options = ["--json"]
        if not self.survivesSlicer:  # PythonSlicer, a launcher, may not pass standard input on
            options += ["--stop-with-stdin", "--stop-with-process", str(os.getpid())]
        command, inEnvironment = [pythonExecutable(), "-m", "emim"], {}
        if all(argument.isascii() for argument in self.arguments):
            command += [*self.arguments, *options]
        else:  # Slicer's launcher garbled them on Windows until 5.12
            inEnvironment[ARGUMENTS] = json.dumps([*self.arguments, *options])
        self._folder = newJobFolder(self.arguments[0])
        output, errors = self._folder / "output.txt", self._folder / "errors.txt"
        try:
            with open(output, "wb") as out, open(errors, "wb") as err:
                self._process = subprocess.Popen(
                    command,
                    env={**workerEnvironment(), **self._environment, **inEnvironment},
                    stdin=subprocess.DEVNULL if self.survivesSlicer else subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    **startOptions(),
                )
        except (OSError, ValueError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EmimError(
                f"The worker could not be started: {error}.",
                command[0],
                "Check that Slicer is installed completely and may start programs.",
            ) from error
        self._tails = [OutputTail(errors), OutputTail(output)]
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self._process.stdin.write(b"\n")  # tells that this input will be closed to stop it
                self._process.stdin.flush()

    @property
    def running(self) -> bool:
        """Whether it was started and its end has not been seen by :meth:`poll` yet."""
        return self._process is not None and self.exitCode is None

    @property
    def log(self) -> str:
        """What it printed so far; of very much only the end."""
        return "\n".join(self._log)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def poll(self) -> list[dict]:
        """The events since the last call; ends a worker that does not stop in time. Never blocks.

        Text that is no event comes as ``{"type": "log", "text": …}``.
        """
        if not self.running:
            return []
        if self._cancelRequested:
            self._touchCancelFile()  # again: the run folder may have come since
        if self._killAt is not None and time.monotonic() >= self._killAt:
            killTree(self._process)
        code = self._process.poll()  # before reading, so that nothing written before the end is missed
        events = []
        for tail in self._tails:
            events += self._parse(tail.read(final=code is not None))
        if code is not None and all(tail.drained for tail in self._tails):
            self._finish(code)
        return events

    def cancel(self, grace: float = 2.0) -> None:
        """Ask it to stop; whatever still runs after ``grace`` seconds is killed by :meth:`poll`."""
        if not self.running:
            return
        self._cancelRequested = True
        killAt = time.monotonic() + grace
        self._killAt = killAt if self._killAt is None else min(killAt, self._killAt)
        self._touchCancelFile()
        self._closeInput()

    def kill(self) -> None:
        """End it and everything it started at once; :meth:`poll` sees the end."""
        if self.running:
            self._cancelRequested = True
            killTree(self._process)

    def wait(
        self,
        onEvent: Callable[[dict], None] | None = None,
        pump: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> dict:
        """Block until it ends; return its result.

        Args:
            onEvent: called with every event.
            pump: called again and again meanwhile, such as ``slicer.app.processEvents``.
            timeout: seconds after which it is cancelled.

        Raises:
            EmimError: when it failed, or took too long.
            Cancelled: when it was stopped.
        """
        if self._process is None:
            self.start()
        end = None if timeout is None else time.monotonic() + timeout
        late = False
        while self.running:
            for event in self.poll():
                if onEvent is not None:
                    onEvent(event)
            if pump is not None:
                pump()
            if end is not None and not late and time.monotonic() > end:
                late = True
                self.cancel()
            if self.running:
                time.sleep(0.05)
        if late and self.result is None:
            raise EmimError(f"The worker did not end within {timeout:g} s and was stopped.", self._where())
        return self.outcome()

    def outcome(self) -> dict:
        """The result of a worker that has ended.

        Raises:
            EmimError: when it failed.
            Cancelled: when it was stopped.
        """
        if self.error is not None:
            raise self.error
        if self.cancelled:
            raise Cancelled("Stopped.")
        return self.result or {}

    def _parse(self, lines: list[str]) -> list[dict]:
        events: list[dict] = []
        for isText, group in itertools.groupby(map(_event, lines), lambda e: e["type"] == "log"):
            found = list(group)
            if isText:  # one event for a flood of lines
                found = [{"type": "log", "text": "\n".join(e["text"] for e in found)}]
            for event in found:
                self._take(event)
            events += found
        return events

    def _take(self, event: dict) -> None:
        kind = event["type"]
        if kind == "result":
            self.result = {k: v for k, v in event.items() if k not in ("v", "type", "time")}
        elif kind == "error":
            what = str(event.get("what") or "The worker failed.")
            self._reported = EmimError(what, event.get("where"), event.get("hint"))
            self._remember(str(self._reported))
        elif kind == "warning":
            warning = EmimError(str(event.get("what")), event.get("where"), event.get("hint"))
            self._remember(f"warning: {warning}")
        elif kind in ("status", "log"):
            self._remember(str(event.get("text", "")))

    def _remember(self, text: str) -> None:
        self._log.append(text)
        self._logLength += len(text) + 1
        if self._logLength > 2 * LOG_LIMIT:
            kept = self.log[-LOG_LIMIT:]
            self._log, self._logLength = ["[…]", kept], len(kept) + 4

    def _finish(self, code: int) -> None:
        self._closeInput()
        killTree(self._process)  # children that outlived it
        self.exitCode = code
        finished = code == DONE and self.result is not None
        self.cancelled = not finished and (self._cancelRequested or code == CANCELLED)
        if finished or self.cancelled:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self.error = self._reported or self._unreported(code)

    def _unreported(self, code: int) -> EmimError:
        """The error of a worker that did not say itself what went wrong."""
        if code == DONE:
            what, hint = "The worker ended without a result.", "The log shows what it printed."
        elif self.result is not None:
            what, hint = "Not everything could be done.", "The log and the result name what failed."
        else:
            how = describeExit(code)
            if LAUNCHER_LOST_IT in self.log:
                how = "crashed" if PYTHON_CRASH.search(self.log) else "was killed"
            what = f"The worker {how}."
            hint = "The log shows what it printed."
            if how.startswith("was killed"):
                hint = "Most often memory ran out: close other programs, or use smaller settings."
            elif found := PYTHON_ERROR.findall(self.log):
                what = f"The worker {how}: {found[-1][:300]}"
        return EmimError(what, self._where(), hint)

    def _where(self) -> str:
        return str(self._folder)

    def _touchCancelFile(self) -> None:
        if self._cancelFile is not None:
            with contextlib.suppress(OSError):  # no run folder yet; the kill follows
                self._cancelFile.touch()

    def _closeInput(self) -> None:
        with contextlib.suppress(OSError):  # it ended first
            if self._process.stdin is not None:
                self._process.stdin.close()


def _event(line: str) -> dict:
    """The event in a line of output; a line without one is an event of type "log"."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            return event
    return {"type": "log", "text": line}
