"""Which Python runs the workers, and in which environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import emim
from emim.errors import EmimError

# Slicer points these at its own Python and libraries; another installation would be misled by them.
SLICER_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def pythonExecutable() -> str:
    """The Python that runs workers: ``EMIM_PYTHON``, else Slicer's, else the running one.

    Raises:
        EmimError: when there is none.
    """
    if chosen := os.environ.get("EMIM_PYTHON"):
        if not shutil.which(chosen):
            raise EmimError(
                "The Python named by EMIM_PYTHON cannot be run.", chosen, "Correct or unset the variable."
            )
        return chosen
    found = shutil.which("PythonSlicer") if _inSlicer() else None
    if found:
        return found
    # In Slicer this may be the application itself; running that would open a second Slicer.
    if "python" in Path(sys.executable or "").name.lower():
        return sys.executable
    raise EmimError(
        "Slicer's Python interpreter (PythonSlicer) was not found.",
        sys.executable,
        "Reinstall Slicer, or set the environment variable EMIM_PYTHON to a Python that has EMIM's packages.",
    )


def coreFolder() -> Path:
    """The folder that contains ``emim/``."""
    return Path(emim.__file__).resolve().parent.parent


def workerEnvironment() -> dict[str, str]:
    """The environment of a worker: this process's own, with the core first on ``PYTHONPATH``."""
    environment = dict(os.environ)
    if "EMIM_PYTHON" in environment and "PYTHONHOME" in environment:  # set by Slicer only
        for name in SLICER_VARIABLES:
            environment.pop(name, None)
    path = [str(coreFolder()), environment.get("PYTHONPATH", "")]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(p for p in path if p),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "PYTHONSAFEPATH": "1",  # with -m, a file in the current folder would shadow a library
        "MPLBACKEND": "Agg",
        "PYTHONFAULTHANDLER": "1",  # a crash in foreign code tells where it was
    }


def _inSlicer() -> bool:
    return getattr(sys.modules.get("slicer"), "app", None) is not None
