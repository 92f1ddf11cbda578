"""What run folders tell about their runs, read from outside and without changing anything.

A run may be going on in another process, have been killed, or lie in a folder copied from elsewhere,
so every file may be absent or end in the middle; what cannot be read counts as not written yet.
Importing this loads nothing but the standard library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emim.errors import EmimError

COMMANDS = ("pretrain", "finetune")
_LOOK = 0.02  # seconds; looking at a lock takes a fraction of a millisecond
_TAIL = 1 << 16  # bytes at the end of events.jsonl: hundreds of events


@dataclass(frozen=True)
class RunState:
    """One run.

    Attributes:
        folder, name: where it is, and the folder's name.
        command: "pretrain" or "finetune".
        task: of fine-tuning: "segmentation" or "classification"; else None.
        state: "waiting" (nothing done yet), "running", "paused" (stopped or killed; can be resumed),
            "failed" (see ``error``) or "finished".
        step, steps: steps done and planned.
        seconds_left: until the last step, of a run that is training now; else None.
        started, updated: Unix time of the first and the last event.
        verdict: of pre-training (:class:`emim.objectives.verdict.Verdict`) and of classification
            (:func:`emim.evaluation.class_verdict.judge_classes`): ``state``, ``why`` and ``advice``; None
            before the first validation.
        error: ``what``, ``where`` and ``hint`` of a failed run.
        modalities: in the network's order; empty before they are known.
        cases: for training and validation together.
        model: the model package, when fine-tuning has ended.
        init: what a fine-tuning started from; None: from scratch.
    """

    folder: Path
    name: str
    command: str
    task: str | None
    state: str
    step: int
    steps: int
    seconds_left: float | None
    started: float
    updated: float
    verdict: dict[str, Any] | None
    error: dict[str, Any] | None
    modalities: tuple[str, ...]
    cases: int
    model: Path | None
    init: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_run(folder: str | Path) -> RunState:
    """The state of the run in ``folder``.

    Raises:
        EmimError: when it is not a run folder.
    """
    folder = Path(folder).absolute()
    config = _read_json(folder / "config.json")
    if config.get("command") not in COMMANDS:
        raise EmimError("This is not a run folder.", folder, "It has no config.json of a run.")
    running = in_use(folder)
    first, last = _first_and_last_events(folder / "events.jsonl")
    started = first.get("time") or (folder / "config.json").stat().st_mtime
    ending = None if running else _ending(last)
    progress = next((e for e in reversed(last) if e.get("type") == "progress"), {})
    training = running and progress.get("unit") == "step"
    error = ending if ending and ending["type"] == "error" else None
    model, split, train = folder / "model", _read_json(folder / "split.json"), config.get("train")
    return RunState(
        folder=folder,
        name=folder.name,
        command=config["command"],
        # Before there was another task, none was written.
        task=config.get("task", "segmentation") if config["command"] == "finetune" else None,
        state=_state(running, ending, bool(last)),
        step=next((e["done"] for e in reversed(last) if _is_step(e)), 0),
        steps=train.get("steps", 0) if isinstance(train, dict) else 0,
        seconds_left=progress.get("seconds_left") if training else None,
        started=started,
        updated=last[-1].get("time", started) if last else started,
        verdict=_read_json(folder / "report" / "verdict.json") or None,
        error=error and {k: error.get(k) for k in ("what", "where", "hint")},
        modalities=tuple(config.get("modalities") or ()),
        cases=sum(len(split.get(part) or ()) for part in ("training", "validation")),
        model=model if model.is_dir() else None,
        init=config.get("init"),
    )


def list_runs(folder: str | Path) -> list[RunState]:
    """The runs in ``folder``, one or two levels deep, or ``folder`` itself; those begun last come first.

    Raises:
        EmimError: when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EmimError("There is no such folder.", folder, "Give the folder that holds the runs.")
    return sorted(_runs_below(folder, 2), key=lambda run: run.started, reverse=True)


def in_use(folder: str | Path) -> bool:
    """Whether a process is training in the run folder; False where that cannot be told."""
    file = Path(folder) / ".lock"
    if not file.exists():
        return False
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        return False
    try:
        # Long enough for somebody else who only looks, too, to be gone again.
        with FileLock(file).acquire(timeout=_LOOK, poll_interval=_LOOK / 4):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that may only be read, a disk without locks
        return False


class EventTail:
    """Reads the events that a process appends to a file, as they come.

    Args:
        file: ``events.jsonl``, or standard output kept in a file; it may not exist yet.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._position = 0
        self._head = b""

    def read(self) -> list[dict[str, Any]]:
        """The events of the lines completed since the last call; lines that are no events are left out.

        A file that was replaced, as by a run that overwrites another, is read from its beginning.
        """
        try:
            with open(self.file, "rb") as file:
                head = file.read(128)  # has a time in it
                if not head.startswith(self._head) or file.seek(0, os.SEEK_END) < self._position:
                    self._position = 0
                self._head = head
                file.seek(self._position)
                text = file.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._position += len(complete)
        return list(_events(complete))


def _runs_below(folder: Path, levels: int) -> Iterator[RunState]:
    try:
        yield read_run(folder)
        return
    except (EmimError, OSError):
        pass
    if levels == 0:
        return
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return
    for path in inside:
        yield from _runs_below(path, levels - 1)


def _state(running: bool, ending: dict[str, Any] | None, begun: bool) -> str:
    if running:
        return "running"
    if ending:
        return "finished" if ending["type"] == "result" else "failed"
    return "paused" if begun else "waiting"


def _ending(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The result or error that ended a run, or None where it was stopped or killed."""
    for event in reversed(events):
        kind = event.get("type")
        if kind in ("result", "error"):
            return event
        if kind in ("progress", "metric"):
            return None
    return None


def _is_step(event: dict[str, Any]) -> bool:
    return event.get("type") == "progress" and event.get("unit") == "step" and "done" in event


def _first_and_last_events(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first event, and at least all from the last step on."""
    try:
        with open(file, "rb") as stream:
            first = next(_events(stream.readline()), {})
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL))
            last = list(_events(stream.read()))
            if size > _TAIL and not any(map(_is_step, last)):
                stream.seek(0)
                last = list(_events(stream.read()))
    except OSError:
        return {}, []
    return first, last


def _events(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.decode("utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:  # cut short, or no event
            continue
        if isinstance(event, dict) and "type" in event:
            yield event


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
