"""The pre-training network on a Swin transformer: modality tokens, the encoder, a choice of decoders.

* linear: SimMIM's (arXiv 2111.09886): one linear map of the coarsest level writes all voxels below each of
  its positions.
* light: the coarse end of Swin UNETR's decoder, down to a stride of 8, and a linear map that writes 8³ voxels
  at each position; it carries what surroundings and anatomy tell. To it a linear map of the encoder's finest
  level is added, which carries what the other modalities show at the same place. In the spirit of
  :mod:`emim.networks.pretrainer`.
* deep: all of Swin UNETR's decoder.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from emim.config import PretrainConfig
from emim.masking.tokens import ModalityTokens
from emim.masking.units import from_units
from emim.networks.swin import PATCH, SwinEncoder
from emim.networks.swin_decoder import SwinDecoder

LIGHT_LEVEL = 2  # the pyramid level at which the light decoder ends


class SwinPretrainer(nn.Module):
    """Reconstructs the hidden part of a crop and gives the feature pyramid.

    Sub-modules ``tokens``, ``encoder`` and ``decoder`` have the names and shapes of those of
    :class:`emim.networks.swin_segmenter.SwinSegmenter`.

    Args:
        modalities: number of modalities M.
        config: settings of the run; here the size of the network and its decoder.

    Raises:
        EmimError: when the network cannot have that size.
    """

    encodes_parts: ClassVar[bool] = True  # positions are relative: a part of a crop means the same alone

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        network = config.network
        widths, stages = network.widths, len(network.stages)
        self.tokens = ModalityTokens(modalities)
        self.encoder = SwinEncoder(modalities, network.filters, network.stages)
        self.decoder, self.fine_head = None, None
        if config.decoder == "linear":
            self.head = VoxelBlocks(widths[-1], modalities, PATCH * 2**stages)
        elif config.decoder == "light":
            up = max(0, stages - LIGHT_LEVEL)
            self.decoder = SwinDecoder(modalities, widths, up)
            self.head = VoxelBlocks(widths[stages - up], modalities, PATCH * 2 ** (stages - up))
            self.fine_head = VoxelBlocks(widths[0], modalities, PATCH)
        else:
            self.decoder = SwinDecoder(modalities, widths, stages + 1)
            self.head = VoxelBlocks(widths[0], modalities, 1)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature pyramid, finest first, of ``x`` (B, M, Z, Y, X) with ``hidden`` voxels replaced."""
        return self.encoder(self.tokens(x, hidden))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction (B, M, Z, Y, X) and feature pyramid of the masked view."""
        volume = self.tokens(x, hidden)
        features = self.encoder(volume)
        decoded = features[-1] if self.decoder is None else self.decoder(features, volume)
        reconstruction = self.head(decoded)
        if self.fine_head is not None:
            reconstruction = reconstruction + self.fine_head(features[0])
        return reconstruction, features


class VoxelBlocks(nn.Module):
    """A linear map of each position to the ``side``³ voxels of each modality below it."""

    def __init__(self, width: int, modalities: int, side: int) -> None:
        super().__init__()
        self.modalities, self.side = modalities, side
        self.linear = nn.Conv3d(width, modalities * side**3, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = self.linear(x)
        shape = [n * self.side for n in blocks.shape[2:]]
        return from_units(blocks.unflatten(1, (self.modalities, -1)).flatten(3).mT, self.side, tuple(shape))
