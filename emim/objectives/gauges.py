"""Gauges of collapse, measured on a fixed batch; they enter no loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def effective_rank(features: torch.Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred (n, C) matrix.

    Roy and Vetterli 2007; between 1 and min(C, n - 1), and 0 when all rows are equal.
    """
    x = features.double()
    s = torch.linalg.svdvals(x - x.mean(0))
    if s.sum() <= 1e-12:
        return 0.0
    p = s / s.sum()
    p = p[p > 0]
    return float(torch.exp(-(p * p.log()).sum()))


def rank_ratio(rank: float, shape: tuple[int, int]) -> float:
    """``rank`` of an (n, C) matrix between the least, 1 (ratio 0), and the attainable, min(C, n - 1)."""
    attainable = min(shape[1], shape[0] - 1)
    return max(0.0, rank - 1) / (attainable - 1) if attainable > 1 else 1.0


def uniformity(features: torch.Tensor) -> float:
    """Mean squared cosine between different rows of the centred (n, C) matrix; 1: all on one line."""
    x = features.double()
    f = F.normalize(x - x.mean(0), dim=1)
    square = (f @ f.T).square()
    n = len(f)
    return float((square.sum() - square.diagonal().sum()) / (n * (n - 1)))


def mean_correlation(features: torch.Tensor) -> float:
    """Mean absolute correlation between different channels of an (n, C) matrix."""
    x = features.double()
    x = x - x.mean(0)
    x = x / x.square().sum(0).sqrt().clamp(min=1e-12)
    correlation = (x.T @ x).abs()
    c = len(correlation)
    return float((correlation.sum() - correlation.diagonal().sum()) / max(c * (c - 1), 1))


def output_variance(prediction: torch.Tensor, target: torch.Tensor, where: torch.Tensor) -> float:
    """Variance across subjects of the prediction over that of the target, at the same voxels.

    0 means that the output no longer depends on the input: complete collapse.

    Args:
        prediction, target: (subjects, M, Z, Y, X), all under the same mask.
        where: boolean, same shape: hidden, present, foreground. Voxels that fewer than two
            subjects have are left out; NaN when none is left.
    """
    w = where.double()
    count = w.sum(0)
    several = count > 1

    def spread(x: torch.Tensor) -> torch.Tensor:
        x = torch.where(where, x.double(), 0)
        return (x.square().sum(0) - x.sum(0).square() / count.clamp(min=1))[several].sum()

    return float(spread(prediction) / spread(target)) if several.any() else float("nan")
