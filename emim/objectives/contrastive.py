"""The contrastive baseline, SimCLR (Chen 2020, arXiv 2002.05709), and what tells how it goes.

Two crops of one subject are to have like features, those of other subjects in the batch unlike ones. The more
others, the better SimCLR works: it was made for batches of thousands, and 3-D crops allow a few. A comparison
with it is one at the batch that fits, not a judgement of contrastive learning.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from emim.machine.distributed import rank, size
from emim.machine.reduce import sum_over_ranks

TEMPERATURE = 0.1
PROJECTION = 128  # SimCLR's width of what is compared


def nt_xent(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Normalised, temperature-scaled cross entropy: each view finds its partner among all other views.

    Args:
        a, b: (n, D), row i of both from the same subject, all rows from different ones.

    Returns:
        Mean over the 2n views; ln(2n - 1) when all views look alike (:func:`chance`).
    """
    similarity = _cosines(a, b) / TEMPERATURE
    return F.cross_entropy(similarity, _partners(a))


def chance(samples: int) -> float:
    """What :func:`nt_xent` is when the features do not tell subjects apart."""
    return float(torch.tensor(2.0 * samples - 1).log())


def found(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Share of the views whose most similar view is their partner; arguments as of :func:`nt_xent`."""
    return (_cosines(a, b).argmax(1) == _partners(a)).float().mean()


def alignment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared distance between normalised partners, 0 to 4 (Wang and Isola 2020, arXiv 2005.10242)."""
    return (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()


def spread(z: torch.Tensor) -> torch.Tensor:
    """Uniformity of Wang and Isola: ln of the mean of exp(-2 d²) over pairs of normalised rows of (n, D).

    0 when all rows are alike, -4 or so when they lie evenly on the sphere.
    """
    return F.pdist(F.normalize(z.float(), dim=1)).square().mul(-2).exp().mean().log()


def all_ranks(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, with gradient, from those (n, D) of each; n is the same everywhere."""
    if size() == 1:
        return rows
    everything = rows.new_zeros(size(), *rows.shape)
    everything[rank()] = rows
    return sum_over_ranks(everything).flatten(0, 1)


def _cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(2n, 2n) cosines of all views, -inf of a view with itself."""
    z = F.normalize(torch.cat([a, b]).float(), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return (z @ z.T).masked_fill(itself, -torch.inf)


def _partners(a: torch.Tensor) -> torch.Tensor:
    return torch.arange(2 * len(a), device=a.device).roll(len(a))
