"""A text with all that helps to find out why something does not work, to be copied into a message."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import qt
import slicer

import emim
from emim.errors import EmimError
from EMIMLib import dependencies, settings
from EMIMLib.interpreter import coreFolder, pythonExecutable
from EMIMLib.job_folder import lastLog, logsFolder
from EMIMLib.worker import Worker

PACKAGES = ("torch", "torchvision", "monai", "SimpleITK", "numpy", "scipy", "nibabel", "matplotlib", "pillow")
LOG_END = 3000  # characters


def infoWorker() -> Worker:
    """A worker, not started, that tells what it finds on this machine."""
    return Worker(["info"])


def composeReport(worker: Worker) -> str:
    """The report with what ``worker``, which has ended, found or failed with."""
    sections = [
        ("EMIM support report", _programs()),
        ("Python packages", _packages()),
        ("Worker", _worker(worker)),
        ("Folders", _folders()),
    ]
    if warnings := dependencies.warnings():
        sections.append(("Warnings", warnings))
    text = "\n\n".join("\n".join([title, "-" * len(title), *lines]) for title, lines in sections)
    return text + "\n\n" + _lastError() + "\n"


def _programs() -> list[str]:
    app = slicer.app
    return [
        f"EMIM         {emim.__version__} in {coreFolder()}",
        f"Slicer       {app.applicationVersion} revision {app.revision}",
        f"Qt           {qt.Qt.qVersion()}",
        f"Python       {platform.python_version()}",
        f"System       {platform.platform()}",
    ]


def _packages() -> list[str]:
    lines = [f"{name:12s} {dependencies.installedVersion(name) or 'not installed'}" for name in PACKAGES]
    absent = dependencies.missing()
    lines.append("Missing      " + (", ".join(map(str, absent)) or "nothing"))
    if error := dependencies.blocked():
        lines.append(str(error))
    return lines


def _worker(worker: Worker) -> list[str]:
    try:
        lines = [f"Python       {pythonExecutable()}"]
    except EmimError as error:
        return [str(error)]
    if worker.result is None:
        why = str(worker.error) if worker.error is not None else "It was stopped."
        return [*lines, "The test worker failed:", why, *worker.log.splitlines()[-20:]]
    told = {k: v for k, v in worker.result.items() if not isinstance(v, (dict, list))}
    lines += [f"{key:12s} {_size(key, value)}" for key, value in told.items() if key != "command"]
    if "gpu" not in told:
        lines.append("gpu          none that PyTorch can use; the CPU is used, which is slower")
    return lines


def _size(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return f"{value / 2**30:.1f} GiB"
    return str(value)


def _folders() -> list[str]:
    folders = {
        "Models": settings.modelsFolder(),
        "Runs": settings.runsFolder(),
        "Cache": settings.cacheFolder(),
        "Logs": logsFolder(),
        "Temporary": Path(slicer.app.temporaryPath),
    }
    return [f"{name:12s} {_describe(folder)}" for name, folder in folders.items() if folder is not None]


def _describe(folder: Path) -> str:
    existing = next((p for p in (folder, *folder.parents) if p.exists()), None)
    if existing is None:
        return f"{folder} (there is no such drive)"
    notes = [] if existing == folder else ["not made yet"]
    if not os.access(existing, os.W_OK):
        notes.append("cannot be written to")
    notes.append(f"{shutil.disk_usage(existing).free / 2**30:.0f} GiB free")
    return f"{folder} ({', '.join(notes)})"


def _lastError() -> str:
    """What the last worker that failed has said, which may name cases and files."""
    folder = lastLog()
    if folder is None:
        return "No failed worker has left a log."
    texts = [folder / name for name in ("errors.txt", "output.txt")]
    end = "\n".join(t.read_text("utf-8", "replace")[-LOG_END:].strip() for t in texts if t.is_file())
    return f"Last log: {folder} (it may name cases and files)\n{end}"
