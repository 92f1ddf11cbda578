"""Transformer blocks: pre-norm, fused attention, an MLP four times as wide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention of ``x`` to itself, or to ``context``.

    Args:
        width: channels of both; a multiple of ``heads``.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map ``x`` (B, L, C) to (B, L, C).

        Args:
            context: (B, K, C); None: ``x``.
            keep: boolean (B, K), false for padding, to which nothing attends; None: no padding.
        """
        q = self._split(self.query(x))
        k, v = (self._split(t) for t in self.key_value(x if context is None else context).chunk(2, -1))
        mask = None if keep is None else keep[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and MLP, each added to what it normalises first (arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As :meth:`Attention.forward`; ``context`` is to be normalised already."""
        x = x + self.attention(self.norm1(x), context, keep)
        return x + self.mlp(self.norm2(x))


def initialise(module: nn.Module) -> None:
    """Xavier's uniform weights and no biases in every linear map below ``module``, as MAE begins."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
