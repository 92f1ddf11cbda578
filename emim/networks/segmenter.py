"""The segmentation network: modality tokens in front of MONAI's residual-encoder U-Net.

Why SegResNetDS: it is the residual-encoder U-Net that MONAI itself keeps and that won with
Auto3DSeg; its encoder is a class of its own (:class:`SegResEncoder`) that returns the pyramid, so
pre-training and fine-tuning share it name by name; and it needs nothing beyond torch and MONAI,
whereas dynamic-network-architectures brings timm and torchvision into Slicer's Python.
Instance normalisation replaces its batch normalisation, because batches here hold few crops.
"""

from __future__ import annotations

import torch
from monai.networks.nets.segresnet_ds import SegResNetDS
from torch import nn

from emim.config import NetworkConfig
from emim.masking.tokens import ModalityTokens


class Segmenter(nn.Module):
    """Logits of each output channel from the modalities of a case.

    Args:
        modalities: number of input modalities M.
        outputs: output channels: structures, and the background where they exclude each other.
        config: size of the network.
    """

    def __init__(self, modalities: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        self.tokens = ModalityTokens(modalities)
        self.unet = SegResNetDS(
            spatial_dims=3,
            init_filters=config.filters,
            in_channels=modalities,
            out_channels=outputs,
            blocks_down=config.blocks,
            norm=("instance", {"affine": True}),
        )

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` (B, M, Z, Y, X) to logits (B, outputs, Z, Y, X).

        ``present`` (B, M), boolean, is false for modalities that are missing; their voxels in ``x``
        are ignored. Sides must be multiples of :attr:`NetworkConfig.divisor`.
        """
        if present is not None:
            x = self.tokens(x, ~present)
        return self.unet(x)
