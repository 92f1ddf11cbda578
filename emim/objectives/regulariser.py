"""Regularisers against dimensional collapse, by name: barlow (E-MIM's), vicreg, uniformity, none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from emim.config import RegulariserConfig
from emim.objectives.barlow import barlow_loss
from emim.objectives.observations import cell_observations


def vicreg_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """VICReg (arXiv 2105.04906) with its weights 25, 25, 1, divided by 25. ``a``, ``b``: (n, D)."""
    n, width = a.shape
    loss = F.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        loss = loss + F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
        covariance = z.T @ z / (n - 1)
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + off / width / 25
    return loss


def uniformity_loss(features: torch.Tensor) -> torch.Tensor:
    """Uniformity penalty of U-MAE (arXiv 2210.08344): mean (F Fᵀ)² of L2-normalised rows (n, C)."""
    f = F.normalize(features.float(), dim=1)
    return (f @ f.T).square().mean()


class Regulariser(nn.Module):
    """Weighted sum of one penalty over chosen levels of a feature pyramid.

    Args:
        config: which penalty, where, how wide.
        widths: channels of each pyramid level, finest first.
    """

    def __init__(self, config: RegulariserConfig, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.levels = config.levels if config.levels is not None else tuple(range(1, len(widths)))
        self.projectors = nn.ModuleDict()
        if self.compares_views:
            for level in self.levels:
                self.projectors[str(level)] = nn.Sequential(
                    nn.Linear(widths[level], config.width, bias=False),
                    nn.BatchNorm1d(config.width),
                    nn.ReLU(),
                    nn.Linear(config.width, config.width, bias=False),
                )

    @property
    def compares_views(self) -> bool:
        """Whether the original view has to be encoded too, at the cost of a second encoder pass."""
        return self.config.name in ("barlow", "vicreg")

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
            a = cell_observations(masked[level], foreground, self.config.cells)
            if len(a) < 4:  # nearly empty crops carry no information about the features
                terms.append(a.sum() * 0)
            elif self.config.name == "uniformity":
                terms.append(uniformity_loss(a))
            else:
                b = cell_observations(original[level], foreground, self.config.cells)
                projector = self.projectors[str(level)]
                loss = barlow_loss if self.config.name == "barlow" else vicreg_loss
                terms.append(loss(projector(a), projector(b)))
        return torch.stack(terms).mean()


REGULARISERS = ("barlow", "vicreg", "uniformity", "none")
