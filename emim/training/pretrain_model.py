"""What is trained in pre-training: the network, its regulariser, and the loss of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from emim.config import PretrainConfig
from emim.masking.patterns import KINDS
from emim.masking.units import to_voxels
from emim.networks.build import build_pretrainer
from emim.objectives.reconstruction import masked_mean, normalise_units, voxel_error
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
            voxels that enter the loss (hidden, of a modality that is there, foreground; with the
            pattern "none", all but the hidden); ``kinds`` per voxel; ``features`` of the masked view.
        """
        kinds = to_voxels(batch["kinds"], self.config.mask.unit)
        present = batch["present"][:, :, None, None, None]
        foreground = batch["foreground"]
        prediction, features = self.network(batch["input"], (kinds > 0) | ~present)
        target = batch["target"]
        if self.config.normalise_targets:
            target = normalise_units(target, foreground, self.config.mask.unit)
        hidden = kinds > 0 if self.config.mask.pattern != "none" else torch.ones_like(kinds, dtype=torch.bool)
        return {
            "prediction": prediction,
            "target": target,
            "error": voxel_error(prediction, target, self.config.loss),
            "scored": hidden & present & foreground,
            "kinds": kinds,
            "features": features,
        }

    def forward(
        self, batch: dict[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Total loss of a training batch and the values to log."""
        result = self.reconstruct(batch)
        scored = result["scored"]
        # A crop of air and edges only has nothing to score; it must not stop the run.
        reconstruction = masked_mean(result["error"], scored) if scored.any() else result["error"].sum() * 0
        loss, regulariser = reconstruction, torch.zeros(())
        weight = self.regulariser_weight(step)
        if self.regulariser is not None:
            original = None
            if self.regulariser.compares_views:
                absent = ~batch["present"]
                original = self.network.encode(batch["input"], absent)
            with torch.autocast(batch["input"].device.type, enabled=False):
                regulariser = self.regulariser(result["features"], original, batch["foreground"])
            loss = loss + weight * regulariser
        squared = reconstruction.detach()
        if self.config.loss != "l2" and scored.any():  # logged as the validation and the collapse lines are
            squared = masked_mean(voxel_error(result["prediction"].detach(), result["target"]), scored)
        return loss, {
            "reconstruction": squared,
            "regulariser": regulariser.detach(),
            "regulariser_weight": weight,
            **realised_ratios(batch["kinds"], batch["present"]),
        }


def realised_ratios(kinds: torch.Tensor, present: torch.Tensor) -> dict[str, float]:
    """Share of the (modality, unit) pairs of a batch that each step of the mask hides.

    Args:
        kinds: int8 (B, M, gz, gy, gx).
        present: boolean (B, M).
    """
    there = kinds[present]
    shares = {f"mask_{name}": float((there == kind).float().mean()) for name, kind in KINDS.items()}
    return {"mask_ratio": sum(shares.values()), **shares}
