"""The runs there are: those in the runs folder, and others that the user has added."""

from __future__ import annotations

from pathlib import Path

import qt

from emim.run_state import RunState, list_runs, read_run
from EMIMLib import EmimError
from EMIMLib.settings import runsFolder

SETTING = "EMIM/OtherRuns"


def allRuns() -> list[RunState]:
    """Every run of the runs folder and every added one that is still there, newest first."""
    found: dict[Path, RunState] = {}
    for folder in (runsFolder(), *_added()):
        try:
            runs = list_runs(folder)
        except (EmimError, OSError):  # no run yet, or a disk that is not mounted now
            continue
        found.update({run.folder: run for run in runs})
    return sorted(found.values(), key=lambda run: run.started, reverse=True)


def addRun(folder: str | Path) -> RunState:
    """List a run that lies elsewhere, too, from now on.

    Raises:
        EmimError: when the folder is no run.
    """
    run = read_run(folder)
    if not isAdded(run.folder) and runsFolder() not in run.folder.parents:
        _save([*_added(), run.folder])
    return run


def forgetRun(folder: str | Path) -> None:
    """Take an added run out of the list; its files stay."""
    _save([f for f in _added() if f != Path(folder)])


def isAdded(folder: str | Path) -> bool:
    """Whether the run is listed because the user has added it."""
    return Path(folder) in _added()


def _added() -> list[Path]:
    text = str(qt.QSettings().value(SETTING) or "")
    return [Path(line) for line in text.splitlines() if line]


def _save(folders: list[Path]) -> None:
    # One text, because Qt gives a list of one entry back as that entry.
    qt.QSettings().setValue(SETTING, "\n".join(str(f) for f in folders))
