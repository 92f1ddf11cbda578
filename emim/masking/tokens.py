"""One learned value per modality that stands for what the network may not, or cannot, see."""

from __future__ import annotations

import torch
from torch import nn


class ModalityTokens(nn.Module):
    """Replaces hidden voxels by a learned value of their modality.

    Pre-training hides mask units with it; fine-tuning and inference put it in the place of a
    modality that is missing, so a model has met a missing modality long before it has to cope.

    Args:
        modalities: number of modalities M.
    """

    def __init__(self, modalities: int) -> None:
        super().__init__()
        # Zero is the value of air after normalisation: a neutral start.
        self.value = nn.Parameter(torch.zeros(modalities))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return ``x`` (B, M, Z, Y, X) with the token wherever boolean ``hidden`` is true.

        ``hidden`` has the shape of ``x`` or (B, M), which hides whole modalities.
        """
        if hidden.ndim == 2:
            hidden = hidden[:, :, None, None, None]
        return torch.where(hidden, self.value.to(x.dtype)[None, :, None, None, None], x)
