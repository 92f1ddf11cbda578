"""Feature maps as observations: one row per coarse cell of each sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from emim.machine.reduce import max_over_ranks


def cell_observations(
    features: torch.Tensor, foreground: torch.Tensor, cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average features over a coarse grid; tell which cells hold foreground.

    A cell holds it when its share of foreground is at least half of the largest share in the batch (of
    all ranks), so a thin stack of slices, which fills no cell, has observations too.

    Air looks the same in every sample and view: as an observation it would only flatter the
    correlation between them.

    Args:
        features: (B, C, z, y, x) of one pyramid level.
        foreground: boolean (B, 1, Z, Y, X) of the crop.
        cells: cells along each axis, at most the level's voxels along it.

    Returns:
        Rows (n, C), one per cell of each sample, and their weight (n,): 1 with foreground, else 0. Rows are
        weighed, not picked out: how many there are is known to the device alone, and asking it would
        make a GPU wait.
    """
    grid = [min(cells, n) for n in features.shape[-3:]]
    rows = F.adaptive_avg_pool3d(features.float(), grid).movedim(1, -1).flatten(0, -2)
    share = F.adaptive_avg_pool3d(foreground.float(), grid).flatten()
    weight = (share > 0) & (share >= max_over_ranks(share.max()) / 2)
    return rows, weight.float()
