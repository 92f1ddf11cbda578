"""Feature maps as observations: one row per coarse cell of each sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def cell_observations(features: torch.Tensor, foreground: torch.Tensor, cells: int) -> torch.Tensor:
    """Average features over a coarse grid; keep the cells that hold foreground.

    A cell holds it when its share of foreground is at least half of the largest share in the batch, so
    a thin stack of slices, which fills no cell, has observations too.

    Air looks the same in every sample and view: as an observation it would only flatter the
    correlation between them.

    Args:
        features: (B, C, z, y, x) of one pyramid level.
        foreground: boolean (B, 1, Z, Y, X) of the crop.
        cells: cells a side; no more than the level has voxels.

    Returns:
        (n, C) with n <= B * cells³.
    """
    side = min(cells, *features.shape[-3:])
    pooled = F.adaptive_avg_pool3d(features.float(), side)
    share = F.adaptive_avg_pool3d(foreground.float(), side)[:, 0]
    return pooled.movedim(1, -1)[(share > 0) & (share >= share.max() / 2)]
