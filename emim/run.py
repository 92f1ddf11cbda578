"""The run folder: one folder holds everything about one training run.

======================= ======================================================================
``config.json``         every setting (:mod:`emim.config`), ``version`` and ``command``
``environment.json``    versions, machine, and the process that trained last
``cohort.json``         the cohort and what was found wrong with it, or had changed when the run was resumed
``split.json``          ids for ``training`` and ``validation``, those ``excluded``, and ``unlabelled`` ones
``classes.json``        names of the classes and the class of each case (classification)
``collapse_lines.json`` of the training cohort (pre-training)
``transfer.json``       what became of the initial weights, and what they had learned from (fine-tuning)
``events.jsonl``        events (:mod:`emim.events`)
``log.txt``             the traceback of an unexpected failure
``checkpoints/``        ``last.pt`` and, for fine-tuning, ``best.pt``
``report/``             ``report.html``, pictures, verdict
``preview/``            volumes of a validation case (:mod:`emim.training.preview`)
``model/``              the model package, when fine-tuning has ended
``evaluation/``         a folder for each judgement of the model on labelled cases, from EMIM Pretrain
``cancel``              put here by anyone who wants the run to stop at its next step
======================= ======================================================================
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim import __version__, stopping
from emim.config import CONFIG_VERSION, from_dict, to_dict, upgrade
from emim.errors import Cancelled, EmimError
from emim.events import Events, to_json
from emim.folder_content import folder_content
from emim.machine.distributed import launched_rank
from emim.replace import replace_file
from emim.run_state import COMMANDS

if TYPE_CHECKING:
    import torch


def write_json(file: Path, data: Any) -> None:
    """Write ``data`` so that a reader finds either the old file or the whole new one.

    Of paths that are not UTF-8 the backslashes are JSON's own: they are read back as they were.
    """
    text = json.dumps(to_json(data), indent=1, ensure_ascii=False)
    write_atomically(file, text.encode(errors="backslashreplace"))


def write_atomically(file: Path, content: bytes) -> None:
    part = file.with_name(file.name + ".part")
    with open(part, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    replace_file(part, file)


CHECKPOINT_PATIENCE = 30.0  # seconds: hours of training hang on it
CONTENT = (
    "config.json",
    "environment.json",
    "cohort.json",
    "split.json",
    "classes.json",
    "collapse_lines.json",
    "transfer.json",
    "events.jsonl",
    "log.txt",
    "checkpoints",
    "report",
    "preview",
    "model",
    "evaluation",
    "cancel",
)


class RunFolder:
    """A run folder that this process holds; nobody else can train in it meanwhile.

    In a distributed run the first rank holds it. For the others it is but a name: they neither read nor write
    there, and need not be able to.

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
        self.command = command
        self.events = events
        self.leads = launched_rank() == 0
        self.config = config
        if self.leads:
            self._open(config, resume, overwrite)

    def _open(self, config: Any, resume: bool, overwrite: bool) -> None:
        if resume and not self.config_file.is_file():
            raise EmimError("There is no run to resume.", self.path, "Start it without --resume.")
        if resume:
            _refuse_earlier_version(self.path, self.config_file)
        else:
            refuse_existing(self.path, overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        if not resume and overwrite:
            self._empty()
        for folder in (self.checkpoints, self.report):
            folder.mkdir(exist_ok=True)
        if resume:
            self.config = read_config(self.path, self.command, type(config))
            self.cancel_file.unlink(missing_ok=True)
        else:
            self.save_config(config)
        self.record_environment()
        self.events.record_to(self.path / "events.jsonl")

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
    def preview(self) -> Path:
        return self.path / "preview"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def record_environment(self, device: torch.device | None = None) -> None:
        """Write what the run is computed with; ``device`` once it is chosen."""
        if self.leads:
            process = {"pid": os.getpid(), "host": platform.node()}  # whom to end, where cancelling fails
            write_json(self.path / "environment.json", {**environment(device), **process})

    def save_config(self, config: Any) -> None:
        self.config = config
        if not self.leads:
            return
        data = {"version": CONFIG_VERSION, "command": self.command, **to_dict(config)}
        write_json(self.config_file, data)

    def cancel_requested(self) -> bool:
        """Whether a signal, the end of standard input, or a cancel file asks the run to stop."""
        return stopping.requested() or (self.leads and self.cancel_file.exists())

    def stop_if_asked(self) -> None:
        """Raise :class:`Cancelled` when :meth:`cancel_requested`."""
        if self.cancel_requested():
            raise Cancelled("Stopped.")

    def save_checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write ``checkpoints/name`` so that a crash leaves either the old or the new one."""
        if not self.leads:
            return
        import torch

        part = self.checkpoints / (name + ".part")
        with open(part, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        replace_file(part, self.checkpoints / name, patience=CHECKPOINT_PATIENCE)

    def load_checkpoint(self, name: str) -> dict[str, Any] | None:
        """The checkpoint on the CPU, or None when the run was stopped before its first."""
        path = self.checkpoints / name
        return load_tensors(path) if path.exists() else None

    @contextmanager
    def dispensable(self, what: str) -> Iterator[None]:
        """Within, a file that cannot be written, such as one that a viewer has open, costs but a warning."""
        try:
            yield
        except OSError as error:
            hint = "Close the program that has it open, and check the disk. The run goes on."
            self.events.warning(f"{what} could not be made: {error.strerror or error}.", error.filename, hint)

    def close(self) -> None:
        if self.leads:
            self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.leads and kind is None:  # an error is told, and recorded, by who catches it
            self.events.stop_recording()
        self.close()

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


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to start a run where anything is, unless that is a run to be overwritten.

    Raises:
        EmimError: saying what is there.
    """
    if path.exists() and not path.is_dir():
        raise EmimError("The run folder is a file.", path, "Choose another --out.")
    content = folder_content(path) if path.is_dir() else set()
    if content and overwrite and not (content <= {".lock"} or _is_run(path)):
        raise EmimError(
            "The folder is not a run folder, so it is not overwritten.", path, "Choose another --out."
        )
    if content - {".lock"} and not overwrite:
        raise EmimError(
            "The folder exists already.",
            path,
            "Continue the run with --resume, replace it with --overwrite, or choose another --out.",
        )


def _lock(folder: Path) -> Any:
    """Hold the lock of a run folder.

    Raises:
        EmimError: when another process does.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)  # somebody may be looking whether the run is in use
    except Timeout:
        raise EmimError(
            "Another process is training in this run folder.",
            folder,
            "Wait for it, or cancel it by putting a file named `cancel` there.",
        ) from None
    return lock


def _is_run(path: Path) -> bool:
    try:
        return json.loads((path / "config.json").read_text(encoding="utf-8"))["command"] in COMMANDS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_earlier_version(path: Path, config: Path) -> None:
    """A run of an earlier version drew other batches, and its checkpoint holds other parts."""
    try:
        version = json.loads(config.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):  # read_config tells
        return
    if version < CONFIG_VERSION:
        raise EmimError(
            "The run was begun by an earlier EMIM and cannot be continued by this one.",
            path,
            "Begin anew, or fine-tune from what it has learned so far.",
        )


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
    return from_dict(kind, upgrade(data, version))


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


def environment(device: torch.device | None = None) -> dict[str, Any]:
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
    if device is not None:
        found["device"] = str(device)
        if device.type == "cuda":
            import torch

            found["gpu"] = torch.cuda.get_device_name(device)
    return found
