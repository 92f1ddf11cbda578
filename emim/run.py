"""The run folder: one folder holds everything about one training run.

======================= ======================================================================
``config.json``         every setting (:mod:`emim.config`), ``version`` and ``command``
``environment.json``    versions and machine
``cohort.json``         the cohort and what was found wrong with it
``split.json``          ids for ``training`` and ``validation``, and those ``excluded``
``collapse_lines.json`` of the training cohort (pre-training)
``transfer.json``       what became of the initial weights (fine-tuning)
``events.jsonl``        events (:mod:`emim.events`)
``log.txt``             the traceback of an unexpected failure
``checkpoints/``        ``last.pt`` and, for fine-tuning, ``best.pt``
``report/``             ``report.html``, pictures, verdict
``model/``              the model package, when fine-tuning has ended
``cancel``              put here by anyone who wants the run to stop at its next step
======================= ======================================================================
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from emim import __version__
from emim.config import CONFIG_VERSION, from_dict, to_dict
from emim.errors import EmimError
from emim.events import Events, to_json


def write_json(file: Path, data: Any) -> None:
    """Write ``data`` so that a reader finds either the old file or the whole new one."""
    write_atomically(file, json.dumps(to_json(data), indent=1, ensure_ascii=False).encode())


def write_atomically(file: Path, content: bytes) -> None:
    part = file.with_name(file.name + ".part")
    with open(part, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, file)


CONTENT = (
    "config.json",
    "environment.json",
    "cohort.json",
    "split.json",
    "collapse_lines.json",
    "transfer.json",
    "events.jsonl",
    "log.txt",
    "checkpoints",
    "report",
    "model",
    "cancel",
)
COMMANDS = ("pretrain", "finetune")


class RunFolder:
    """A run folder that this process holds; nobody else can train in it meanwhile.

    Args:
        path: the folder.
        command: "pretrain" or "finetune".
        config: settings of a new run; with ``resume`` they are read from the folder instead.
        resume: continue the run in ``path``.
        overwrite: remove what an earlier run left in ``path``.
        events: also recorded in the folder from now on.

    Raises:
        EmimError: when the folder holds anything and neither flag is given, when there is nothing to
            resume, when another process uses it, or when its run is of another kind.
    """

    def __init__(
        self,
        path: str | Path,
        command: str,
        config: Any,
        *,
        resume: bool = False,
        overwrite: bool = False,
        events: Events,
    ) -> None:
        self.path = Path(path).absolute()
        self.events = events
        if resume and not self.config_file.is_file():
            raise EmimError("There is no run to resume.", self.path, "Start it without --resume.")
        if not resume:
            self._refuse_existing(overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise EmimError(
                "Another process is training in this run folder.",
                self.path,
                "Wait for it, or cancel it by putting a file named `cancel` there.",
            ) from None
        if not resume and overwrite:
            self._empty()
        for folder in (self.checkpoints, self.report):
            folder.mkdir(exist_ok=True)
        if resume:
            self.config = read_config(self.path, command, type(config))
            self.cancel_file.unlink(missing_ok=True)
        else:
            self.config = config
            self.save_config(command, config)
        write_json(self.path / "environment.json", environment())
        events.record_to(self.path / "events.jsonl")

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def cancel_file(self) -> Path:
        return self.path / "cancel"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def save_config(self, command: str, config: Any) -> None:
        self.config = config
        write_json(self.config_file, {"version": CONFIG_VERSION, "command": command, **to_dict(config)})

    def cancel_requested(self) -> bool:
        return self.cancel_file.exists()

    def save_checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write ``checkpoints/name`` so that a crash leaves either the old or the new one."""
        import torch

        part = self.checkpoints / (name + ".part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.checkpoints / name)

    def load_checkpoint(self, name: str) -> dict[str, Any] | None:
        """The checkpoint on the CPU, or None when the run was stopped before its first."""
        path = self.checkpoints / name
        return load_tensors(path) if path.exists() else None

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _refuse_existing(self, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise EmimError("The run folder is a file.", self.path, "Choose another --out.")
        content = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
        if content and overwrite and not (set(content) <= {".lock"} or _is_run(self.path)):
            raise EmimError(
                "The folder is not a run folder, so it is not overwritten.",
                self.path,
                "Choose another --out.",
            )
        if set(content) - {".lock"} and not overwrite:
            raise EmimError(
                "The folder exists already.",
                self.path,
                "Continue the run with --resume, replace it with --overwrite, or choose another --out.",
            )

    def _empty(self) -> None:
        """Remove what a run leaves; whatever else somebody put there stays."""
        for name in CONTENT:
            entry = self.path / name
            if not entry.exists():
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _is_run(path: Path) -> bool:
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))["command"] in COMMANDS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_config(path: str | Path, command: str, kind: type) -> Any:
    """The settings of the run in folder ``path``.

    Raises:
        EmimError: when ``path`` is no run folder of ``command``, or of a newer version.
    """
    file = Path(path) / "config.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        version, found = data.pop("version"), data.pop("command")
    except (OSError, ValueError, KeyError, AttributeError):
        raise EmimError("This is not a run folder.", path, "It has no readable config.json.") from None
    if version > CONFIG_VERSION:
        raise EmimError("The run was made by a newer EMIM.", path, "Update EMIM.")
    if found != command:
        raise EmimError(f"This is a {found} run, not a {command} run.", path)
    return from_dict(kind, data)


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values; never executes code from it.

    Raises:
        EmimError: when the file is missing, damaged, or holds anything else.
    """
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EmimError("There is no such file.", path) from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise EmimError(
            "The file of weights cannot be read.",
            path,
            f"It is damaged or holds more than weights ({str(error).splitlines()[0]}).",
        ) from error


def environment() -> dict[str, Any]:
    """Versions and hardware, for a report."""
    import importlib.metadata as metadata

    versions = {}
    for name in ("torch", "monai", "SimpleITK", "nibabel", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    found = {
        "emim": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "command": " ".join(sys.argv),
        **versions,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
