"""The segmentation network on a Swin transformer: modality tokens in front of Swin UNETR."""

from __future__ import annotations

import torch
from torch import nn

from emim.config import NetworkConfig
from emim.masking.tokens import ModalityTokens
from emim.networks.swin import SwinEncoder
from emim.networks.swin_decoder import SwinDecoder


class SwinSegmenter(nn.Module):
    """Logits of each output channel from the modalities of a case.

    Args:
        modalities: number of input modalities M.
        outputs: output channels: structures, and the background where they exclude each other.
        config: size of the network.

    Raises:
        EmimError: when the network cannot have that size.
    """

    def __init__(self, modalities: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        levels = len(config.widths)
        self.tokens = ModalityTokens(modalities)
        self.encoder = SwinEncoder(modalities, config.filters, config.stages)
        self.decoder = SwinDecoder(modalities, config.widths, levels)
        self.output = nn.ModuleDict({"head": nn.Conv3d(config.filters, outputs, 1)})
        image = f"decoder.levels.{levels - 1}.skip"
        self.modality_axes = {
            "tokens.value": 0,
            "encoder.patch_embed.proj.weight": 1,
            f"{image}.conv1.weight": 1,
            f"{image}.conv3.weight": 1,
        }

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` (B, M, Z, Y, X) to logits (B, outputs, Z, Y, X).

        ``present`` (B, M), boolean, is false for modalities that are missing; their voxels in ``x``
        are ignored. Sides must be multiples of :attr:`NetworkConfig.divisor`.
        """
        if present is not None:
            x = self.tokens(x, ~present)
        return self.output["head"](self.decoder(self.encoder(x), x))
