"""The pre-training network: modality tokens, the pyramid encoder, a light decoder.

The light decoder is the coarse end of the segmentation network's own decoder, down to a stride of 4,
and one linear head that writes a block of 4³ voxels per modality at each position. It costs a few
per cent of the full decoder, and its weights, unlike those of a decoder made for reconstruction
only, go on into fine-tuning. That a light decoder is enough is a finding of arXiv 2204.11716.
"""

from __future__ import annotations

import torch
from monai.networks.nets.segresnet_ds import SegResNetDS
from torch import nn

from emim.config import NetworkConfig
from emim.masking.tokens import ModalityTokens
from emim.masking.units import from_units

STRIDE = 4


class MaskedAutoencoder(nn.Module):
    """Reconstructs the hidden part of a crop and gives the feature pyramid.

    Sub-modules ``tokens``, ``encoder`` and ``up_layers`` have the names and shapes of those of
    :class:`emim.networks.segmenter.Segmenter`.

    Args:
        modalities: number of modalities M.
        config: size of the network.
    """

    def __init__(self, modalities: int, config: NetworkConfig) -> None:
        super().__init__()
        unet = SegResNetDS(
            spatial_dims=3,
            init_filters=config.filters,
            in_channels=modalities,
            out_channels=1,
            blocks_down=config.blocks,
            norm=("instance", {"affine": True}),
        )
        coarse = len(config.blocks) - 1 - 2  # decoder levels whose output stride is at least 4
        self.modalities = modalities
        self.tokens = ModalityTokens(modalities)
        self.encoder = unet.encoder
        self.up_layers = nn.ModuleList(list(unet.up_layers)[:coarse])
        self.norm = nn.InstanceNorm3d(config.widths[2], affine=True)
        self.head = nn.Conv3d(config.widths[2], modalities * STRIDE**3, kernel_size=1)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature pyramid, finest first, of ``x`` (B, M, Z, Y, X) with ``hidden`` voxels replaced."""
        return self.encoder(self.tokens(x, hidden))

    def decode(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Reconstruction (B, M, Z, Y, X) from the feature pyramid."""
        x = features[-1]
        for level, skip in zip(self.up_layers, features[-2::-1], strict=False):
            x = level["blocks"](level["upsample"](x) + skip)
        blocks = self.head(torch.relu(self.norm(x)))
        b, _, z, y, x_ = blocks.shape
        blocks = blocks.view(b, self.modalities, STRIDE**3, z * y * x_).transpose(2, 3)
        return from_units(blocks, STRIDE, (z * STRIDE, y * STRIDE, x_ * STRIDE))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction and feature pyramid of the masked view."""
        features = self.encode(x, hidden)
        return self.decode(features), features


BACKBONES = {"resunet": MaskedAutoencoder}
