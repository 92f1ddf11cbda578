"""Attention within windows, with a learned bias for each relative position, by PyTorch's fused kernel.

The fused kernels keep no matrix of scores, which is what makes them fast and small; but on a CPU they give
no gradient to an additive bias, and PyTorch falls back to plain matrices where one is asked for. There the
forward pass is the kernel's, and the backward pass is written out here, few windows at a time.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from emim.networks.swin_windows import Boxes, cut, join

# Scores of the backward pass held at once: few enough to stay in a processor's cache.
SCORES_AT_ONCE = 2**19


class WindowAttention(nn.Module):
    """Multi-head self-attention within boxes of a token grid (arXiv 2103.14030).

    Args:
        width: channels of a token.
        heads: attention heads.
        reach: largest side of a box.
    """

    def __init__(self, width: int, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * reach - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, boxes: list[list[Boxes]]) -> torch.Tensor:
        """Map tokens (B, Z, Y, X, C) to the same shape; each attends to those of its box."""
        parts = cut(self.qkv(x), boxes)
        attended = [
            biased_attention(qkv.unflatten(-1, (3, self.heads, -1)), self._bias(same[0].size, qkv)).flatten(2)
            for qkv, same in zip(parts, boxes, strict=True)
        ]
        return self.proj(join(attended, boxes, x.shape[1:4]))

    def _bias(self, size: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """(heads, tokens, tokens) of boxes of ``size``."""
        index = _bias_index(size, self.reach, like.device)
        table = self.relative_position_bias_table.T.to(like.dtype)
        # Gathered rather than indexed: the gradient of indexing takes several times as long on a CPU.
        bias = table.gather(1, index.flatten().expand(self.heads, -1))
        return bias.view(self.heads, *index.shape)


def biased_attention(qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """softmax(q kᵀ / √D + bias) v.

    Args:
        qkv: queries, keys and values, (windows, tokens, 3, heads, D).
        bias: (heads, tokens, tokens), the same for all windows.

    Returns:
        (windows, tokens, heads, D).
    """
    if qkv.device.type == "cpu" and bias.requires_grad and torch.is_grad_enabled():
        return _BiasedAttention.apply(qkv, bias)
    return _fused(qkv, bias)


def _fused(qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2)


class _BiasedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, bias):
        out = _fused(qkv, bias.detach())  # PyTorch takes the slow path if the bias wants a gradient
        ctx.save_for_backward(qkv, bias, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        with torch.autocast("cpu", enabled=False):
            return _attention_backward(gradient, *ctx.saved_tensors)


def _attention_backward(gradient, qkv, bias, out) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of queries, keys and values, and of the bias, with the scores recomputed.

    With P the softmax, dP = dO Vᵀ and dS = P ∘ (dP - Σ dP ∘ P): dV = Pᵀ dO, dQ = dS K, dK = dSᵀ Q and dbias =
    dS summed over windows; and Σ dP ∘ P = dO · O (FlashAttention, arXiv 2205.14135, appendix B).
    """
    windows, tokens, _, heads, depth = qkv.shape
    scale = depth**-0.5
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    q, k, v = qkv.permute(2, 3, 0, 1, 4).to(dtype).contiguous()
    shift = -(gradient.to(dtype) * out).sum(-1).movedim(2, 0)[..., None]
    gradient = gradient.permute(2, 0, 1, 3).to(dtype).contiguous()
    dqkv, dbias = qkv.new_empty((3, *q.shape), dtype=dtype), torch.zeros_like(bias, dtype=dtype)
    step = max(1, SCORES_AT_ONCE // tokens**2)
    together = max(1, step // windows)  # heads, where they are small
    for first_head, first in product(range(0, heads, together), range(0, windows, step)):
        at = (slice(first_head, first_head + together), slice(first, first + step))
        scores = bias[at[0], None].to(dtype).expand(-1, q[at].shape[1], -1, -1).flatten(0, 1)
        q_, k_, v_, gradient_, shift_ = (x[at].flatten(0, 1) for x in (q, k, v, gradient, shift))
        p = torch.baddbmm(scores, q_, k_.mT, alpha=scale).softmax(-1)
        ds = torch.baddbmm(shift_, gradient_, v_.mT).mul_(p)
        dbias[at[0]] += ds.unflatten(0, (-1, q[at].shape[1])).sum(1)
        for out_, factor, other in ((dqkv[0], ds, k_), (dqkv[1], ds.mT, q_), (dqkv[2], p.mT, gradient_)):
            torch.bmm(factor, other, out=out_[at].view_as(q_))
    dqkv[:2] *= scale
    return dqkv.permute(2, 3, 0, 1, 4).to(qkv.dtype), dbias.to(bias.dtype)


@lru_cache(maxsize=256)
def _bias_index(size: tuple[int, ...], reach: int, device: torch.device) -> torch.Tensor:
    """Row of the bias table for each pair of tokens of a box: (tokens, tokens), tokens in Z, Y, X order."""
    with torch.inference_mode(False):  # an index made for inference could not serve training later
        axes = torch.meshgrid(*(torch.arange(n, device=device) for n in size), indexing="ij")
        index = torch.zeros((), dtype=torch.long, device=device)
        for at in (a.flatten() for a in axes):
            index = index * (2 * reach - 1) + (at[:, None] - at[None, :] + reach - 1)
        return index
