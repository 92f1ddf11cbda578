"""What is trained in pre-training: the network, its regulariser, and the loss of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from emim.config import PretrainConfig
from emim.machine.reduce import sum_over_ranks
from emim.masking.patterns import KINDS
from emim.masking.units import to_voxels
from emim.networks.build import build_pretrainer
from emim.objectives.half_view import half_at
from emim.objectives.reconstruction import measured, normalise_units, voxel_error
from emim.objectives.regulariser import Regulariser


class PretrainModel(nn.Module):
    """Masked autoencoder and regulariser.

    Args:
        modalities: number of modalities M.
        config: all settings of the run.
    """

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_pretrainer(modalities, config)
        self.regulariser = (
            Regulariser(config.regulariser, config.network.widths)
            if config.regulariser.name != "none"
            else None
        )

    def regulariser_weight(self, step: int) -> float:
        """Beta after its linear warm-up."""
        if self.regulariser is None:
            return 0.0
        warmup = max(1, round(self.config.regulariser.warmup * self.config.train.steps))
        return self.config.regulariser.weight * min(1.0, (step + 1) / warmup)

    def reconstruct(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Reconstruct the masked view.

        Args:
            batch: see :class:`emim.training.sampling.PretrainBatches`.

        Returns:
            ``prediction``, ``target`` and ``error`` (B, M, Z, Y, X); ``scored``, boolean, same shape:
            voxels that enter the loss (hidden, foreground, and measured in a modality that is there;
            with the pattern "none", all but the hidden); ``kinds`` per voxel; ``features`` of
            the masked view.
        """
        kinds = to_voxels(batch["kinds"], self.config.mask.unit)
        present = batch["present"][:, :, None, None, None]
        prediction, features = self.network(batch["input"], (kinds > 0) | ~present)
        target = batch["target"]
        if self.config.normalise_targets:
            target = normalise_units(target, measured(target, batch["foreground"]), self.config.mask.unit)
        return {
            "prediction": prediction,
            "target": target,
            "error": voxel_error(prediction, target, self.config.loss),
            "scored": self._scored(batch, kinds),
            "kinds": kinds,
            "features": features,
        }

    def count_scored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """How many voxels of a batch enter the reconstruction loss: the weight of that mean among others."""
        return self._scored(batch, to_voxels(batch["kinds"], self.config.mask.unit)).sum()

    def _scored(self, batch: dict[str, torch.Tensor], kinds: torch.Tensor) -> torch.Tensor:
        hidden = kinds > 0 if self.config.mask.pattern != "none" else torch.ones_like(kinds, dtype=torch.bool)
        there = measured(batch["target"], batch["foreground"])
        return hidden & batch["present"][:, :, None, None, None] & there

    def forward(
        self, batch: dict[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Total loss of a training batch and the values to log."""
        result = self.reconstruct(batch)
        scored = result["scored"]
        reconstruction = _mean_over_ranks(result["error"], scored)
        loss, regulariser = reconstruction, torch.zeros(())
        weight = self.regulariser_weight(step)
        if self.regulariser is not None:
            views = self._views(batch, result["features"], step)
            with torch.autocast(batch["input"].device.type, enabled=False):
                regulariser = self.regulariser(*views)
            loss = loss + weight * regulariser
        squared = reconstruction.detach()
        if self.config.loss != "l2":  # logged as the validation and the collapse lines are
            squared = _mean_over_ranks(voxel_error(result["prediction"].detach(), result["target"]), scored)
        return loss, {
            "reconstruction": squared,
            "regulariser": regulariser.detach(),
            "regulariser_weight": weight,
            **realised_ratios(batch["kinds"], batch["present"]),
        }

    def _views(
        self, batch: dict[str, torch.Tensor], masked: list[torch.Tensor], step: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor] | None, torch.Tensor]:
        """Features of the masked and the original view, where they are compared, and the foreground there."""
        volume, foreground = batch["input"], batch["foreground"]
        if not self.regulariser.compares_views:
            return masked, None, foreground
        absent = ~batch["present"]
        own = getattr(self.network, "encode_half", None)  # of networks that know where in the crop a part is
        wanted = self.config.regulariser.view == "half" and (
            own is not None or getattr(self.network, "encodes_parts", False)
        )
        half = half_at(step, volume.shape[2:], self.config.network.divisor) if wanted else None
        if half is None:
            return masked, self.network.encode(volume, absent), foreground
        original = own(volume, absent, half) if own else self.network.encode(half.of(volume), absent)
        return [half.of(features) for features in masked], original, half.of(foreground)


def _mean_over_ranks(error: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of ``error`` over the voxels of all ranks where ``where`` is true; 0 when there is none.

    A crop of air and edges only has nothing to score; it must not stop the run.
    """
    total = torch.stack([torch.where(where, error, 0).sum(), where.sum().to(error.dtype)])
    total = sum_over_ranks(total)
    return total[0] / total[1].detach().clamp(min=1)


def realised_ratios(kinds: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
    """Share of the (modality, unit) pairs of a batch, of all ranks, that each step of the mask hides.

    Args:
        kinds: int8 (B, M, gz, gy, gx).
        present: boolean (B, M).
    """
    there = present[:, :, None, None, None]
    counts = [((kinds == kind) & there).sum() for kind in KINDS.values()]
    pairs = present.sum() * kinds[0, 0].numel()
    *hidden, total = sum_over_ranks(torch.stack([*counts, pairs])).float()
    shares = {f"mask_{name}": n / total for name, n in zip(KINDS, hidden, strict=True)}
    return {"mask_ratio": sum(shares.values()), **shares}
