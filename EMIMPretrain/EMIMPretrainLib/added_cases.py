"""Which volumes of the scene were written to which cohort, known until they leave the scene.

In memory only: as an attribute of the volume, it would go into scene files and NRRD headers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

_cases: dict[tuple[str, Path], str] = {}  # node ID and cohort folder to the case
_observations: list[int] = []


def noteAdded(volume: Any, folder: Path, case: str) -> None:
    """Remember that the ``volume`` was written to a case of the cohort ``folder``."""
    scene = slicer.mrmlScene
    if not _observations:
        _observations.append(scene.AddObserver(scene.StartCloseEvent, _onClose))
        _observations.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, _onRemoved))
    _cases[volume.GetID(), folder] = case


def addedAs(volume: Any, folder: Path) -> str:
    """The case of the cohort ``folder`` that the ``volume`` was written to; "" where it was not."""
    return _cases.get((volume.GetID(), folder), "")


# What comes into the scene later may get the same node IDs.
def _onClose(scene: Any, event: str) -> None:
    _cases.clear()


@vtk.calldata_type(vtk.VTK_OBJECT)
def _onRemoved(scene: Any, event: str, node: Any) -> None:
    for key in [key for key in _cases if key[0] == node.GetID()]:
        del _cases[key]
