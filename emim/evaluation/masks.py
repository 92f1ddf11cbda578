"""Which voxels of a reference and of a prediction belong to each structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from emim.cohort.case import Case
from emim.config import Structure
from emim.errors import EmimError
from emim.inference.seg_nrrd import read_seg_nrrd
from emim.volumes.case_label import read_case_label
from emim.volumes.grid import Grid
from emim.volumes.io import read_label_volume
from emim.volumes.segments import same_name


def partly_overlapping(structures: Sequence[Structure]) -> tuple[Structure, Structure] | None:
    """The first two that overlap without one lying within the other, which no label map holds whole."""
    for a, b in combinations(structures, 2):
        common = set(a.values) & set(b.values)
        if common and common not in (set(a.values), set(b.values)):
            return a, b
    return None


def prediction_values(structures: Sequence[Structure]) -> dict[str, tuple[int, ...]]:
    """The values of a painted result that belong to each structure.

    Structures are painted one over the other with their ``output`` values, so a region shows its own
    value only where no smaller region lies on it: its voxels are those with its own value or that of
    any structure nested within it (whose training values are a subset of its own).

    Raises:
        EmimError: when two structures overlap without one lying within the other: a single label
            map cannot hold both whole.
    """
    if pair := partly_overlapping(structures):
        a, b = pair
        raise EmimError(
            f"A label map cannot hold both {a.name!r} and {b.name!r}, because they overlap partly.",
            hint="Segment to .seg.nrrd, which keeps every structure whole, and evaluate that.",
        )
    return {
        s.name: tuple(sorted(t.output for t in structures if set(t.values) <= set(s.values)))
        for s in structures
    }


def reference_masks(
    case: Case, structures: Sequence[Structure]
) -> tuple[dict[str, np.ndarray], Grid, list[int]]:
    """Structure name to boolean mask (Z, Y, X) of the label of a case, the grid, and values of no
    structure."""
    label, grid = read_case_label(case)
    unknown = set(np.unique(label).tolist()) - {0} - {v for s in structures for v in s.values}
    return {s.name: np.isin(label, s.values) for s in structures}, grid, sorted(unknown)


def holds_layers(path: str | Path) -> bool:
    """Whether the file keeps overlapping structures whole."""
    return str(path).lower().endswith(".seg.nrrd")


def prediction_masks(
    path: str | Path, structures: Sequence[Structure], values: Mapping[str, Sequence[int]]
) -> tuple[dict[str, np.ndarray], Grid, list[int]]:
    """Structure name to boolean mask (Z, Y, X) of a result, the grid, and values of no structure.

    A ``.seg.nrrd`` is read by its segments' names, which gives overlapping structures exactly; a label
    map by the ``values`` of each structure, such as :func:`prediction_values`.

    Raises:
        EmimError: when the file cannot be read or lacks a structure's segment.
    """
    if holds_layers(path):
        named, grid = read_seg_nrrd(path)
        masks = {same_name(name): mask for name, mask in named.items()}
        for s in structures:
            if same_name(s.name) not in masks:
                hint = f"It holds: {', '.join(named)}."
                raise EmimError(f"The segmentation has no segment called {s.name!r}.", path, hint)
        return {s.name: masks[same_name(s.name)] for s in structures}, grid, []
    label, grid = read_label_volume(path)
    unknown = set(np.unique(label).tolist()) - {0} - {v for own in values.values() for v in own}
    return {name: np.isin(label, v) for name, v in values.items()}, grid, sorted(unknown)
