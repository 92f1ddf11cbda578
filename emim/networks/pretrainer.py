"""The pre-training network: modality tokens, the pyramid encoder, a choice of decoders.

* ``linear``: a linear readout of every level of the encoder, added up; a level of stride s writes a block of
  s³ voxels per modality at each position.
* ``light``: the coarse end of the segmentation network's own decoder, down to a stride of 4, read out
  linearly in blocks of 4³ voxels: it carries what surroundings and anatomy tell. To it a linear readout of
  the finest level of the encoder is added: it carries what the other modalities show at the same place.
  Together they cost a few per cent of the whole decoder.
* ``deep``: the whole decoder of the segmentation network.

Tokens and encoder go on into fine-tuning, the decoder does not (:mod:`emim.networks.transfer`).
That a light decoder suffices is a finding of arXiv 2204.11716; these forms of it are this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from emim.config import PretrainConfig
from emim.masking.tokens import ModalityTokens
from emim.masking.units import from_units
from emim.networks.instance_norm import InstanceNorm
from emim.networks.pointwise import Pointwise
from emim.networks.residual_unet import ResidualEncoder, decode, decoder_levels

LIGHT_LEVEL = 2  # where the light decoder ends: a stride of 4


class MaskedAutoencoder(nn.Module):
    """Reconstructs the hidden part of a crop and gives the feature pyramid.

    Sub-modules ``tokens`` and ``encoder`` have the names and shapes of those of
    :class:`emim.networks.segmenter.Segmenter`.

    Args:
        modalities: number of modalities M.
        config: settings of the run; here the size of the network and the decoder.
    """

    encodes_parts: ClassVar[bool] = True  # a part of a crop means the same as it does in the crop

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        network, widths = config.network, config.network.widths
        last = {"linear": len(widths) - 1, "light": LIGHT_LEVEL, "deep": 0}[config.decoder]
        self.tokens = ModalityTokens(modalities)
        self.encoder = ResidualEncoder(modalities, network.filters, network.blocks)
        self.up_layers = decoder_levels(network.filters, len(widths))[: len(widths) - 1 - last]
        self.head = Readout(widths[last], modalities, 2**last)
        between = range(last) if config.decoder == "linear" else range(min(last, 1))
        self.fine_head = nn.ModuleList(Readout(widths[level], modalities, 2**level) for level in between)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature pyramid, finest first, of ``x`` (B, M, Z, Y, X) with ``hidden`` voxels replaced."""
        return self.encoder(self.tokens(x, hidden))

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Reconstruction (B, M, Z, Y, X) from the feature pyramid."""
        result = self.head(decode(self.up_layers, list(features)))
        for readout, level in zip(self.fine_head, features, strict=False):
            result = result + readout(level)
        return result

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction and feature pyramid of the masked view."""
        features = self.encode(x, hidden)
        return self.decode(features), features


class Readout(nn.Sequential):
    """A linear map of normalised features, the encoder's levels being raw sums of residuals.

    Args:
        width: channels of the features.
        modalities: number of modalities M.
        side: of the block of voxels that is written at each position.
    """

    def __init__(self, width: int, modalities: int, side: int) -> None:
        super().__init__(InstanceNorm(width), nn.ReLU(inplace=True), Pointwise(width, modalities * side**3))
        self.modalities, self.side = modalities, side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features (B, width, z, y, x) to voxels (B, M, z · side, y · side, x · side)."""
        blocks = super().forward(x)
        if self.side == 1:
            return blocks
        b, _, *grid = blocks.shape
        blocks = blocks.reshape(b, self.modalities, self.side**3, -1).transpose(2, 3)
        return from_units(blocks, self.side, tuple(n * self.side for n in grid))
