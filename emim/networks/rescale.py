"""Fit a fresh decoder to the feature scales of a pre-trained encoder.

Within SegResNetDS every branch begins with an instance normalisation, while the residual sums that go to
the skip connections do not: pre-training leaves their scale free, and it grows by one or two orders of
magnitude. A decoder and output layer with their usual initial weights would be drowned by the skips and
start from logits far too large, which costs more steps than pre-training saves. So the fresh layers
are scaled, exactly as if the network were all fresh; what was loaded stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
def fit_fresh_decoder(network: Segmenter, fresh: Scales, learned: Scales, loaded: int) -> list[float]:
    """Scale the fresh decoder levels of ``network`` in place; its logits get the size they have when fresh.

    Args:
        network: with transferred weights in the encoder and the first ``loaded`` levels of the decoder.
        fresh, learned: scales before and after the transfer, on the same crops.

    Returns:
        The factor of each encoder level, learned over fresh, finest first.
    """
    factors = [a / b for a, b in zip(learned.encoder, fresh.encoder, strict=True)]
    levels = list(network.unet.up_layers)
    coarse_to_fine = factors[-2::-1]  # of the skip that each decoder level adds
    before = learned.decoder[loaded - 1] / fresh.decoder[loaded - 1] if loaded else factors[-1]
    for level, factor in list(zip(levels, coarse_to_fine, strict=True))[loaded:]:
        for weight in level["upsample"].parameters():
            weight *= factor / before
        for block in level["blocks"]:
            block.conv2.weight *= factor
        before = factor
    levels[-1]["head"].weight /= before
    return factors
