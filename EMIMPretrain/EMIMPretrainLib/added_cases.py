"""Which volumes of the scene were written to which cohort, known until the scene is closed.

In memory only: as an attribute of the volume, it would go into scene files and NRRD headers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

_cases: dict[tuple[str, Path], str] = {}  # node ID and cohort folder to the case


def noteAdded(volume: Any, folder: Path, case: str) -> None:
    """Remember that the ``volume`` was written to a case of the cohort ``folder``."""
    scene = slicer.mrmlScene
    if not _cases:
        tag = scene.AddObserver(scene.StartCloseEvent, lambda *_of: _forget(scene, tag))
    _cases[volume.GetID(), folder] = case


def addedAs(volume: Any, folder: Path) -> str:
    """The case of the cohort ``folder`` that the ``volume`` was written to; "" where it was not."""
    return _cases.get((volume.GetID(), folder), "")


def _forget(scene: Any, tag: int) -> None:
    _cases.clear()  # the next scene uses the same node IDs
    scene.RemoveObserver(tag)
