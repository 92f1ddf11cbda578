"""How much work a segmentation takes, by one word."""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """``overlap``: share of a tile covered by its neighbour; ``mirror``: average over mirrored tiles."""

    overlap: float
    mirror: bool


QUALITIES = {
    "fast": Effort(0.25, False),
    "balanced": Effort(0.5, False),  # 2 to 3 times the tiles of "fast"
    "best": Effort(0.5, True),  # 8 times the work of "balanced"
}
