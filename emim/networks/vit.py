"""The vision transformer: one token per modality and patch.

A token is one patch of one modality, so hiding a patch of a modality, a position or a whole modality, and a
modality that is missing, are the same thing: a token less. Each modality has its own linear map of voxels to
channels, because the same brightness means something else in each contrast; together they have as many
weights as the one map of a transformer whose patches hold all modalities. Its bias is the modality
embedding. The final normalisation belongs to the encoder and is pre-trained with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from emim.config import NetworkConfig
from emim.masking.units import to_units
from emim.networks.positions import Rotation, places, sine_positions
from emim.networks.token_index import TokenIndex
from emim.networks.transformer import Block, initialise


class VisionTransformer(nn.Module):
    """Tokens of voxels, and the transformer that encodes them.

    Args:
        modalities: number of modalities M.
        config: ``patch``, ``width``, ``depth`` and ``heads``.
    """

    def __init__(self, modalities: int, config: NetworkConfig) -> None:
        super().__init__()
        self.side, self.width, self.heads = config.patch, config.width, config.heads
        self.patch_weight = nn.Parameter(torch.empty(modalities, self.width, self.side**3))
        self.modality = nn.Parameter(torch.empty(modalities, self.width))
        self.blocks = nn.ModuleList(Block(self.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(self.width)
        initialise(self)
        for weight in self.patch_weight:
            nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.modality, std=0.02)

    def grid(self, x: torch.Tensor) -> tuple[int, int, int]:
        """Patches along each axis of ``x`` (…, Z, Y, X)."""
        return tuple(n // self.side for n in x.shape[-3:])

    def visible(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Tokens of ``x`` (B, M, Z, Y, X) none of whose voxels is hidden: boolean (B, M, N).

        ``hidden`` is boolean, of the shape of ``x``, or (B, M) for whole modalities.
        """
        if hidden.ndim == 2:
            patches = torch.Size(self.grid(x)).numel()
            return (~hidden)[:, :, None].expand(-1, -1, patches)
        return ~to_units(hidden, self.side).any(-1)

    def positions(self, x: torch.Tensor) -> torch.Tensor:
        """Position embeddings (N, C) of the patches of ``x``."""
        return sine_positions(self.grid(x), self.width, x.device)

    def embed(self, x: torch.Tensor, index: TokenIndex) -> torch.Tensor:
        """Tokens (T, C) of the patches of ``x`` (B, M, Z, Y, X) that are visible."""
        voxels = to_units(x, self.side)[index.sample, index.modality, index.patch].split(index.sizes)
        tokens = [F.linear(v, w, b) for v, w, b in zip(voxels, self.patch_weight, self.modality, strict=True)]
        return torch.cat(tokens) + self.positions(x)[index.patch]

    def place(self, x: torch.Tensor, index: TokenIndex | None = None) -> Rotation:
        """Where the tokens of ``index``, a padded batch, are in ``x``; None: all, modality by modality."""
        where = places(self.grid(x), x.device)
        where = where.repeat(x.shape[1], 1) if index is None else index.pad(where[index.patch])
        return Rotation.at(where, self.width // self.heads)

    def encode_visible(
        self, x: torch.Tensor, index: TokenIndex, after: Collection[int] = ()
    ) -> list[torch.Tensor]:
        """Encode the visible tokens of ``x`` alone, as a padded batch; see :meth:`forward`."""
        return self(index.pad(self.embed(x, index)), self.place(x, index), index.keep, after)

    def forward(
        self,
        tokens: torch.Tensor,
        place: Rotation,
        keep: torch.Tensor | None = None,
        after: Collection[int] = (),
    ) -> list[torch.Tensor]:
        """Encode ``tokens`` (B, L, C).

        Args:
            place: where they are.
            keep: boolean (B, L), false for padding; None: none.
            after: numbers of blocks, below the depth.

        Returns:
            Tokens after each block named in ``after``, as they are, and the normalised output at last.
        """
        states = []
        for done, block in enumerate(self.blocks, 1):
            tokens = block(tokens, place, keep=keep)
            if done in after:
                states.append(tokens)
        return [*states, self.norm(tokens)]


def mean_over_modalities(tokens: torch.Tensor, visible: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Feature map (B, C, z, y, x): at each position the mean of the visible modalities' tokens.

    Where no modality is visible, the mean of all visible tokens of the sample stands in, which tells
    nothing of the place.

    Args:
        tokens: (B, M, N, C); those not visible are ignored.
        visible: boolean (B, M, N).
        grid: patches along z, y, x; N together.
    """
    count = visible.sum(1)[..., None]
    total = torch.where(visible[..., None], tokens, 0).sum(1)
    anywhere = total.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(count > 0, total / count.clamp(min=1), anywhere)
    return mean.transpose(1, 2).unflatten(2, tuple(grid))
