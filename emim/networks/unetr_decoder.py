"""From a vision transformer's states to voxels: a decoder in the manner of UNETR (arXiv 2103.10504).

The last state is brought to finer and finer levels; at each, an earlier state is brought to the same size and
added, and at the finest the volume itself after two convolutions. UNETR concatenates instead, which doubles
the cost of the convolution that follows.
"""

from __future__ import annotations

import torch
from torch import nn

from emim.masking.units import from_units
from emim.networks.instance_norm import InstanceNorm


class UnetrDecoder(nn.Module):
    """Logits from a volume and the states of the transformer at one resolution.

    Args:
        modalities: channels of the volume.
        outputs: channels of the result.
        width: channels of the states.
        patch: voxels a side of a token, a power of two above 1.
    """

    def __init__(self, modalities: int, outputs: int, width: int, patch: int) -> None:
        super().__init__()
        levels = patch.bit_length() - 1
        filters = max(8, width // 24)  # 32 for the width of ViT-B
        widths = [filters * 2**i for i in range(levels)]  # of the strides 1, 2, 4 ... patch / 2
        self.stem = ResidualBlock(modalities, filters)
        self.skips = nn.ModuleList(_rise(width, widths[:i:-1], widths[i]) for i in range(1, levels))
        self.bottom = Upsample(width, widths[-1])
        self.ups = nn.ModuleList(Upsample(2 * w, w) for w in widths[:-1])
        self.blocks = nn.ModuleList(ResidualBlock(w, w) for w in widths)
        self.head = nn.Conv3d(filters, outputs, 1)

    def forward(self, x: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
        """Map ``x`` (B, M, Z, Y, X) and ``states`` (B, C, z, y, x), earliest first, to (B, outputs, Z, Y, X).

        There are as many states as a patch can be halved; the earliest goes to the finest level.
        """
        added = [self.stem(x), *(skip(state) for skip, state in zip(self.skips, states, strict=False))]
        y = self.bottom(states[-1])
        for level in reversed(range(len(added))):
            y = self.blocks[level](y + added[level])
            if level:
                y = self.ups[level - 1](y)
        return self.head(y)


class Upsample(nn.Module):
    """Twice the sides: a transposed convolution whose kernel is its stride, as a matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 8 * outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, z, y, x) to (B, outputs, 2 z, 2 y, 2 x)."""
        b, _, *grid = x.shape
        blocks = self.linear(x.flatten(2).transpose(1, 2)).view(b, -1, self.linear.out_features // 8, 8)
        return from_units(blocks.transpose(1, 2), 2, tuple(2 * n for n in grid))


class ResidualBlock(nn.Module):
    """Two times convolve and normalise, around which the input is carried (MONAI's UnetResBlock)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = InstanceNorm(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = InstanceNorm(outputs)
        self.carry = nn.Conv3d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(y)) + self.carry(x))


def _rise(width: int, between: list[int], outputs: int) -> nn.Sequential:
    """Upsampling from the tokens' grid to a level, through those ``between``."""
    steps, inputs = [], width
    for w in between:
        steps += [Upsample(inputs, w), InstanceNorm(w), nn.LeakyReLU(0.01)]
        inputs = w
    return nn.Sequential(*steps, Upsample(inputs, outputs))
