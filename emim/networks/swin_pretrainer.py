"""The pre-training network on a Swin transformer: modality tokens, the encoder, a choice of decoders.

* linear: a linear map of each level writes all voxels below each of its positions, and the results are added
  up. SimMIM (arXiv 2111.09886) reads the coarsest level alone, whose few numbers cannot hold what 16³ voxels
  of several modalities look like.
* light: the coarse end of Swin UNETR's decoder, down to a stride of 8, and a linear map that writes 8³ voxels
  at each position; it carries what surroundings and anatomy tell. To it a linear map of the encoder's finest
  tokens is added, which carries what the other modalities show at the same place. In the spirit of
  :mod:`emim.networks.pretrainer`.
* deep: all of Swin UNETR's decoder.

The finest tokens are read after the blocks of the first stage: before them they are linear in the voxels, and
nothing read there can depend on what is hidden.
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

    Sub-modules ``tokens`` and ``encoder`` have the names and shapes of those of
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
        up = {"linear": 0, "light": max(0, stages - LIGHT_LEVEL), "deep": stages + 1}[config.decoder]
        self.up_layers = None if config.decoder == "linear" else SwinDecoder(modalities, widths, up)
        level = max(0, stages - up)
        self.head = VoxelBlocks(widths[level], modalities, 1 if up > stages else PATCH * 2**level)
        between = {"linear": range(stages), "light": range(1), "deep": range(0)}[config.decoder]
        self.fine_head = nn.ModuleList(VoxelBlocks(widths[i], modalities, PATCH * 2**i) for i in between)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature pyramid, finest first, of ``x`` (B, M, Z, Y, X) with ``hidden`` voxels replaced."""
        return self.encoder(self.tokens(x, hidden))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction (B, M, Z, Y, X) and feature pyramid of the masked view."""
        volume = self.tokens(x, hidden)
        features, attended = self.encoder.with_attended(volume)
        decoded = features[-1] if self.up_layers is None else self.up_layers(features, volume)
        reconstruction = self.head(decoded)
        for readout, level in zip(self.fine_head, [attended, *features[1:]], strict=False):
            reconstruction = reconstruction + readout(level)
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
