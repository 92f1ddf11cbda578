"""Start a process so that it can be ended together with everything it started.

PythonSlicer is a launcher: the real Python is its child, and ending the launcher alone would orphan it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any

WINDOWS = os.name == "nt"


def startOptions() -> dict[str, Any]:
    """Options of :class:`subprocess.Popen`: a group of its own, and no console window."""
    if WINDOWS:
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def killTree(process: subprocess.Popen) -> None:
    """End the process and its descendants at once; also what is left of them when it has ended."""
    if WINDOWS:
        if process.poll() is None:
            command = ["taskkill", "/PID", str(process.pid), "/T", "/F"]
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
    else:
        # Nobody is left: macOS says it with the second.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # as the leader of its session it names its group
    if process.poll() is None:
        process.kill()


def describeExit(code: int) -> str:
    """What an exit code means, in words: "was killed (SIGKILL)", "crashed (SIGSEGV)", "ended with …"."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        verb = "crashed" if name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE") else "was killed"
        return f"{verb} ({name})"
    if code >= 0xC0000000:  # Windows reports exceptions so
        return f"crashed (0x{code:08X})"
    return f"ended with exit code {code}"
