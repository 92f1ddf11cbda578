"""The numbers of a training run, collected from its events as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Steps over which the training loss is averaged, as a share of those recorded.
SMOOTHING = 0.04


class RunMetrics:
    """What the events of a run say, in order of steps.

    Attributes:
        training, validation: metric events; a repeated step (after a resume) replaces what came later.
        lines: collapse lines by name, of pre-training.
        done, total, unit: progress of what the run does now; ``total`` 0: unknown.
        secondsLeft: of that, or None.
        steps: steps that are planned in all; 0: not known yet.
        status: the latest status text.
        warnings: texts of warnings.
        preview: the latest event about volumes to look at, or None.
        result: fields of the result event, or None.
    """

    def __init__(self) -> None:
        self.training: list[dict[str, Any]] = []
        self.validation: list[dict[str, Any]] = []
        self.lines: dict[str, float] = {}
        self.done, self.total, self.unit = 0, 0, ""
        self.secondsLeft: float | None = None
        self.steps = 0
        self.status = ""
        self.warnings: list[str] = []
        self.preview: dict[str, Any] | None = None
        self.result: dict[str, Any] | None = None

    def add(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event.get("type")
        if kind == "metric":
            self._addMetric(event)
        elif kind == "progress":
            self.done, self.total, self.unit = event["done"], event["total"], event["unit"]
            self.secondsLeft = event.get("seconds_left")
            if self.unit == "step":
                self.steps = self.total
        elif kind == "status":
            self.status = event.get("text", "")
        elif kind == "warning":
            self.warnings.append(" ".join(str(event[k]) for k in ("what", "hint") if event.get(k)))
        elif kind == "preview" and str(event.get("kind", "")).endswith("_volumes"):
            self.preview = event
        elif kind == "result":
            self.result = event

    def readLines(self, runFolder: Path) -> None:
        """Read the collapse lines of the run, if it has computed them by now."""
        if self.lines:
            return
        try:
            values = json.loads((runFolder / "collapse_lines.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self.lines = {name: v for name, v in values.items() if isinstance(v, (int, float))}

    @property
    def share(self) -> float:
        """Share of the planned steps that is done."""
        last = max((m[-1]["step"] for m in (self.training, self.validation) if m), default=0)
        return last / self.steps if self.steps else 0.0

    @property
    def structures(self) -> list[str]:
        """Names of the structures with a validation Dice."""
        return list(self.validation[-1].get("dice_per_structure", {})) if self.validation else []

    def series(self, split: str, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric where it is a number; ``split`` "training" or "validation"."""
        events = self.training if split == "training" else self.validation
        known = [(e["step"], e[name]) for e in events if isNumber(e.get(name))]
        return [s for s, _value in known], [v for _step, v in known]

    def _addMetric(self, event: dict[str, Any]) -> None:
        events = self.validation if event.get("split") == "validation" else self.training
        while events and events[-1]["step"] >= event["step"]:
            events.pop()
        events.append(event)


def isNumber(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def smooth(values: Sequence[float]) -> list[float]:
    """A running average that forgets exponentially and starts unbiased, over :data:`SMOOTHING` of all."""
    keep = 1 - 1 / max(1.0, SMOOTHING * len(values))
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight if weight else value)
    return smoothed
