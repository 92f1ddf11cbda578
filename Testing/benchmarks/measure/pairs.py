"""Compare two commands fairly: alternating runs, medians, and the ratio of each pair."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Measured:
    """Wall times (s) and peak memory (bytes) of the runs of one command."""

    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_memory(self) -> float:
        return statistics.median(self.memory)


def alternate(
    ours: Sequence[str], theirs: Sequence[str], pairs: int, cwd: Path | None = None
) -> tuple[Measured, Measured]:
    """Run both commands ``pairs`` times in the folder ``cwd``, changing which comes first."""
    measured = Measured(), Measured()
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            seconds, memory = run((ours, theirs)[which], cwd)
            measured[which].seconds.append(seconds)
            measured[which].memory.append(memory)
            print(f"pair {pair + 1} {'ours' if which == 0 else 'theirs'}: {seconds:.1f} s", file=sys.stderr)
    return measured


def run(command: Sequence[str], cwd: Path | None = None) -> tuple[float, int]:
    """Wall time and peak resident memory, bytes, of a process (Linux).

    Looked up while it runs: what the system tells at its end includes the memory of this process.

    Raises:
        RuntimeError: with what the command printed, when it fails.
    """
    begun, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmHWM:" in status:  # not while it ends
                peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read()}")
    return seconds, peak


def ratio(ours: Measured, theirs: Measured) -> tuple[float, float, float]:
    """Median, smallest and largest of theirs / ours in seconds, pair by pair."""
    ratios = [t / o for o, t in zip(ours.seconds, theirs.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
