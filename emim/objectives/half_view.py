"""Half of a crop, of which a second view can be encoded at half the cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Half(NamedTuple):
    """One half of a crop along one axis.

    Attributes:
        axis: 0, 1 or 2 for Z, Y or X.
        upper: the half with the higher indices.
    """

    axis: int
    upper: bool

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """This half of ``x`` (B, C, z, y, x): of the crop, or of features on any level of its pyramid."""
        half = x.shape[2 + self.axis] // 2
        return x.narrow(2 + self.axis, half if self.upper else 0, half)


def half_at(step: int, shape: Sequence[int], divisor: int) -> Half | None:
    """The half to take in a training step: the six of them in turn, so that a resumed run takes the same.

    Args:
        shape: sides (Z, Y, X) of the crop.
        divisor: of which the halved side must be a multiple.

    Returns:
        None when the crop cannot be halved along that axis.
    """
    half = Half(step // 2 % 3, step % 2 == 1)
    return half if shape[half.axis] % (2 * divisor) == 0 else None
