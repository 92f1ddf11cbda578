"""Regularisers against dimensional collapse, by name: barlow (E-MIM's), vicreg, uniformity.

To add one, write a penalty and name it in :data:`PENALTIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from emim.config import RegulariserConfig
from emim.machine.reduce import sum_over_ranks
from emim.objectives.barlow import barlow_loss
from emim.objectives.observations import cell_observations

LEAST = 4  # observations; fewer, from nearly empty crops, carry no information about the features


def vicreg_loss(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """VICReg (arXiv 2105.04906) with its weights 25, 25, 1, divided by 25.

    ``a``, ``b``: (n, D); ``weight`` (n,) is 1 for rows that are observations and 0 for others, None: all
    are. The observations of all ranks are pooled, whose n may differ.
    """
    width = a.shape[1]
    weight = _column(weight, a)
    n = _count(weight)
    loss = sum_over_ranks((weight * (a - b).square()).sum()) / (n * width)
    for z in (a, b):
        z = weight * (z - sum_over_ranks((weight * z).sum(0)) / n)
        covariance = sum_over_ranks(z.T @ z) / (n - 1).clamp(min=1)
        variance = covariance.diagonal()
        loss = loss + F.relu(1 - (variance + 1e-4).sqrt()).mean() / 2
        off = (covariance - variance.diag()).square().sum()
        loss = loss + off / width / 25
    return loss


def uniformity_loss(features: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Uniformity penalty of U-MAE (arXiv 2210.08344): mean (F Fᵀ)² of L2-normalised rows (n, C).

    The rows of all ranks are pooled: the sum of squares of F Fᵀ is that of Fᵀ F, a sum over rows. ``weight``
    as in :func:`vicreg_loss`.
    """
    weight = _column(weight, features)
    f = weight * F.normalize(features.float(), dim=1)
    return sum_over_ranks(f.T @ f).square().sum() / _count(weight).square()


class PooledBatchNorm(nn.Module):
    """Batch normalisation of rows (n, D) with the statistics of the observations of all ranks.

    PyTorch's SyncBatchNorm is for GPUs only. There are no running statistics: the projector is used in
    training alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise all rows by the statistics of those whose ``weight`` (n,) is 1; None: of all."""
        weight = _column(weight, x)
        count = _count(weight)
        centred = x - sum_over_ranks((weight * x).sum(0)) / count
        variance = sum_over_ranks((weight * centred.square()).sum(0)) / count
        return centred * (variance + 1e-5).rsqrt() * self.weight + self.bias


class Projector(nn.Sequential):
    """Linear, batch normalisation, ReLU, linear, from ``inputs`` to ``width`` channels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            nn.Linear(inputs, width, bias=False),
            PooledBatchNorm(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        first, norm, rectify, last = self
        return last(rectify(norm(first(rows), weight)))


def _column(weight: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    return rows.new_ones(len(rows), 1) if weight is None else weight[:, None]


def _count(weight: torch.Tensor) -> torch.Tensor:
    """How many observations all ranks have together; at least 1, as it divides."""
    return sum_over_ranks(weight.sum()).clamp(min=1)


class Penalty(NamedTuple):
    """A penalty on features.

    Attributes:
        of: maps rows (n, C) of the masked view, where ``compares_views`` those of the original too, and the
            weight (n,), which is 1 for observations and 0 for others, to a scalar.
        compares_views: whether the original view is encoded too; both then go through a projector.
    """

    of: Callable[..., torch.Tensor]
    compares_views: bool


PENALTIES = {
    "barlow": Penalty(barlow_loss, compares_views=True),
    "vicreg": Penalty(vicreg_loss, compares_views=True),
    "uniformity": Penalty(uniformity_loss, compares_views=False),
}
VIEWS = ("whole", "half")


class Regulariser(nn.Module):
    """Weighted sum of one penalty over chosen levels of a feature pyramid.

    Args:
        config: which penalty, where, how wide.
        widths: channels of each pyramid level, finest first.
    """

    def __init__(self, config: RegulariserConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.penalty = PENALTIES[config.name]
        all_but_finest = tuple(range(1, len(widths))) or (0,)  # a transformer has one level
        self.levels = config.levels if config.levels is not None else all_but_finest
        self.projectors = nn.ModuleDict()
        if self.compares_views:
            for level in self.levels:
                self.projectors[str(level)] = Projector(widths[level], config.width)

    @property
    def compares_views(self) -> bool:
        """Whether the original view has to be encoded too."""
        return self.penalty.compares_views

    def forward(
        self,
        masked: list[torch.Tensor],
        original: list[torch.Tensor] | None,
        foreground: torch.Tensor,
    ) -> torch.Tensor:
        """Mean penalty over the levels (all levels weigh the same), float32 scalar.

        Args:
            masked: pyramid (B, C, z, y, x) of the masked view, finest first.
            original: the same of the original view; None unless :attr:`compares_views`.
            foreground: boolean (B, 1, Z, Y, X).
        """
        terms = []
        for level in self.levels:
            a, weight = cell_observations(masked[level], foreground, self.config.cells)
            if self.compares_views:
                b, _ = cell_observations(original[level], foreground, self.config.cells)
                projector = self.projectors[str(level)]
                loss = self.penalty.of(projector(a, weight), projector(b, weight), weight)
            else:
                loss = self.penalty.of(a, weight)
            terms.append(loss * (_count(weight) >= LEAST))
        return torch.stack(terms).mean()
