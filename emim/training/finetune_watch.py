"""Validation of fine-tuning: Dice of whole cases, and a preview to look at."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import nn

from emim.inference.predict import predict_case
from emim.package.model import ModelCard
from emim.training.pretrain_watch import spread_evenly
from emim.volumes.cache import CachedCase
from emim.volumes.preprocess import PreparedCase

# Dice while training needs no finer blending; `emim segment` overlaps more.
OVERLAP = 0.25
# More would cost more time than they add certainty.
MOST_CASES = 20


class FinetuneWatch:
    """Measures a segmentation network on whole validation cases.

    Args:
        card: what the network is.
        cases: validation cases, labelled; of many, :data:`MOST_CASES` are measured.
        device: where to infer.
    """

    def __init__(self, card: ModelCard, cases: Sequence[CachedCase], device: torch.device) -> None:
        self.card, self.device = card, device
        self.cases = spread_evenly(cases, MOST_CASES)

    def measure(self, network: nn.Module, preview: Path, step: int) -> dict[str, Any]:
        """Mean Dice per structure on the working grid, over the cases whose reference has it.

        Writes image, reference and prediction of the first case to ``preview`` (.npz).

        Returns:
            ``dice``, the mean over structures, and ``dice_per_structure``; None where no reference
            has the structure.
        """
        scores = []
        for i, case in enumerate(self.cases):
            whole = case.crop((0, 0, 0), case.shape)
            prepared = PreparedCase(
                whole.image, np.asarray(case.present), whole.foreground, whole.label, None, case.id
            )
            probabilities = predict_case(network, prepared, self.card, self.device, OVERLAP)
            masks = self._masks(probabilities)
            reference = np.stack([np.isin(whole.label, s.values) for s in self.card.structures])
            scores.append(
                compute_dice(
                    torch.from_numpy(masks)[None], torch.from_numpy(reference)[None], ignore_empty=True
                )[0].numpy()
            )
            if i == 0:
                self._save_preview(preview, case, whole, masks, reference, step)
        table = np.array(scores)
        means = {}
        for k, structure in enumerate(self.card.structures):
            known = table[:, k][np.isfinite(table[:, k])]
            means[structure.name] = float(known.mean()) if len(known) else None
        known = [v for v in means.values() if v is not None]
        return {"dice": sum(known) / len(known) if known else math.nan, "dice_per_structure": means}

    def _masks(self, probabilities: np.ndarray) -> np.ndarray:
        """Boolean (K, Z, Y, X), one per structure."""
        if self.card.overlapping:
            return probabilities > 0.5
        winner = probabilities.argmax(0)
        return np.stack([winner == k + 1 for k in range(len(self.card.structures))])

    def _save_preview(self, file, case, whole, masks, reference, step) -> None:
        def paint(parts: np.ndarray) -> np.ndarray:
            label = np.zeros(parts.shape[1:], np.int16)
            for structure, mask in zip(self.card.structures, parts, strict=True):
                label[mask] = structure.output
            return label

        part = file.with_name("part-" + file.name)
        np.savez(
            part,
            image=whole.image,
            reference=paint(reference),
            prediction=paint(masks),
            modalities=np.array(self.card.modalities),
            case=np.array(case.id),
            step=np.array(step),
        )
        os.replace(part, file)
