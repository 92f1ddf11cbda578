"""What is measured of each structure: its volume, largest diameter and mean intensities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emim.config import Structure
from emim.inference.labelling import Labelling
from emim.volumes.foreground import bounding_box
from emim.volumes.grid import Grid
from emim.volumes.io import read_volume
from emim.volumes.resample import resample_volume

PAIRS = 4_000_000  # distances held at a time


@dataclass(frozen=True)
class Measurement:
    """One whole structure, what others are painted over it included.

    Attributes:
        structure, value: its name, and its value in the label map.
        volume_ml: mL.
        largest_diameter_mm: see :func:`largest_diameter`; None where there is nothing.
        mean: modality to the mean of the image's own intensities within the structure; None for a
            modality that is missing or does not reach there.
    """

    structure: str
    value: int
    volume_ml: float
    largest_diameter_mm: float | None
    mean: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """For an event or a table: numbers rounded beyond what they can mean."""
        diameter, mean = self.largest_diameter_mm, self.mean
        return {
            "structure": self.structure,
            "value": self.value,
            "volume_ml": round(self.volume_ml, 4),
            "largest_diameter_mm": None if diameter is None else round(diameter, 2),
            "mean": {m: None if v is None else float(f"{v:.6g}") for m, v in mean.items()},
        }


def measure(
    structures: Sequence[Structure],
    result: Labelling,
    grid: Grid,
    modalities: Sequence[str],
    images: Mapping[str, str],
    moves: Mapping[str, np.ndarray],
) -> list[Measurement]:
    """Measure every structure of ``result``, which lies on ``grid``.

    Args:
        modalities: all names a mean is told of.
        images: modality to file, of those that are there.
        moves: modality to the rigid motion (4, 4), LPS mm, that the image was aligned by.
    """
    masks = dict(_cropped(structures, result, grid))
    means: dict[str, dict[str, float | None]] = {s.name: dict.fromkeys(modalities) for s in structures}
    for modality in modalities if masks else ():
        if modality in images:
            for name, mean in _means(images[modality], moves.get(modality), masks).items():
                means[name][modality] = mean
    return [
        Measurement(
            s.name,
            s.output,
            result.volumes[s.name],
            largest_diameter(*masks[s.name]) if s.name in masks else None,
            means[s.name],
        )
        for s in structures
    ]


def largest_diameter(mask: np.ndarray, grid: Grid) -> float:
    """The greatest distance in mm between two points of the surface of ``mask`` (Z, Y, X), not empty.

    The surface is taken half-way between the centres of voxels inside and outside: at the centres of
    voxel faces, where a surface model of the mask lies too. A single voxel is as wide as it is long.
    """
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import cdist

    # Of each row only the two ends can lie on the convex hull, and only there are the farthest points.
    rows = np.argwhere(mask.any(axis=2))
    flat = mask[tuple(rows.T)]
    first, last = flat.argmax(axis=1), mask.shape[2] - 1 - flat[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([x, rows[:, 1], rows[:, 0]]) for x in (first, last)])
    half = np.concatenate([np.eye(3), -np.eye(3)]) / 2
    faces = grid.position((ends[:, None] + half).reshape(-1, 3))
    hull = faces[ConvexHull(faces).vertices]
    step = max(1, PAIRS // len(hull))
    return max(float(cdist(hull[i : i + step], hull).max()) for i in range(0, len(hull), step))


def _cropped(
    structures: Sequence[Structure], result: Labelling, grid: Grid
) -> Iterator[tuple[str, tuple[np.ndarray, Grid]]]:
    """Name, mask and grid of each structure that is there, all cut to its bounding box."""
    for i, structure in enumerate(structures):
        layer = result.layers[i] if len(result.layers) > 1 else result.layers[0]
        mask = layer == structure.output
        if mask.any():
            box = bounding_box(mask)
            part = grid.cropped([s.start for s in box], [s.stop for s in box])
            yield structure.name, (np.ascontiguousarray(mask[box]), part)


def _means(
    path: str, motion: np.ndarray | None, masks: Mapping[str, tuple[np.ndarray, Grid]]
) -> dict[str, float | None]:
    array, source = read_volume(path)
    if motion is not None:
        source = source.moved(motion)
    means: dict[str, float | None] = {}
    for name, (mask, grid) in masks.items():
        values = resample_volume(array, source, grid, outside=np.nan)[mask]
        measured = values[np.isfinite(values)]
        means[name] = float(measured.mean(dtype=np.float64)) if measured.size else None
    return means
