"""Pyramid Barlow twins: masked and original view agree cell by cell, dimensions stay decorrelated.

Loss of one level (Zbontar 2021, arXiv 2103.03230, its lambda): with C the correlation matrix of the
projected features of both views over all observations,
L = (1/D) [ sum_i (1 - C_ii)² + lambda sum_{i != j} C_ij² ], D the projector's width.
Which levels, what an observation is and the division by D are this project's choices: E-MIM's
(arXiv 2407.10377) are not published.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

LAMBDA = 0.0051


def barlow_loss(a: torch.Tensor, b: torch.Tensor, off_diagonal: float = LAMBDA) -> torch.Tensor:
    """Barlow twins loss of two views.

    Args:
        a, b: (n, D), row i of both describes the same place; n may differ between ranks of a
            distributed run, whose observations are pooled.
        off_diagonal: lambda.

    Returns:
        Scalar; 0 when there are fewer than two observations.
    """
    if a.device.type != "mps":  # which has no float64
        a, b = a.double(), b.double()
    stacked = torch.stack([a, b])
    count = _sum_over_ranks(torch.tensor(float(len(a)), dtype=a.dtype, device=a.device))
    if count < 2:
        return (a.sum() + b.sum()).float() * 0
    mean = _sum_over_ranks(stacked.sum(1)) / count
    centred = stacked - mean[:, None]
    variance = _sum_over_ranks(centred.square().sum(1)) / count
    normed = centred / (variance[:, None] + 1e-9).sqrt()
    correlation = _sum_over_ranks(normed[0].T @ normed[1]) / count
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (((1 - diagonal).square().sum() + off_diagonal * off) / len(diagonal)).float()


def _sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(x)  # the differentiable one
    return x
