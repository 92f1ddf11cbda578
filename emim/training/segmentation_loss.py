"""Dice plus cross-entropy, for structures that exclude each other and for regions that overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from emim.machine.reduce import mean_over_ranks, sum_over_ranks

SMOOTH = 1e-5  # of Dice: that of nothing, found as nothing, is 1


class SegmentationLoss(nn.Module):
    """Equal parts of Dice loss and cross-entropy, of the batch of all ranks, whose shares are equal.

    Exclusive structures: softmax over background and structures, Dice without the background.
    Overlapping: a sigmoid each. Dice is taken over the whole batch, which is steadier where a crop
    lacks a structure. It is MONAI's ``DiceLoss(batch=True)``, which knows of no other ranks.

    Args:
        overlapping: whether structures overlap.
    """

    def __init__(self, overlapping: bool) -> None:
        super().__init__()
        self.overlapping = overlapping

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of ``logits`` (B, outputs, Z, Y, X) against boolean ``label`` (B, K, Z, Y, X)."""
        logits, target = logits.float(), label.float()
        if self.overlapping:
            entropy = F.binary_cross_entropy_with_logits(logits, target)
            return _dice_loss(logits.sigmoid(), target) + mean_over_ranks(entropy)
        background = ~label.any(1, keepdim=True)
        entropy = F.cross_entropy(logits, torch.cat([background, label], 1).float().argmax(1))
        return _dice_loss(logits.softmax(1)[:, 1:], target) + mean_over_ranks(entropy)


def _dice_loss(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the channels of (B, C, Z, Y, X)."""
    axes = (0, 2, 3, 4)
    sums = torch.stack([(probability * target).sum(axes), probability.sum(axes) + target.sum(axes)])
    overlap, total = sum_over_ranks(sums)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()
