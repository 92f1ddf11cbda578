"""What a run folder says, read so that nothing in it has to be there or be complete.

A report is also wanted of a run that has just started, is still writing, or was killed, so every
file may be absent or end in the middle; what cannot be read counts as not written yet.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class RunRecord:
    """Everything known about one run; what is unknown is empty.

    Attributes:
        metrics: split ("train", "validation") to step to the values last reported for that step;
            a resumed run repeats steps, and the repetition replaces the first report.
        repeated: how many steps were trained again after the run had been interrupted.
        statuses, warnings, errors: events of these types, in order.
        times: Unix time of the first and the last event, or None.
        step_times: (time, step) of each training metric as it came.
        progress: (done, total) of the last progress counted in steps, or None.
        result: the last event of the run is its result.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    cohort: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    collapse_lines: dict[str, Any] = field(default_factory=dict)
    transfer: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] = field(default_factory=dict)
    preview: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    repeated: int = 0
    statuses: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    times: tuple[float, float] | None = None
    step_times: list[tuple[float, int]] = field(default_factory=list)
    progress: tuple[int, int] | None = None
    result: bool = False
    last_event: str = ""

    @property
    def command(self) -> str:
        """``pretrain`` or ``finetune``."""
        if self.config.get("command") in ("pretrain", "finetune"):
            return self.config["command"]
        tuned = self.transfer or any("dice" in v for v in self.metrics.get("validation", {}).values())
        return "finetune" if tuned else "pretrain"

    @property
    def contrastive(self) -> bool:
        """Whether it is pre-training by contrast, in which nothing is masked and reconstructed."""
        return self.command == "pretrain" and self.config.get("objective") == "contrastive"

    @property
    def task(self) -> str:
        """Of fine-tuning: ``segmentation`` or ``classification``."""
        return "classification" if self.config.get("task") == "classification" else "segmentation"

    @property
    def steps_planned(self) -> int | None:
        steps = _group(self.config, "train").get("steps")
        return int(steps) if is_number(steps) else None

    @property
    def steps_done(self) -> int:
        seen = [max(by_step) for by_step in self.metrics.values() if by_step]
        return max([*seen, self.progress[0] if self.progress else 0])

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``stopped`` (an error ended it) or ``finished``."""
        if self.last_event == "error":
            return "stopped"
        if self.result or (self.steps_planned is not None and self.steps_done >= self.steps_planned):
            return "finished"
        return "running" if self.last_event else "waiting"

    @property
    def modalities(self) -> list[str]:
        names = self.preview.get("modalities")
        if names is None:
            names = self.cohort.get("modalities", [])
        return [str(n) for n in names] if isinstance(names, (list, tuple, np.ndarray)) else []

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm along (Z, Y, X) of the working grid; 1 mm where it is not recorded."""
        spacing = _group(self.config, "preprocess").get("spacing")
        if isinstance(spacing, list) and len(spacing) == 3 and all(is_number(s) and s > 0 for s in spacing):
            return float(spacing[2]), float(spacing[1]), float(spacing[0])
        return 1.0, 1.0, 1.0

    def curve(self, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of one metric, in order of the steps, without the steps that lack it."""
        return _arrays((step, values.get(name)) for step, values in self.metrics.get(split, {}).items())

    def curves(self, split: str, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The parts of a metric that is a list (named "0", "1", …) or a table (named by its keys)."""
        parts: dict[str, list[tuple[int, Any]]] = {}
        for step, values in self.metrics.get(split, {}).items():
            value = values.get(name)
            if isinstance(value, list):
                value = {str(i): v for i, v in enumerate(value)}
            for key, v in (value if isinstance(value, dict) else {}).items():
                parts.setdefault(str(key), []).append((step, v))
        return {key: curve for key, pairs in parts.items() if len((curve := _arrays(pairs))[0])}


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number (and not a truth value)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def read_run(folder: str | Path) -> RunRecord:
    """Read whatever of the run in ``folder`` is readable."""
    folder = Path(folder)
    names = ("config", "environment", "cohort", "split", "collapse_lines", "transfer")
    record = RunRecord(folder, **{name: _read_json(folder / f"{name}.json") for name in names})
    record.verdict = _read_json(folder / "report" / "verdict.json")
    record.preview = _read_arrays(folder / "report" / "preview.npz")
    for event in _read_events(folder / "events.jsonl"):
        _add(record, event)
    return record


def _add(record: RunRecord, event: dict[str, Any]) -> None:
    kind, time = event.get("type"), event.get("time")
    record.last_event = str(kind)
    record.result = kind == "result"
    if is_number(time):
        record.times = (record.times[0] if record.times else time, time)
    if kind == "metric" and is_number(event.get("step")):
        step = int(event["step"])
        by_step = record.metrics.setdefault(str(event.get("split")), {})
        if event.get("split") == "train":
            record.repeated += step in by_step
            if is_number(time):
                record.step_times.append((time, step))
        by_step[step] = event
    elif kind == "progress" and event.get("unit") == "step":
        if is_number(event.get("done")) and is_number(event.get("total")):
            record.progress = int(event["done"]), int(event["total"])
    elif kind == "status":
        record.statuses.append(event)
    elif kind == "warning":
        record.warnings.append(event)
    elif kind == "error":
        record.errors.append(event)


def _read_events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        if isinstance(event, dict):
            yield event


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            # Sums of half precision overflow.
            return {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in arrays.items()}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}


def _arrays(pairs: Any) -> tuple[np.ndarray, np.ndarray]:
    kept = sorted((step, float(value)) for step, value in pairs if is_number(value))
    return np.array([k[0] for k in kept]), np.array([k[1] for k in kept])


def _group(config: dict[str, Any], name: str) -> dict[str, Any]:
    group = config.get(name)
    return group if isinstance(group, dict) else {}
