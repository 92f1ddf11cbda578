"""The classification network: an encoder, pooling over its pyramid, and a classifier.

What is pooled are the features of every pyramid level but the finest (of a single level, that one), each
position normalised over its channels, since the sums of residuals in a convolutional encoder have no scale
of their own. A position counts by the share of it that is foreground, and, with attention pooling, by a
learned score of its features (Ilse et al., arXiv 1802.04712, without the gate). The score begins as 0, so
attention begins as the average.

Pooling gives each crop's mean and its *mass*, the logarithm of the sum of the weights. With both, crops are
combined into exactly what one large crop's positions would give, so a case of any size is read crop by crop.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from emim.config import ClassifierDesign, NetworkConfig

NEARLY_NONE = 1e-6  # of the weight of a position without foreground: a crop of air has a mean, too
TEMPERATURE = 0.07  # of the votes of neighbours: Wu et al., arXiv 1805.01978


class Pooling(nn.Module):
    """The weighted mean over the positions of one pyramid level.

    Args:
        width: channels.
        attention: weigh positions by a learned score, too.
    """

    def __init__(self, width: int, attention: bool) -> None:
        super().__init__()
        self.width = width
        if attention:
            self.enter = nn.Linear(width, max(8, width // 4))
            self.query = nn.Parameter(torch.zeros(1, max(8, width // 4)))

    def forward(self, level: torch.Tensor, foreground: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (B, C) and mass (B,) of ``level`` (B, C, z, y, x).

        ``foreground`` (B, 1, Z, Y, X) is 1 where the patient is.
        """
        share = F.adaptive_avg_pool3d(foreground, level.shape[-3:]).flatten(1)
        features = F.layer_norm(level.flatten(2).transpose(1, 2).float(), (self.width,))
        weight = share.float().clamp(min=NEARLY_NONE).log()
        if hasattr(self, "query"):
            weight = weight + (self.enter(features).tanh() @ self.query[0]).float()
        return torch.einsum("bn,bnc->bc", weight.softmax(1), features), weight.logsumexp(1)


class Neighbours(nn.Module):
    """Votes of the most similar stored cases, by the cosine of their features.

    Each vote counts by its similarity and, so that a frequent class does not win by being frequent, by the
    inverse of the number of stored cases of its class.

    Args:
        width: of the features.
        classes: how many there are.
        design: ``bank`` and ``neighbours``.
    """

    def __init__(self, width: int, classes: int, design: ClassifierDesign) -> None:
        super().__init__()
        self.classes, self.neighbours = classes, design.neighbours
        self.register_buffer("features", torch.zeros(design.bank, width))
        self.register_buffer("target", torch.zeros(design.bank, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logarithms (B, classes) of the classes' shares of the votes, for features (B, width)."""
        similarity = F.normalize(x, dim=1) @ F.normalize(self.features, dim=1).T
        near = similarity.topk(min(self.neighbours, similarity.shape[1]), dim=1)
        of = F.one_hot(self.target, self.classes).float()
        counts = of.sum(0).clamp(min=1)
        strength = ((near.values - 1) / TEMPERATURE).exp()[..., None]
        votes = (strength * (of / counts)[near.indices]).sum(1)
        shares = votes / votes.sum(1, keepdim=True).clamp(min=1e-30)
        smooth = 0.01  # that nobody of so few votes for a class does not make it impossible
        return ((1 - smooth) * shares + smooth / self.classes).log()


class Classifier(nn.Module):
    """Logits of each class; what the backbones share. A backbone adds its encoder and :meth:`pyramid`.

    Args:
        classes: how many there are.
        network: size of the encoder.
        design: pooling and kind of classifier.
    """

    modality_axes: ClassVar[dict[str, int]] = {}

    def __init__(self, classes: int, network: NetworkConfig, design: ClassifierDesign) -> None:
        super().__init__()
        self.widths = network.widths[1:] or network.widths
        self.pooling = nn.ModuleList(Pooling(w, design.pooling == "attention") for w in self.widths)
        width = sum(self.widths)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        head = Neighbours(width, classes, design) if design.bank else nn.Linear(width, classes)
        self.output = nn.ModuleDict({"head": head})

    def pyramid(self, x: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's levels, finest first, of ``x`` (B, M, Z, Y, X) with modalities ``present`` (B, M)."""
        raise NotImplementedError

    def summarise(
        self, x: torch.Tensor, present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (B, C) of all levels side by side, and the mass (B, levels) of each.

        ``present`` (B, M), boolean, is false for modalities that are missing; their voxels are ignored.
        Sides must be multiples of :attr:`NetworkConfig.divisor`.
        """
        if present is None:
            present = x.new_ones(x.shape[:2], dtype=torch.bool)
        # Preprocessing leaves exactly 0 where no modality shows the patient.
        foreground = ((x != 0) & present[:, :, None, None, None]).any(1, keepdim=True).to(x.dtype)
        levels = self.pyramid(x, present)[-len(self.widths) :]
        pooled = [pool(level, foreground) for pool, level in zip(self.pooling, levels, strict=True)]
        return torch.cat([mean for mean, _ in pooled], 1), torch.stack([mass for _, mass in pooled], 1)

    def combine(self, means: torch.Tensor, masses: torch.Tensor) -> torch.Tensor:
        """Features (1, C) of all positions of T crops together, from their ``means`` and ``masses``."""
        weights = masses.softmax(0).repeat_interleave(torch.tensor(self.widths, device=masses.device), 1)
        return (weights * means).sum(0, keepdim=True)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) from pooled features (B, C)."""
        return self.output["head"]((features - self.centre) / self.spread)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map crops ``x`` (B, M, Z, Y, X) to logits (B, classes); see :meth:`summarise`."""
        return self.classify(self.summarise(x, present)[0])

    @torch.no_grad()
    def standardise(self, features: torch.Tensor, scale: bool) -> None:
        """Give pooled ``features`` (n, C) mean 0 before the classifier and, with ``scale``, deviation 1.

        What all cases have in common would drown what tells them apart. A feature that hardly varies is not
        blown up to more than ten times the median one. Where the encoder learns, nothing is scaled: features
        move much further than cases differ at first, and logits would be far too large.
        """
        self.centre.copy_(features.mean(0))
        if not scale:
            return
        deviation = features.std(0, correction=0)
        self.spread.copy_(deviation.clamp(min=max(0.1 * float(deviation.median()), 1e-6)))
