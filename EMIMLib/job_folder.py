"""Folders of EMIM outside the extension, and the folder that each worker writes its output to."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

KEPT = 20  # logs of failed workers
DAY = 86400.0


def homeFolder() -> Path:
    """Where models, runs and logs lie unless the user chose otherwise.

    Not the documents folder: on many machines that is copied to a cloud, and runs hold patients' images.
    """
    return Path.home() / "EMIM"


def logsFolder() -> Path:
    """``EMIM_LOGS``, else ``EMIM/logs`` in the user's home."""
    folder = os.environ.get("EMIM_LOGS")
    return Path(folder) if folder else homeFolder() / "logs"


def newJobFolder(command: str) -> Path:
    """A new empty folder for the output of one worker; old ones are cleared away."""
    name = time.strftime("%Y%m%d-%H%M%S-") + command + "-"
    try:
        logsFolder().mkdir(parents=True, exist_ok=True)
        removeOldFolders()
        return Path(tempfile.mkdtemp(prefix=name, dir=logsFolder()))
    except OSError:  # a home that cannot be written to
        return Path(tempfile.mkdtemp(prefix="emim-" + name))


def removeOldFolders() -> None:
    """Keep the newest :data:`KEPT` logs, and those of the last day: their workers may still run."""
    for folder in _jobFolders()[KEPT:]:
        newest = max((_modified(f) for f in (folder, *folder.glob("*"))), default=0.0)
        if newest < time.time() - DAY:
            shutil.rmtree(folder, ignore_errors=True)


def lastLog() -> Path | None:
    """The newest folder a worker left, for a support report; a worker that succeeded leaves none."""
    folders = _jobFolders()
    return folders[0] if folders else None


def _jobFolders() -> list[Path]:
    """Newest first."""
    try:
        return sorted((f for f in logsFolder().iterdir() if f.is_dir()), key=_modified, reverse=True)
    except OSError:
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0
