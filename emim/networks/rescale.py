"""Give transferred weights the scale of fresh ones, without changing what the network computes.

Within SegResNetDS every branch begins with an instance normalisation, while the residual sums that go to
the skip connections do not: pre-training leaves the scale of both free, and it grows by one or two
orders of magnitude. A fresh decoder on top would be drowned by the skips and start from logits far
too large; and weights that have grown hardly move at a learning rate made for fresh ones. So

* a convolution that writes into a sum is scaled by what brings the level's features to the standard
  deviation they have in a fresh network: all of a level alike, which scales its sum exactly;
* a convolution whose output is normalised (the first of a block) is scaled to its fresh norm, which
  changes nothing.

A classifier normalises the features it pools, so for it the second reason alone counts.

Up to the normalisations' epsilon the features stay the same but for one factor per level.

The features had grown more than the weights that write them: scaled with their level, these are far smaller
than fresh ones. An optimiser like Adam moves every weight by about the learning rate, whatever its gradient,
so that such weights are soon overwritten. For classification they move in proportion to their size
(:func:`rates_by_size`), which was better. For segmentation they do not: that was better on synthetic heads
and made no difference on real ones (Testing/benchmarks/STUDIES.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from emim.networks.backbone_classifiers import ResidualClassifier
from emim.networks.segmenter import Segmenter


@torch.no_grad()
def match_fresh_scale(
    network: Segmenter | ResidualClassifier,
    fresh: Segmenter | ResidualClassifier,
    x: torch.Tensor,
    present: torch.Tensor,
) -> list[float]:
    """Rescale the encoder of ``network`` in place to the scale of that of ``fresh``; see the module's text.

    Args:
        network: with transferred weights in the encoder.
        fresh: the same network before the transfer.
        x, present: crops (B, M, Z, Y, X) to measure on, and their modalities (B, M).

    Returns:
        The factor of each encoder level, finest first.
    """
    levels = zip(fresh.pyramid(x, present), network.pyramid(x, present), strict=True)
    factors = [_ratio(float(new.std()), float(learned.std())) for new, learned in levels]
    network.encoder.conv_init.weight *= factors[0]
    for i, level in enumerate(network.encoder.layers):
        for block, new in zip(level["blocks"], fresh.encoder.layers[i]["blocks"], strict=True):
            block.conv1.weight *= new.conv1.weight.norm() / block.conv1.weight.norm()
            block.conv2.weight *= factors[i]
        if i + 1 < len(factors):
            level["downsample"].weight *= factors[i + 1] / factors[i]
    return factors


def _ratio(new: float, learned: float) -> float:
    """What brings features to their fresh scale; 1 where a crop of nothing but air tells none."""
    return new / learned if new > 0 and learned > 0 else 1.0


@torch.no_grad()
def rates_by_size(network: nn.Module, fresh: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """The learning rate of named tensors, as a share of that of fresh ones, for a change in proportion.

    The share is the tensor's norm over that of the fresh one, as a power of two so that few differ, and 1 at
    most: weights that have grown change less in proportion. Vectors, such as biases, have 1.
    """
    now, before = dict(network.named_parameters()), dict(fresh.named_parameters())
    shares = {}
    for name in names:
        if name not in now or now[name].ndim < 2:
            continue
        size, usual = float(now[name].norm()), float(before[name].norm())
        if size > 0 and usual > 0 and (power := round(math.log2(size / usual))) < 0:
            shares[name] = 2.0**power
    return shares
