"""Runs jobs, several at a time, until all are done, failed, or a stop is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from emim.errors import Cancelled
from emim.events import Events
from emim.study.jobs import Job

POLL = 0.2  # seconds


class Process(Protocol):
    """A job that is going on."""

    def poll(self) -> int | None:
        """Its exit code, or None while it goes on."""

    def stop(self) -> None:
        """Ask it to save its state and end."""

    def kill(self) -> None:
        """End it now."""


def run_jobs(
    jobs: Sequence[Job],
    slots: int,
    start: Callable[[Job, int], Process],
    events: Events,
    finished: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run the jobs that are not done, in their order as far as what they need is there.

    A failed job does not stop the others, except those that need it.

    Args:
        slots: how many may go on at a time.
        start: begins or continues a job in a slot, 0 to ``slots`` - 1.
        finished: called after each job that has ended.

    Returns:
        Names of the jobs that failed or could not begin.

    Raises:
        Cancelled: on SIGINT or SIGTERM, when all that went on has saved its state.
    """
    waiting = [job for job in jobs if not job.done()]
    done = {job.name for job in jobs} - {job.name for job in waiting}
    failed: list[str] = []
    going: dict[int, tuple[Job, Process]] = {}
    events.progress(len(done), len(jobs), "run")
    try:
        while waiting or going:
            for job in [j for j in waiting if set(j.needs) & set(failed)]:
                waiting.remove(job)
                failed.append(job.name)
            for slot in range(slots):
                ready = next((j for j in waiting if set(j.needs) <= done), None)
                if slot in going or ready is None:
                    continue
                waiting.remove(ready)
                events.status(f"{len(done) + len(failed) + len(going) + 1} of {len(jobs)}: {ready.name}")
                going[slot] = ready, start(ready, slot)
            if not going:
                continue
            time.sleep(POLL)
            for slot, (job, process) in list(going.items()):
                code = process.poll()
                if code is None:
                    continue
                del going[slot]
                if job.done():
                    done.add(job.name)
                else:
                    failed.append(job.name)
                    events.warning(f"{job.name} failed with exit code {code}.", hint="Its log says why.")
                events.progress(len(done) + len(failed), len(jobs), "run", job.name)
                finished()
    except KeyboardInterrupt:
        events.status(f"Stopping {len(going)} runs, which save their state.")
        _stop([process for _, process in going.values()])
        raise Cancelled("Stopped. The same command continues the study.") from None
    except BaseException:
        _stop([process for _, process in going.values()])
        raise
    return failed


def _stop(processes: Sequence[Process]) -> None:
    """Stop and wait; a second interrupt kills."""
    for process in processes:
        process.stop()
    try:
        while any(p.poll() is None for p in processes):
            time.sleep(POLL)
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
