"""Instance normalisation, made fast on CPUs where PyTorch takes a slow way to the same result.

There it is computed as a group normalisation of one channel a group, which is the same, since PyTorch's
instance normalisation goes through a slower kernel. With channels last that kernel has a slow gradient and
adds up in single precision one voxel after the other, which at 96 x 96 x 96 voxels is off by a thousandth. So
here whole rows of voxels side by side are added up, as many at a time as stay in the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

ROW = 1024  # values: long enough for vector instructions, whatever the channels
SLAB = 2**19  # values at a time: about the cache of a core


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation with learned scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if x.is_contiguous() or x.dtype != torch.float32:
            return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)
        return _ChannelsLast.apply(x, self.weight, self.bias, self.eps)


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        y = torch.empty_like(x)
        voxels, rows = x[0, 0].numel(), _Rows(x)
        mean = rows.total(rows.of(x).sum(1)) / voxels
        middle, squares = rows.each(mean), 0
        for (part,) in rows.slabs(x):
            squares = squares + (part - middle).square_().sum(1)
        inverse = (rows.total(squares) / voxels + eps).rsqrt()
        scale = weight * inverse
        torch.addcmul(rows.each(bias - mean * scale), rows.of(x), rows.each(scale), out=rows.of(y))
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty_like(x)
        voxels, rows = x[0, 0].numel(), _Rows(x)
        middle, sums = rows.each(mean), 0
        for part, given in rows.slabs(x, gradient):
            sums = sums + (part - middle).mul_(given).sum(1)
        of_bias, of_weight = rows.total(rows.of(gradient).sum(1)), rows.total(sums) * inverse
        scale = weight * inverse
        scales, slope = rows.each(scale), -scale * inverse * of_weight / voxels
        slopes, shifts = rows.each(slope), rows.each(-scale * of_bias / voxels - slope * mean)
        for part, given, out in rows.slabs(x, gradient, result):
            torch.addcmul(shifts, given, scales, out=out).addcmul_(part, slopes)
        return result, of_weight.sum(0), of_bias.sum(0), None


class _Rows:
    """The memory of tensors (B, C, Z, Y, X) with channels last as (B, rows, voxels side by side x C)."""

    def __init__(self, x: torch.Tensor) -> None:
        self.volumes, self.channels = x.shape[:2]
        self.side_by_side = 1
        voxels = x[0, 0].numel()
        while self.side_by_side * self.channels < ROW and voxels % (2 * self.side_by_side) == 0:
            self.side_by_side *= 2

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.movedim(1, -1).view(self.volumes, -1, self.side_by_side * self.channels)

    def slabs(self, *tensors: torch.Tensor) -> zip:
        """Parts of the rows of each, of the same place."""
        most = max(1, SLAB // (self.volumes * self.side_by_side * self.channels))
        return zip(*(self.of(t).split(most, dim=1) for t in tensors), strict=True)

    def each(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` (B, C) for every voxel of a row."""
        return values.repeat(1, self.side_by_side).unsqueeze(1)

    def total(self, sums: torch.Tensor) -> torch.Tensor:
        """(B, C) of the sums over rows."""
        return sums.view(self.volumes, self.side_by_side, self.channels).sum(1)
