"""Pyramid Barlow twins: masked and original view agree cell by cell, dimensions stay decorrelated.

Loss of one level (Zbontar 2021, arXiv 2103.03230, its lambda): with C the correlation matrix of the
projected features of both views over all observations,
L = (1/D) [ sum_i (1 - C_ii)² + lambda sum_{i != j} C_ij² ], D the projector's width.
Which levels, what an observation is and the division by D are this project's choices: E-MIM's
(arXiv 2407.10377) are not published.
"""

from __future__ import annotations

import torch

from emim.machine.reduce import sum_over_ranks

LAMBDA = 0.0051


def barlow_loss(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Barlow twins loss of two views.

    Args:
        a, b: (n, D), row i of both describes the same place; n may differ between ranks of a
            distributed run, whose observations are pooled.
        weight: (n,), 1 for rows that are observations and 0 for others; None: all are.

    Returns:
        Scalar; 0 when there are fewer than two observations.
    """
    views = torch.stack([a, b]).float()
    weight = views.new_ones(len(a), 1) if weight is None else weight.float()[:, None]
    seen = sum_over_ranks(weight.sum())
    count = seen.clamp(min=1)
    mean = sum_over_ranks((weight * views).sum(1)) / count
    centred = weight * (views - mean[:, None])
    variance = sum_over_ranks(centred.square().sum(1)) / count
    normed = centred / (variance[:, None] + 1e-9).sqrt()
    correlation = sum_over_ranks(normed[0].T @ normed[1]) / count
    diagonal = correlation.diagonal()
    # Summed without the diagonal: subtracting it afterwards would leave rounding errors.
    off = (correlation - diagonal.diag()).square().sum()
    loss = ((1 - diagonal).square().sum() + LAMBDA * off) / len(diagonal)
    return loss * (seen >= 2)
