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
(:func:`rates_by_size`); for segmentation they do not. Each was the better of the two where it is used
(Testing/benchmarks/RESULTS.md, sections 12 and 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from emim.networks.backbone_classifiers import ResidualClassifier
from emim.networks.residual_unet import ResidualEncoder
from emim.networks.segmenter import Segmenter


@dataclass(frozen=True)
class Scales:
    """Standard deviations of features: of the encoder's levels, finest first, and of the decoder's
    levels, coarsest first."""

    encoder: list[float]
    decoder: list[float]


@torch.no_grad()
def feature_scales(network: Segmenter, x: torch.Tensor, present: torch.Tensor) -> Scales:
    """Measure :class:`Scales` on crops ``x`` (B, M, Z, Y, X) with modalities ``present`` (B, M)."""
    pyramid = network.unet.encoder(network.tokens(x, ~present))
    decoder, y = [], pyramid[-1]
    for level, skip in zip(network.unet.up_layers, pyramid[-2::-1], strict=True):
        y = level["blocks"](level["upsample"](y) + skip)
        decoder.append(float(y.std()))
    return Scales([float(f.std()) for f in pyramid], decoder)


@torch.no_grad()
def match_fresh_scale(
    network: Segmenter, fresh: Segmenter, x: torch.Tensor, present: torch.Tensor, loaded: int
) -> list[float]:
    """Rescale ``network`` in place to the scale of ``fresh``; see the module's text.

    Args:
        network: with transferred weights in the encoder and the first ``loaded`` levels of the decoder.
        fresh: the same network before the transfer.
        x, present: as in :func:`feature_scales`.

    Returns:
        The factor of each encoder level, finest first.
    """
    wanted, learned = feature_scales(fresh, x, present), feature_scales(network, x, present)
    factors = [f / s for f, s in zip(wanted.encoder, learned.encoder, strict=True)]
    _scale_encoder(network.unet.encoder, fresh.unet.encoder, factors)
    decoder = list(network.unet.up_layers)
    coarse = factors[::-1]
    for i, level in enumerate(decoder[:loaded]):  # their skips have been scaled: they follow
        _scale(level["upsample"], coarse[i + 1] / coarse[i])
        _scale_blocks(level["blocks"], fresh.unet.up_layers[i]["blocks"], coarse[i + 1])
    if 0 < loaded < len(decoder):  # the first fresh level takes in what is left of the difference
        left = feature_scales(network, x, present).decoder[loaded - 1]
        _scale(decoder[loaded]["upsample"], wanted.decoder[loaded - 1] / left)
    return factors


@torch.no_grad()
def match_fresh_encoder(
    network: ResidualClassifier, fresh: ResidualClassifier, x: torch.Tensor, present: torch.Tensor
) -> list[float]:
    """Rescale the encoder of ``network`` in place to the scale of that of ``fresh``.

    Args:
        network: with transferred weights in the encoder.
        fresh, x, present: as in :func:`match_fresh_scale`.

    Returns:
        The factor of each encoder level, finest first.
    """
    levels = zip(fresh.pyramid(x, present), network.pyramid(x, present), strict=True)
    factors = [float(new.std() / learned.std()) for new, learned in levels]
    _scale_encoder(network.encoder, fresh.encoder, factors)
    return factors


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


def _scale_encoder(encoder: ResidualEncoder, fresh: ResidualEncoder, factors: list[float]) -> None:
    encoder.conv_init.weight *= factors[0]
    for i, level in enumerate(encoder.layers):
        _scale_blocks(level["blocks"], fresh.layers[i]["blocks"], factors[i])
        if i + 1 < len(factors):
            level["downsample"].weight *= factors[i + 1] / factors[i]


def _scale_blocks(blocks: nn.Module, fresh: nn.Module, factor: float) -> None:
    for block, new in zip(blocks, fresh, strict=True):
        block.conv1.weight *= new.conv1.weight.norm() / block.conv1.weight.norm()
        block.conv2.weight *= factor


def _scale(module: nn.Module, factor: float) -> None:
    for weight in module.parameters():
        weight *= factor
