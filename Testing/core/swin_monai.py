"""Weights of MONAI's SwinUNETR under the names of :class:`emim.networks.swin_segmenter.SwinSegmenter`.

For a network with four stages, 16 channels a head (``num_heads`` = 3, 6, 12, 24 with ``feature_size=48``)
and instance normalisation. Both compute the same where MONAI's windows divide the grid of every level, such
as windows of 7 tokens at sides of 112 voxels. Elsewhere the windows lie differently, with the same weights.
Before MONAI's pull request 8285 (January 2025) its "merging" took two neighbours twice and left two out: such
weights can be loaded, but what they learned does not carry over exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

# MONAI's "merging" joins the eight neighbours in this order of (Z, Y, X), written as binary numbers.
MERGING = (0b000, 0b100, 0b010, 0b001, 0b110, 0b101, 0b011, 0b111)
RENAMED = (
    (r"^swinViT\.layers(\d)\.0\.", lambda m: f"encoder.stages.{int(m[1]) - 1}."),
    (r"^swinViT\.", "encoder."),
    (r"^encoder10\.layer\.", "decoder.bottleneck."),
    (r"^encoder(\d)\.layer\.", lambda m: f"decoder.levels.{5 - int(m[1])}.skip."),
    (r"^decoder(\d)\.", lambda m: f"decoder.levels.{5 - int(m[1])}."),
    (r"\.transp_conv\.conv\.", ".upsample."),
    (r"\.conv_block\.", ".block."),
    (r"\.(conv\d)\.conv\.", r".\1."),
    (r"^out\.conv\.conv\.", "output.head."),
)


def from_monai(state: Mapping[str, torch.Tensor], downsample: str = "merging") -> dict[str, torch.Tensor]:
    """``state`` of a SwinUNETR, or of its ``swinViT`` alone with that prefix, renamed and rearranged.

    Args:
        downsample: SwinUNETR's argument: merging (its default) or mergingv2.

    Returns:
        All but ``tokens.value``, which MONAI does not have.
    """
    result = {}
    for name, value in state.items():
        if name.endswith("relative_position_index"):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if downsample == "merging" and ".downsample." in name:
            blocks = value.unflatten(-1, (8, -1))
            value = torch.stack([blocks[..., MERGING.index(i), :] for i in range(8)], -2).flatten(-2)
        result[name] = value
    return result
