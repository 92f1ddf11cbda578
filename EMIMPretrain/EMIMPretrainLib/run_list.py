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
    """List a run that lies elsewhere, or all runs of a folder, too, from now on.

    Returns:
        The run; of several the newest.

    Raises:
        EmimError: when the folder is no run and holds none.
    """
    folder = Path(folder).absolute()
    runs = list_runs(folder) or [read_run(folder)]  # which says why there is none
    if folder not in _added() and runsFolder() not in (folder, *folder.parents):
        _save([*_added(), folder])
    return runs[0]


def forgetRun(folder: str | Path) -> None:
    """Take an added run out of the list, and with it all runs of the folder it was added with; files stay."""
    _save([f for f in _added() if f not in _listing(folder)])


def isAdded(folder: str | Path) -> bool:
    """Whether the run is listed because the user has added it, or a folder that it lies in."""
    return runsFolder() not in Path(folder).parents and any(f in _listing(folder) for f in _added())


def _listing(run: str | Path) -> list[Path]:
    """The folders of which each would list the run."""
    return [Path(run), *Path(run).parents[:2]]


def _added() -> list[Path]:
    text = str(qt.QSettings().value(SETTING) or "")
    return [Path(line) for line in text.splitlines() if line]


def _save(folders: list[Path]) -> None:
    # One text, because Qt gives a list of one entry back as that entry.
    qt.QSettings().setValue(SETTING, "\n".join(str(f) for f in folders))
