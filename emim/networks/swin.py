"""The Swin transformer as Swin UNETR uses it (arXiv 2201.01266): the feature pyramid of a volume.

Layers compute what those of MONAI's SwinUNETR do (with its ``mergingv2``), which tests compare with
the same weights in both. Why not MONAI's own class: importing MONAI takes longer than torch before every
segmentation, and the attention here is fused (:mod:`emim.networks.swin_attention`).

One thing differs. Where a side is no multiple of 7 tokens MONAI fills its windows up with zeros, at a side of
96 voxels by 59 % on two of four levels; here it is divided evenly into windows of at most 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from emim.errors import EmimError
from emim.networks.swin_attention import WindowAttention
from emim.networks.swin_windows import Boxes, window_boxes

HEAD = 16  # channels of an attention head
PATCH = 2  # voxels a side of a token
WINDOW = 7  # tokens a side of a window, at most


class PatchEmbedding(nn.Module):
    """Tokens of 2³ voxels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        # Holds the weights only: the blocks do not overlap, so a matrix product does it, tokens last.
        self.proj = nn.Conv3d(inputs, width, PATCH, stride=PATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, z, y, x_ = x.shape
        blocks = x.reshape(b, c, z // PATCH, PATCH, y // PATCH, PATCH, x_ // PATCH, PATCH)
        blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return F.linear(blocks, self.proj.weight.flatten(1), self.proj.bias)


class PatchMerging(nn.Module):
    """Half the sides, twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8 * width)
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, z, y, x_, c = x.shape
        blocks = x.view(b, z // 2, 2, y // 2, 2, x_ // 2, 2, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return self.reduction(self.norm(blocks.flatten(4)))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


class SwinBlock(nn.Module):
    """Attention within windows, then a perceptron for each token; around both the input is carried."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, width // HEAD, reach)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor, boxes: list[list[Boxes]]) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), boxes)
        return x + self.mlp(self.norm2(x))


class SwinStage(nn.Module):
    """Blocks whose windows lie alternately at the grid's start and shifted by half, then a merging."""

    def __init__(self, width: int, blocks: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(SwinBlock(width, window) for _ in range(blocks))
        self.downsample = PatchMerging(width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens after the blocks, and those merged."""
        boxes = [window_boxes(x.shape[1:4], self.window, shifted) for shifted in (False, True)]
        for i, block in enumerate(self.blocks):
            x = block(x, boxes[i % 2])
        return x, self.downsample(x)


class SwinEncoder(nn.Module):
    """The feature pyramid of a volume.

    Args:
        inputs: channels of the volume.
        filters: channels of a token of the finest level, a multiple of 16; each stage doubles them.
        stages: transformer blocks of each stage.
        window: largest side of a window in tokens.

    Raises:
        EmimError: when the channels do not divide into heads, or a stage has no block.
    """

    def __init__(self, inputs: int, filters: int, stages: Sequence[int], window: int = WINDOW) -> None:
        super().__init__()
        if filters < 1 or filters % HEAD:
            raise EmimError(
                f"Setting network.filters cannot be {filters!r}.",
                hint=f"For the backbone 'swin' it is a multiple of {HEAD}, such as 48.",
            )
        if not stages or min(stages) < 1:
            raise EmimError(
                f"Setting network.stages cannot be {stages!r}.",
                hint="At least one stage of at least one block each.",
            )
        self.patch_embed = PatchEmbedding(inputs, filters)
        self.stages = nn.ModuleList(SwinStage(filters * 2**i, n, window) for i, n in enumerate(stages))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Levels of ``x`` (B, inputs, Z, Y, X), finest first: (B, filters · 2ⁱ, Z / 2ⁱ⁺¹, …).

        Each position is normalised over its channels. Sides must be multiples of 2^(stages + 1). The levels
        are channels-last in memory.
        """
        return self.with_attended(x)[0]

    def with_attended(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Levels as from :meth:`forward`, and the finest tokens after their blocks, of the finest's shape.

        Swin UNETR's finest level is the embedding, a linear map of the voxels that no block has seen.
        """
        tokens = self.patch_embed(x)
        pyramid, attended = [_level(tokens)], []
        for stage in self.stages:
            before, tokens = stage(tokens)
            attended.append(before)
            pyramid.append(_level(tokens))
        return pyramid, _level(attended[0])


def _level(tokens: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:]).movedim(-1, 1)
