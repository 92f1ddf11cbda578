"""The 3 x 3 x 3 convolution, made fast on CPUs where PyTorch takes a slow way to the same result.

oneDNN has fast kernels for the output and for the gradient of the input. That of the weights it computes, on
CPUs without AVX-512 and unless channels come last, by copying every voxel's 27 neighbours side by side
first, at a third of the speed.

Most of that copying is not needed: with rows and planes padded, moving a volume by (dz, dy) is starting to
read it at another place. So the gradient of the weights at that offset is a matrix product of the output's
gradient with the input read from there; only the three places along X are put side by side, which makes the
products wide enough. That is done for a few planes at a time, which stay in the cache for all offsets.

A single small volume PyTorch does not give to oneDNN at all (``slow_conv3d``); here it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

SLOW_WEIGHTS = torch.backends.cpu.get_cpu_capability() != "AVX512"
SMALLEST_PLANE = 12**2  # below, the products are too short to pay
SLAB_BYTES = 4e6  # of the input at a time: about the cache of a core
SINGLE_SMALL = 20480  # channels x depth x rows up to which PyTorch keeps a single volume from oneDNN


class Convolution(nn.Conv3d):
    """A convolution that keeps the sides, without a bias; channels ``inputs`` to ``outputs``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = (
            x.device.type != "cpu"
            or not x.dtype == self.weight.dtype == torch.float32
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        )
        return super().forward(x) if plain else _OnCpu.apply(x, self.weight)


class _OnCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0] and _single_small(gradient):
            # The same convolution with input and output, and all axes, reversed.
            of_input = _convolve(gradient, weight.transpose(0, 1).flip(2, 3, 4))
        slow = SLOW_WEIGHTS and x.is_contiguous() and x.shape[-1] * x.shape[-2] >= SMALLEST_PLANE
        if ctx.needs_input_grad[1] and (slow or _single_small(x)):
            of_weight = weight_gradient(x, gradient)
        wanted = [ctx.needs_input_grad[0] and of_input is None, ctx.needs_input_grad[1] and of_weight is None]
        if any(wanted):
            # torch.nn.grad would hide that channels come last behind stand-ins for what is not needed.
            one = (1, 1, 1)
            theirs = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, one, one, one, False, (0, 0, 0), 1, (*wanted, False)
            )
            of_input = theirs[0] if wanted[0] else of_input
            of_weight = theirs[1] if wanted[1] else of_weight
        return of_input, of_weight


def _convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if _single_small(x):
        return torch.mkldnn_convolution(x, weight, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    return F.conv3d(x, weight, padding=1)


def _single_small(x: torch.Tensor) -> bool:
    batch, channels, depth, rows, _ = x.shape
    return batch == 1 and channels * depth * rows <= SINGLE_SMALL and torch.backends.mkldnn.is_available()


def weight_gradient(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradient (O, I, 3, 3, 3) of the weights of a convolution with padding 1.

    Args:
        x: its input (B, I, Z, Y, X).
        gradient: of its output, (B, O, Z, Y, X).
    """
    batch, inputs, depth, rows, columns = x.shape
    outputs, pitch = gradient.shape[1], columns + 2
    plane = (rows + 2) * pitch
    length = rows * pitch - 2  # from the first to the last voxel of a plane
    # Zeros beside the gradient's rows take what the products read across the end of a row.
    gradient = F.pad(gradient, (0, 2, 0, 2)).flatten(3)
    x = F.pad(x, (1, 1, 1, 1, 1, 1)).flatten(2)
    most = max(1, min(depth, int(SLAB_BYTES / (12 * inputs * plane))))
    sums = x.new_zeros(9, most, outputs, 3 * inputs)
    for sample in range(batch):
        for z in range(0, depth, most):
            planes = min(most, depth - z)
            first, size = z * plane, (planes + 2) * plane - 2
            slab = torch.cat([x[sample, :, first + dx : first + dx + size] for dx in range(3)])
            given = gradient[sample, :, z : z + planes, :length].transpose(0, 1)
            for offset in range(9):
                start = offset // 3 * plane + offset % 3 * pitch
                moved = slab.as_strided((planes, length, 3 * inputs), (plane, 1, size), start)
                sums[offset, :planes].baddbmm_(given, moved)
    return sums.sum(1).view(3, 3, outputs, 3, inputs).permute(2, 4, 0, 1, 3).contiguous()
