"""Sums over the ranks of a distributed run, through which gradients flow.

Every rank that computes its loss from such sums gets the loss of the whole batch. The gradient of a sum is
summed over the ranks as well, so each rank's gradient is that of all ranks' losses together, and the mean
over ranks that DistributedDataParallel takes is exactly the gradient of the one loss. In a single process
nothing happens.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from emim.machine import distributed


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """``x``, of the same shape on every rank, summed over the ranks."""
    return _Sum.apply(x) if distributed.size() > 1 else x


def mean_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """As :func:`sum_over_ranks`, divided by the number of ranks."""
    return sum_over_ranks(x) / distributed.size() if distributed.size() > 1 else x


def max_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """The largest value on any rank, element by element; without a gradient."""
    if distributed.size() == 1:
        return x
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(gradient)
