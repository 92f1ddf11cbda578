"""The process that trains in a run folder, when it was not started here."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
from pathlib import Path

from emim.run_state import in_use


def killHolder(runFolder: Path) -> None:
    """End the process that holds the run folder at once, if it runs on this machine.

    Who begins to train writes its process id into the folder while it holds the lock. As long as the lock
    is held, the id is that of the holder, and of no later process with the same number.
    """
    try:
        found = json.loads((runFolder / "environment.json").read_text(encoding="utf-8"))
        pid, host = int(found["pid"]), found["host"]
    except (OSError, ValueError, KeyError, TypeError):  # a run of an older core
        return
    if host == platform.node() and in_use(runFolder):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
