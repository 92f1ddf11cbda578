"""What the contrastive baseline trains: the encoder and a projector, and the loss of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from emim.config import PretrainConfig
from emim.errors import EmimError
from emim.machine.distributed import launched_size, size
from emim.networks.build import build_encoder
from emim.objectives.contrastive import PROJECTION, alignment, all_ranks, found, nt_xent


class ContrastModel(nn.Module):
    """The encoder of any backbone; the mean over the foreground of its coarsest level is compared.

    Args:
        modalities: number of modalities M.
        config: all settings of the run; masks, regulariser and decoder do not count.
    """

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        self.network = build_encoder(modalities, config)
        width = config.network.widths[-1]
        # SimCLR's formula; its code also normalises over the batch, for which a few samples are too few.
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTION))

    def project(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is compared, (B, D) of each view.

        Args:
            batch: see :class:`emim.training.sampling.ContrastBatches`.
        """
        volume, foreground = (batch[k].transpose(0, 1).flatten(0, 1) for k in ("input", "foreground"))
        features = self.network.encode(volume, ~batch["present"].repeat(2, 1))[-1]
        with torch.autocast(volume.device.type, enabled=False):
            a, b = self.projector(_foreground_means(features.float(), foreground)).chunk(2)
        return a, b

    def forward(
        self, batch: dict[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a training batch and the values to log.

        Raises:
            EmimError: when there is nothing to tell a sample from, as where memory holds one at a time.
        """
        a, b = (all_ranks(view) for view in self.project(batch))
        # While memory is tried out a rank computes alone, and others will add theirs.
        if len(a) * launched_size() < 2 * size():
            raise EmimError(
                "The contrastive objective got one sample at once, with none to tell it from.",
                "train.micro_batch",
                "Each part of the batch needs two: choose a smaller network or train.crop, or train.batch a "
                "multiple of train.micro_batch.",
            )
        loss = nt_xent(a, b)
        with torch.no_grad():
            values = {"contrastive": loss.detach(), "alignment": alignment(a, b), "found": found(a, b)}
        return loss, values


def _foreground_means(features: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Mean (B, C) of features (B, C, z, y, x), each position weighing by its share of foreground."""
    share = F.adaptive_avg_pool3d(foreground.float(), features.shape[2:])
    return (share * features).sum((2, 3, 4)) / share.sum((2, 3, 4)).clamp(min=1e-6)
