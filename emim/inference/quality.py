"""How much work a segmentation takes, by one word."""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """How the network is moved over a volume, in tiles of the side of the training crop.

    Attributes:
        overlap: share of a tile that its neighbour covers too.
        mirror: average each tile and its mirror image, left and right exchanged.
    """

    overlap: float = 0.5
    mirror: bool = False


# Larger tiles than in training gain with networks that have learned for long, and lose much with others.
QUALITIES = {
    "fast": Effort(overlap=1 / 8),
    "balanced": Effort(),
    "best": Effort(mirror=True),  # twice the work of "balanced"
}
