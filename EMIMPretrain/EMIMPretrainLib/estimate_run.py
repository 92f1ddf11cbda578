"""What a training run will take on this machine, measured by the core before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _

from .core_task import CoreTask
from .durations import durationText

GIB = 2**30
# A machine whose memory is filled to the brim swaps, and then nothing works any more.
MUCH_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes; None where the core could not tell."""

    seconds: float | None
    secondsPreprocess: float | None
    secondsPerStep: float | None
    steps: int
    memoryBytes: float | None
    memoryTotalBytes: float | None
    diskBytes: float | None
    diskFreeBytes: float | None
    device: str
    cases: int
    preset: str | None

    @staticmethod
    def fromResult(result: dict[str, Any]) -> Estimate:
        return Estimate(
            seconds=result.get("seconds"),
            secondsPreprocess=result.get("seconds_preprocess"),
            secondsPerStep=result.get("seconds_per_step"),
            steps=int(result["steps"]),
            memoryBytes=result.get("memory_bytes"),
            memoryTotalBytes=result.get("memory_total_bytes"),
            diskBytes=result.get("disk_bytes"),
            diskFreeBytes=result.get("disk_free_bytes"),
            device=str(result.get("device", "")),
            cases=int(result.get("cases", 0)),
            preset=result.get("preset"),
        )

    @property
    def text(self) -> str:
        """Time, memory and disk in one or two sentences."""
        time = _("About {time} on {device} (steps: {steps}; cases: {cases})").format(
            time=durationText(self.seconds), device=self.device, steps=self.steps, cases=self.cases
        )
        if self.secondsPreprocess:
            time += _(", of which {time} to prepare them").format(time=durationText(self.secondsPreprocess))
        needs = []
        if self.memoryBytes is not None:
            needs.append(_("{size} of memory").format(size=_size(self.memoryBytes, self.memoryTotalBytes)))
        if self.diskBytes is not None:
            needs.append(
                _("{size} of disk").format(size=_size(self.diskBytes, self.diskFreeBytes, free=True))
            )
        return time + "." + (" " + _("Needs {needs}.").format(needs=_(" and ").join(needs)) if needs else "")

    @property
    def warnings(self) -> list[str]:
        """What speaks against starting."""
        found = []
        if _exceeds(self.memoryBytes, self.memoryTotalBytes, MUCH_OF_MEMORY):
            found.append(_("The memory may not suffice: choose a smaller preset or crop."))
        if _exceeds(self.diskBytes, self.diskFreeBytes, 1.0):
            found.append(_("The disk is too full: free space, or choose other folders for runs and cache."))
        return found


class EstimateRun(CoreTask):
    """Prepares one case and makes a few steps; its answer is :attr:`estimate`.

    Args:
        arguments: of the training command, without ``--out``.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[EstimateRun], None] | None = None,
    ) -> None:
        self.estimate: Estimate | None = None
        super().__init__([*arguments, "--dry-run"], onEvent, onFinished)

    def answer(self) -> Estimate | None:
        return self.estimate

    def read(self, result: dict[str, Any]) -> None:
        self.estimate = Estimate.fromResult(result)


def _exceeds(need: float | None, there: float | None, share: float) -> bool:
    return need is not None and there is not None and need > share * there


def _size(need: float, there: float | None, free: bool = False) -> str:
    text = _("{size:.1f} GiB").format(size=need / GIB)
    if there is None:
        return text
    of = _("{size:.0f} GiB free") if free else _("{size:.0f} GiB there")
    return f"{text} ({of.format(size=there / GIB)})"
