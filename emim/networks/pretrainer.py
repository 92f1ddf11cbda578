"""The pre-training network: modality tokens, the pyramid encoder, a light decoder.

The light decoder has two parts that add up. The coarse end of the segmentation network's own
decoder, down to a stride of 4, with a linear head that writes a block of 4³ voxels per modality at
each position: it carries what surroundings and anatomy tell. And a linear readout of the finest
level of the encoder, voxel by voxel: it carries what the other modalities show at the same place.
Together they cost a few per cent of the full decoder, and the coarse part goes on into fine-tuning.
That a light decoder suffices is a finding of arXiv 2204.11716; this form of it is this project's.
"""

from __future__ import annotations

import torch
from torch import nn

from emim.config import PretrainConfig
from emim.masking.tokens import ModalityTokens
from emim.masking.units import from_units
from emim.networks.residual_unet import ResidualEncoder, decode, decoder_levels

LEVEL = 2
STRIDE = 2**LEVEL


class MaskedAutoencoder(nn.Module):
    """Reconstructs the hidden part of a crop and gives the feature pyramid.

    Sub-modules ``tokens``, ``encoder`` and ``up_layers`` have the names and shapes of those of
    :class:`emim.networks.segmenter.Segmenter`.

    Args:
        modalities: number of modalities M.
        config: settings of the run; here the size of the network.
    """

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        network = config.network
        coarse = len(network.blocks) - 1 - LEVEL  # decoder levels down to that stride
        self.modalities = modalities
        self.tokens = ModalityTokens(modalities)
        self.encoder = ResidualEncoder(modalities, network.filters, network.blocks)
        self.up_layers = decoder_levels(network.filters, len(network.blocks))[:coarse]
        self.head = _readout(network.widths[LEVEL], modalities * STRIDE**3)
        self.fine_head = _readout(network.widths[0], modalities)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature pyramid, finest first, of ``x`` (B, M, Z, Y, X) with ``hidden`` voxels replaced."""
        return self.encoder(self.tokens(x, hidden))

    def decode(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Reconstruction (B, M, Z, Y, X) from the feature pyramid."""
        blocks = self.head(decode(self.up_layers, features))
        b, _, z, y, x_ = blocks.shape
        blocks = blocks.view(b, self.modalities, STRIDE**3, z * y * x_).transpose(2, 3)
        coarse = from_units(blocks, STRIDE, (z * STRIDE, y * STRIDE, x_ * STRIDE))
        return coarse + self.fine_head(features[0])

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction and feature pyramid of the masked view."""
        features = self.encode(x, hidden)
        return self.decode(features), features


def _readout(width: int, outputs: int) -> nn.Sequential:
    """A linear map of normalised features, the encoder's levels being raw sums of residuals."""
    return nn.Sequential(
        nn.InstanceNorm3d(width, affine=True), nn.ReLU(), nn.Conv3d(width, outputs, kernel_size=1)
    )
