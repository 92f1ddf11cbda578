"""The residual-encoder U-Net: MONAI's SegResNetDS, layer by layer, without the weight of MONAI.

Why SegResNetDS: it is the residual-encoder U-Net that MONAI itself keeps and that won with Auto3DSeg; its
encoder gives the pyramid, so pre-training and fine-tuning share it name by name. Instance normalisation
replaces its batch normalisation, because batches here hold few crops.

Why not MONAI's own class: importing MONAI takes longer than torch and more memory than a case, before every
segmentation. The layers here have MONAI's names, shapes and order of computation, so weights go from one to
the other; a test compares them. Where PyTorch has a faster way to the same result on a CPU, it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from emim.networks.convolution import Convolution
from emim.networks.instance_norm import InstanceNorm
from emim.networks.pointwise import Pointwise


class ResidualBlock(nn.Module):
    """Two times normalise, rectify, convolve, around which the input is carried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = InstanceNorm(width)
        self.conv1 = Convolution(width, width)
        self.norm2 = InstanceNorm(width)
        self.conv2 = Convolution(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.norm1(x).relu_())
        y = self.norm2(y).relu_()  # what was convolved is let go before the next convolution
        y = self.conv2(y)
        y += x
        return y


class ResidualEncoder(nn.Module):
    """The feature pyramid of a volume.

    Args:
        inputs: channels of the volume.
        filters: channels of the finest level; each level doubles them and halves the sides.
        blocks: residual blocks per level.
    """

    def __init__(self, inputs: int, filters: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv_init = nn.Conv3d(inputs, filters, 3, padding=1, bias=False)
        self.layers = nn.ModuleList()
        for i, count in enumerate(blocks):
            width = filters * 2**i
            level = nn.ModuleDict({"blocks": nn.Sequential(*(ResidualBlock(width) for _ in range(count)))})
            level["downsample"] = (
                nn.Conv3d(width, 2 * width, 3, stride=2, padding=1, bias=False)
                if i + 1 < len(blocks)
                else nn.Identity()
            )
            self.layers.append(level)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Levels of ``x`` (B, inputs, Z, Y, X), finest first: (B, filters · 2ⁱ, Z / 2ⁱ, Y / 2ⁱ, X / 2ⁱ)."""
        pyramid = []
        x = self.conv_init(x)
        for level in self.layers:
            x = level["blocks"](x)
            pyramid.append(x)
            x = level["downsample"](x)
        return pyramid


class Upsample(nn.Module):
    """Twice the sides, half the channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose3d(
            inputs, inputs // 2, 3, stride=2, padding=1, output_padding=1, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deconv(x)


def decoder_levels(filters: int, levels: int) -> nn.ModuleList:
    """The decoder of a pyramid of ``levels``, coarsest first: each an ``upsample`` and one of ``blocks``."""
    widths = [filters * 2**i for i in reversed(range(levels - 1))]
    return nn.ModuleList(
        nn.ModuleDict({"upsample": Upsample(2 * w), "blocks": nn.Sequential(ResidualBlock(w))})
        for w in widths
    )


def decode(levels: nn.ModuleList, pyramid: list[torch.Tensor]) -> torch.Tensor:
    """Features after the ``levels`` of a decoder, at the sides of the pyramid level they end at.

    Args:
        pyramid: finest first; a level that has been used is taken off, and its memory is free.
    """
    x = pyramid.pop()
    for level in levels:
        x = level["upsample"](x)
        x += pyramid.pop()
        x = level["blocks"](x)
    return x


class ResidualUNet(nn.Module):
    """Encoder, decoder and a linear head on the finest level.

    Args:
        inputs, filters, blocks: see :class:`ResidualEncoder`.
        outputs: channels of the result.
    """

    def __init__(self, inputs: int, outputs: int, filters: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(inputs, filters, blocks)
        self.up_layers = decoder_levels(filters, len(blocks))
        self.up_layers[-1]["head"] = Pointwise(filters, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (B, inputs, Z, Y, X), sides multiples of 2^(levels - 1), to (B, outputs, Z, Y, X)."""
        return self.up_layers[-1]["head"](decode(self.up_layers, self.encoder(x)))
