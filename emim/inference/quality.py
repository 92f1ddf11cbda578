"""How much work a segmentation takes, by one word."""

from __future__ import annotations

from typing import NamedTuple

from emim.package.model import ModelCard


class Effort(NamedTuple):
    """How the network is moved over a volume.

    Attributes:
        overlap: share of a tile that its neighbour covers too.
        mirror: average each tile and its mirror image, left and right exchanged.
        enlarge: side of a tile as a multiple of the training crop's.
    """

    overlap: float = 0.5
    mirror: bool = False
    enlarge: float = 1.0

    def side(self, card: ModelCard) -> int:
        """Side of a tile in voxels for the model of ``card``.

        Convolutions take any size. Transformers keep that of the training crop, whose positions and windows
        they have learned.
        """
        if card.network.backbone != "resunet":
            return card.crop
        divisor = card.network.divisor
        return max(1, round(card.crop * self.enlarge / divisor)) * divisor


QUALITIES = {
    # Larger tiles need little overlap: most voxels are far from an edge, and are computed once or twice.
    "fast": Effort(overlap=0.25, enlarge=4 / 3),
    "balanced": Effort(),
    "best": Effort(mirror=True),  # twice the work of "balanced"
}
