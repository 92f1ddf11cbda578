"""Where patches lie on a grid of any size: embeddings, and rotations by which attention sees distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

# Longest wave of the embeddings: 2 pi times this many patches. The 10,000 usual for text would leave most
# channels constant over the six to sixteen patches of a crop.
LONGEST = 100.0
# Turns a patch of the fastest and the slowest pair of channels: waves of 4 and of 64 patches.
FASTEST, SLOWEST = math.pi / 2, math.pi / 32


def places(grid: Sequence[int], device: torch.device | None = None) -> torch.Tensor:
    """Places (N, 3) of N = z · y · x patches, in Z, Y, X order.

    They are counted in patches from the middle, so another size of crop keeps distances and adds places at
    its rim.
    """
    axes = [torch.arange(n, device=device) - (n - 1) / 2 for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def sine_positions(grid: Sequence[int], width: int, device: torch.device | None = None) -> torch.Tensor:
    """Sines and cosines (N, width) of the :func:`places` of a grid.

    Each axis has a third of the channels (those left over are 0), half sines and half cosines of waves
    whose lengths form a geometric series (arXiv 1706.03762, in three dimensions).

    Args:
        grid: patches along z, y, x.
        width: channels, at least 6.
    """
    waves = width // 6
    rates = LONGEST ** -(torch.arange(waves, device=device) / waves)
    angles = places(grid, device)[..., None] * rates
    channels = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
    return torch.nn.functional.pad(channels, (0, width - channels.shape[1]))


class Rotation(NamedTuple):
    """Rotary position embedding (arXiv 2104.09864) in three dimensions: channels turn with the place.

    Between a query and a key that are turned, only the distance of their places counts, so attention sees
    what lies where from the first step on. With position embeddings alone it has to learn that first, for
    which the budgets here do not suffice (Testing/benchmarks/RESULTS.md, section 9).

    Attributes:
        cos, sin: (…, L, 1, pairs), of the angle of each pair of channels of a head.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def at(cls, where: torch.Tensor, channels: int) -> Rotation:
        """Rotation of heads of so many ``channels`` (at least 6) at places ``where`` (…, L, 3)."""
        waves = channels // 6
        slower = torch.arange(waves, device=where.device) / max(1, waves - 1)
        angles = (where[..., None] * (FASTEST * (SLOWEST / FASTEST) ** slower)).flatten(-2)[..., None, :]
        return cls(angles.cos(), angles.sin())

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``x`` (B, L, heads, channels); channels beyond the last pair stay as they are."""
        pairs = self.cos.shape[-1]
        a, b, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos, rest], -1).to(x.dtype)
