"""The segmentation network of the vision transformer: its encoder and a decoder in the manner of UNETR."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from emim.config import NetworkConfig
from emim.networks.token_index import TokenIndex
from emim.networks.unetr_decoder import UnetrDecoder
from emim.networks.vit import VisionTransformer, mean_over_modalities


class VitSegmenter(nn.Module):
    """Logits of each output channel from the modalities of a case.

    Tokens of missing modalities do not enter the encoder.

    Args:
        modalities: number of input modalities M.
        outputs: output channels: structures, and the background where they exclude each other.
        config: size of the network.
    """

    modality_axes: ClassVar[dict[str, int]] = {
        "encoder.patch_weight": 0,
        "encoder.modality": 0,
        "unetr.stem.conv1.weight": 1,
        "unetr.stem.carry.weight": 1,
    }

    def __init__(self, modalities: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.encoder = VisionTransformer(modalities, config)
        self.unetr = UnetrDecoder(modalities, outputs, config.width, config.patch)
        levels = config.patch.bit_length() - 1
        self.after = tuple(config.depth * i // levels for i in range(1, levels))

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` (B, M, Z, Y, X) to logits (B, outputs, Z, Y, X).

        ``present`` (B, M), boolean, is false for modalities that are missing; their voxels in ``x``
        are ignored. Sides must be multiples of the patch.
        """
        if present is None:
            present = x.new_ones(x.shape[:2], dtype=torch.bool)
        visible, grid = self.encoder.visible(x, ~present), self.encoder.grid(x)
        index = TokenIndex.of(visible)
        states = self.encoder.encode_visible(x, index, self.after)
        maps = []
        for tokens in states:
            background = tokens.new_zeros(*visible.shape, tokens.shape[-1])
            placed = index.place(index.unpad(tokens), background)
            maps.append(mean_over_modalities(placed, visible, grid))
        # Zero is the value of air after normalisation.
        return self.unetr(torch.where(present[:, :, None, None, None], x, 0), maps)
