"""Where a volume is cut into tiles, and how much each tile counts where they overlap.

The weights are those of MONAI's sliding window: a Gaussian of an eighth of the side about the tile's centre.
Tiles are as many as MONAI's, but spread evenly, and those that show nothing of the patient are left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGMA = 0.125
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Tiling:
    """Tiles of one volume.

    Attributes:
        starts: first voxel (z, y, x) of each tile.
        window: float32 (S, S, S), the weight of a tile's voxels.
        total: float32 (Z, Y, X), the sum of the weights of all tiles; 0 where there is none.
    """

    starts: list[tuple[int, int, int]]
    window: np.ndarray
    total: np.ndarray


def plan_tiles(foreground: np.ndarray, side: int, overlap: float) -> Tiling:
    """Tiles that cover ``foreground``, boolean (Z, Y, X), no side of which is shorter than ``side``.

    Args:
        overlap: least share of a tile that its neighbour along an axis covers too, 0 to below 1.
    """
    window = gaussian_window(side)
    starts = [s for s in grid_starts(foreground.shape, side, overlap) if foreground[box(s, side)].any()]
    total = np.zeros(foreground.shape, np.float32)
    for start in starts:
        total[box(start, side)] += window
    return Tiling(starts, window, total)


def grid_starts(shape: Sequence[int], side: int, overlap: float) -> list[tuple[int, int, int]]:
    """First voxels of tiles on a regular grid over a volume of ``shape``."""
    step = max(1, int(side * (1 - overlap)))
    axes = []
    for length in shape:
        count = math.ceil((length - side) / step) + 1
        axes.append(np.rint(np.linspace(0, length - side, count)).astype(int).tolist())
    return list(itertools.product(*axes))


def gaussian_window(side: int) -> np.ndarray:
    """Weights (S, S, S) of a tile, float32; never less than :data:`LEAST_WEIGHT`."""
    x = np.arange(side) - (side - 1) / 2
    line = np.exp(-(x**2) / (2 * (SIGMA * side) ** 2))
    window = line[:, None, None] * line[None, :, None] * line[None, None, :]
    return np.maximum(window, LEAST_WEIGHT).astype(np.float32)


def box(start: Sequence[int], side: int) -> tuple[slice, slice, slice]:
    """The voxels of the tile that begins at ``start``."""
    return tuple(slice(a, a + side) for a in start)
