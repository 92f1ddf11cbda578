"""The convolutional decoder of Swin UNETR (arXiv 2201.01266), after MONAI's SwinUNETR.

Its parts lie coarsest first, so that a pre-training network can have, and hand on, the coarse ones only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from emim.networks.convolution import Convolution


class ResidualConvolutions(nn.Module):
    """Two times convolve and normalise, around which the input is carried; MONAI's UnetResBlock."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, outputs)
        self.conv2 = Convolution(outputs, outputs)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(normalise(self.conv1(x)), 0.01, inplace=True)
        y = normalise(self.conv2(y))
        y = y + (x if self.conv3 is None else normalise(self.conv3(x)))
        return F.leaky_relu(y, 0.01, inplace=True)


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance of each channel of each sample; a single voxel becomes 0."""
    # One channel a group, since PyTorch's instance normalisation is slower on CPUs.
    return F.group_norm(x, x.shape[1]) if x[0, 0].numel() > 1 else torch.zeros_like(x)


class UpLevel(nn.Module):
    """From one level of the pyramid to the next finer one.

    Args:
        inputs, outputs: channels of the coarser and the finer level.
        skip: what the finer level of the encoder goes through first.
    """

    def __init__(self, inputs: int, outputs: int, skip: nn.Module) -> None:
        super().__init__()
        self.skip = skip
        self.upsample = nn.ConvTranspose3d(inputs, outputs, 2, stride=2, bias=False)
        self.block = ResidualConvolutions(2 * outputs, outputs)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        # Normalisation is slow on the channels-last memory in which the encoder leaves its levels.
        return self.block(torch.cat((self.upsample(x), self.skip(level.contiguous())), 1))


class SwinDecoder(nn.Module):
    """Features at the sides of a pyramid level, or of the volume, from those of the levels below.

    Args:
        modalities: channels of the volume.
        widths: channels of the encoder's levels, finest first.
        levels: up-levels, coarsest first; as many as there are widths reach the volume itself.
    """

    def __init__(self, modalities: int, widths: tuple[int, ...], levels: int) -> None:
        super().__init__()
        coarse = widths[::-1]
        self.bottleneck = ResidualConvolutions(coarse[0], coarse[0])
        # As in MONAI's network, the level next to the coarsest enters as it is.
        skips = [nn.Identity(), *(ResidualConvolutions(w, w) for w in coarse[2:])]
        skips.append(ResidualConvolutions(modalities, widths[0]))
        outputs = [*coarse[1:], widths[0]]
        self.levels = nn.ModuleList(
            UpLevel(i, o, s) for i, o, s in list(zip(coarse, outputs, skips, strict=True))[:levels]
        )

    def forward(self, pyramid: list[torch.Tensor], volume: torch.Tensor) -> torch.Tensor:
        """Features after the last up-level; ``volume`` (B, M, Z, Y, X) is what the encoder saw."""
        x = self.bottleneck(pyramid[-1].contiguous())
        for level, finer in zip(self.levels, [*pyramid[-2::-1], volume], strict=False):
            x = level(x, finer)
        return x
