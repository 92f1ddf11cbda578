"""Which (modality, patch) tokens of a batch enter the encoder, and where each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenIndex:
    """The T visible tokens of a batch: token t is patch ``patch[t]`` of ``modality[t]`` of ``sample[t]``.

    Tokens come in the order modality, sample, patch. In a padded batch every sample has a row of its own, as
    long as that of the sample with most tokens.

    Attributes:
        shape: B, M, N: samples, modalities, patches.
        modality, sample, patch: (T,) each.
        sizes: tokens of each modality, together T.
        slot: (T,), the place of each token in a padded batch (B · length).
        length: of a sample's row.
        keep: boolean (B, length), false for padding; None when there is none.
    """

    shape: tuple[int, int, int]
    modality: torch.Tensor
    sample: torch.Tensor
    patch: torch.Tensor
    sizes: list[int]
    slot: torch.Tensor
    length: int
    keep: torch.Tensor | None

    @classmethod
    def of(cls, visible: torch.Tensor) -> TokenIndex:
        """Index the true elements of ``visible`` (B, M, N).

        On a GPU the host waits here for their number, once per pass; nothing after it waits.
        """
        b, m, n = visible.shape
        modality, sample, patch = visible.transpose(0, 1).nonzero(as_tuple=True)
        sizes = visible.sum((0, 2)).tolist()
        counts = visible.sum((1, 2))
        length = max(1, int(counts.max()))
        rank = visible.flatten(1).cumsum(1).view(b, m, n)[sample, modality, patch] - 1
        keep = None
        if sum(sizes) < b * length:
            # A sample without any token attends to its padding: zeros instead of an empty softmax.
            keep = torch.arange(length, device=visible.device) < counts.clamp(min=1)[:, None]
        return cls((b, m, n), modality, sample, patch, sizes, sample * length + rank, length, keep)

    def pad(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (T, C) as a padded batch (B, length, C)."""
        rows = tokens.new_zeros(self.shape[0] * self.length, tokens.shape[1])
        return rows.index_copy(0, self.slot, tokens).unflatten(0, (self.shape[0], self.length))

    def unpad(self, rows: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`pad`."""
        return rows.flatten(0, 1).index_select(0, self.slot)

    def place(self, tokens: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        """``background`` (B, M, N, C) with tokens (T, C) in their places."""
        where = (self.sample * self.shape[1] + self.modality) * self.shape[2] + self.patch
        return background.reshape(-1, tokens.shape[1]).index_copy(0, where, tokens).view(background.shape)
