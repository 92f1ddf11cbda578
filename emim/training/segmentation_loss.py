"""Dice plus cross-entropy, for structures that exclude each other and for regions that overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn


class SegmentationLoss(nn.Module):
    """Equal parts of MONAI's Dice loss and cross-entropy.

    Exclusive structures: softmax over background and structures, Dice without the background.
    Overlapping: a sigmoid each. Dice is taken over the whole batch, which is steadier where a crop
    lacks a structure.

    Args:
        overlapping: whether structures overlap.
    """

    def __init__(self, overlapping: bool) -> None:
        super().__init__()
        self.overlapping = overlapping
        self.dice = DiceLoss(
            sigmoid=overlapping, softmax=not overlapping, include_background=overlapping, batch=True
        )

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Loss of ``logits`` (B, outputs, Z, Y, X) against boolean ``label`` (B, K, Z, Y, X)."""
        logits, target = logits.float(), label.float()
        if self.overlapping:
            return self.dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target)
        background = ~label.any(1, keepdim=True)
        target = torch.cat([background.float(), target], 1)
        return self.dice(logits, target) + F.cross_entropy(logits, target.argmax(1))
