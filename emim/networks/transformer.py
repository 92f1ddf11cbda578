"""Transformer blocks: pre-norm, fused attention that sees distances, an MLP four times as wide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from emim.networks.positions import Rotation

# Scale of a fresh branch's last weights, so that at first the sum is nearly what came in.
SMALL = 0.3


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
        self,
        x: torch.Tensor,
        place: Rotation,
        context: torch.Tensor | None = None,
        context_place: Rotation | None = None,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map ``x`` (B, L, C) to (B, L, C).

        Args:
            place: where ``x`` is.
            context: (B, K, C), at ``context_place``; None: ``x``.
            keep: boolean (B, K), false for padding, to which nothing attends; None: no padding.
        """
        if context is None:
            context, context_place = x, place
        q = place.turn(self._split(self.query(x)))
        k, v = (self._split(t) for t in self.key_value(context).chunk(2, -1))
        q, k, v = (t.transpose(1, 2) for t in (q, context_place.turn(k), v))
        mask = None if keep is None else keep[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """Attention and MLP, each added to what it normalises first (arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        x: torch.Tensor,
        place: Rotation,
        context: torch.Tensor | None = None,
        context_place: Rotation | None = None,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :meth:`Attention.forward`; ``context`` is to be normalised already."""
        x = x + self.attention(self.norm1(x), place, context, context_place, keep)
        return x + self.mlp(self.norm2(x))


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Xavier's uniform weights and no biases in every linear map below ``module``, as MAE begins.

    The last maps of the branches of a block are :data:`SMALL`.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Block):
            part.attention.out.weight.mul_(SMALL)
            part.mlp[-1].weight.mul_(SMALL)
