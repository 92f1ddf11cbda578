"""Jobs as processes of ``python -m emim``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emim.errors import EXIT_SOME_FAILED
from emim.study.jobs import Job

GOES_ON = (0, EXIT_SOME_FAILED)  # the next command counts the cases that failed


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runner:
    """Starts jobs.

    Args:
        log: the file of a job's log, by its name.
        jobs: how many go on at a time; they share the cores equally.
        gpus: how many GPUs they take turns on; 0: the jobs choose themselves.
    """

    def __init__(self, log, jobs: int, gpus: int = 0) -> None:
        self.log, self.gpus = log, gpus
        self.threads = max(1, cores() // jobs)

    def __call__(self, job: Job, slot: int) -> Running:
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
            environment[name] = str(self.threads)
        if self.gpus > 1:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(self.gpus)[slot % self.gpus]
        return Running(job, self.log(job.name), environment)


class Running:
    """The commands of a job, one after the other, in processes that end when this one does."""

    def __init__(self, job: Job, log: Path, environment: dict[str, str]) -> None:
        self._left = list(job.next_commands())
        self._log, self._environment = log, environment
        self._log.unlink(missing_ok=True)
        self._process = self._next()

    def poll(self) -> int | None:
        code = self._process.poll()
        if code in GOES_ON and self._left:
            self._process = self._next()
            return None
        return code

    def stop(self) -> None:
        self._left.clear()
        if self._process.poll() is None:
            self._process.stdin.close()

    def kill(self) -> None:
        self._left.clear()
        self._process.kill()

    def _next(self) -> subprocess.Popen:
        command, *rest = self._left.pop(0)
        # Ctrl-C in a terminal reaches every process of its group; ours are to be stopped once, by us.
        alone = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            if os.name == "nt"
            else {"start_new_session": True}
        )
        with open(self._log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "emim", command, "--stop-with-stdin", *rest],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment,
                **alone,
            )
        process.stdin.write(b"\n")
        process.stdin.flush()
        return process


def _visible(gpus: int) -> list[str]:
    """The names of the GPUs that this process may use."""
    named = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n]
    return named or [str(i) for i in range(gpus)]
