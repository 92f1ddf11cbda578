"""The picture that shows a segmentation over its reference image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emim.config import Structure
from emim.inference.labelling import Labelling
from emim.report.overlay import write_overlay
from emim.volumes.io import read_stored
from emim.volumes.resample import copy_voxels


def write_picture(
    path: Path, reference: str | Path, result: Labelling, structures: Sequence[Structure]
) -> None:
    """Write three slices of ``reference`` with ``result`` (on its grid) over them as a PNG."""
    voxels, grid = read_stored(reference)
    upright = grid.oriented()  # the picture's axes are the patient's, nearly
    background = copy_voxels(voxels, grid, upright, 0)
    del voxels  # or the picture would need as much memory again
    label = copy_voxels(result.label, grid, upright, 0)
    colors = {s.output: s.color for s in structures}
    names = {s.output: s.name for s in structures}
    volumes = {s.output: result.volumes[s.name] for s in structures}
    write_overlay(background, label, upright.spacing[::-1], colors, names, path, volumes)
