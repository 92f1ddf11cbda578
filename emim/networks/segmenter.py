"""The segmentation network: modality tokens in front of the residual-encoder U-Net."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from emim.config import NetworkConfig
from emim.masking.tokens import ModalityTokens
from emim.networks.residual_unet import ResidualEncoder, ResidualUNet


class Segmenter(nn.Module):
    """Logits of each output channel from the modalities of a case.

    Args:
        modalities: number of input modalities M.
        outputs: output channels: structures, and the background where they exclude each other.
        config: size of the network.
    """

    modality_axes: ClassVar[dict[str, int]] = {"unet.encoder.conv_init.weight": 1, "tokens.value": 0}

    def __init__(self, modalities: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.tokens = ModalityTokens(modalities)
        self.unet = ResidualUNet(modalities, outputs, config.filters, config.blocks)

    @property
    def encoder(self) -> ResidualEncoder:
        return self.unet.encoder

    def pyramid(self, x: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's levels, finest first; arguments as of :meth:`forward`."""
        return self.encoder(self.tokens(x, ~present))

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` (B, M, Z, Y, X) to logits (B, outputs, Z, Y, X).

        ``present`` (B, M), boolean, is false for modalities that are missing; their voxels in ``x``
        are ignored. Sides must be multiples of :attr:`NetworkConfig.divisor`.
        """
        if present is not None:
            x = self.tokens(x, ~present)
        return self.unet(x)
