"""Putting a finished file or folder in the place of an older one that others may be reading."""

from __future__ import annotations

import os
import time
from pathlib import Path

FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between two attempts
PATIENCE = 2.0  # seconds


def replace_file(new: Path, file: Path, patience: float = PATIENCE) -> None:
    """Rename ``new`` to ``file``; a reader finds either the old or the new one, whole.

    Windows does not replace a file while anybody has it open, be it a viewer or a virus scanner, and does not
    rename a folder with such a file in it; that passes, so it is tried again for ``patience`` seconds there.

    Raises:
        OSError: when it cannot be done.
    """
    wait, left = FIRST_WAIT, patience if os.name == "nt" else 0.0
    while left > 0:
        try:
            return os.replace(new, file)
        except PermissionError:
            time.sleep(min(wait, left))
            wait, left = min(2 * wait, LONGEST_WAIT), left - wait
    os.replace(new, file)


def replace_folder(new: Path, folder: Path, aside: Path) -> None:
    """Put the finished ``new`` in the place of ``folder``, which moves ``aside``, and back where that fails.

    Raises:
        OSError: when it cannot be done; the old one is then in its place, or ``aside`` if not even that goes.
    """
    if folder.exists():
        replace_file(folder, aside)
    try:
        replace_file(new, folder)
    except OSError:
        if aside.exists():
            replace_file(aside, folder)
        raise
