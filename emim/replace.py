"""Putting a finished file in the place of an older one that others may be reading."""

from __future__ import annotations

import os
import time
from pathlib import Path

WAITS = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds


def replace_file(new: Path, file: Path) -> None:
    """Rename ``new`` to ``file``; a reader finds either the old or the new one, whole.

    Windows does not replace a file while anybody has it open, be it a viewer or a virus scanner; that passes,
    so it is tried again for some seconds there.

    Raises:
        OSError: when it cannot be done.
    """
    for wait in WAITS if os.name == "nt" else ():
        try:
            return os.replace(new, file)
        except PermissionError:
            time.sleep(wait)
    os.replace(new, file)
