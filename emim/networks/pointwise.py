"""The convolution of single voxels: a linear map of their channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Pointwise(nn.Conv3d):
    """A convolution with a kernel of one voxel; channels ``inputs`` to ``outputs``.

    With channels last it is computed as the matrix product it is: oneDNN takes longer for its gradient than
    for that of a 3 x 3 x 3 convolution where the output's has another order of axes, as that of a loss.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_contiguous():
            return super().forward(x)
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
