"""Fixed position embeddings of a grid of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Longest wave: 2 pi times this many patches. The 10,000 usual for text would leave most channels constant
# over the six to sixteen patches of a crop.
LONGEST = 100.0


def sine_positions(grid: Sequence[int], width: int, device: torch.device | None = None) -> torch.Tensor:
    """Sines and cosines (N, width) of the place of each of N = z · y · x patches, in Z, Y, X order.

    Each axis has a third of the channels (those left over are 0), half sines and half cosines of waves
    whose lengths form a geometric series (arXiv 1706.03762, in three dimensions). Places are counted in
    patches from the middle of the grid, so another crop size keeps distances and adds places at its rim.

    Args:
        grid: patches along z, y, x.
        width: channels, at least 6.
    """
    waves = width // 6
    rates = LONGEST ** -(torch.arange(waves, device=device) / waves)
    places = [torch.arange(n, device=device) - (n - 1) / 2 for n in grid]
    angles = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3, 1) * rates
    channels = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
    return torch.nn.functional.pad(channels, (0, width - channels.shape[1]))
