"""Validation of fine-tuning: Dice of whole cases, and a preview to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import nn

from emim.inference.predict import predict_case
from emim.inference.quality import Effort
from emim.inference.sliding import count_tiles
from emim.package.model import ModelCard
from emim.training.pretrain_watch import spread_evenly
from emim.training.preview import Segmentation
from emim.volumes.cache import CachedCase, Crop
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

    @property
    def units(self) -> int:
        """How often :meth:`measure` asks whether to stop: once for each tile."""
        whole = (c.crop((0, 0, 0), c.shape).foreground for c in self.cases)
        return sum(count_tiles(foreground, self.card.crop, OVERLAP) for foreground in whole)

    def measure(
        self, network: nn.Module, should_stop: Callable[[], bool] | None = None
    ) -> tuple[dict[str, Any], Segmentation]:
        """Mean Dice per structure on the working grid, over the cases whose reference has it.

        Returns:
            ``dice``, the mean over structures, and ``dice_per_structure``, None where no reference
            has the structure; and what was segmented in the first case.

        Raises:
            Cancelled: when ``should_stop``, asked before each tile, said so.
        """
        scores = []
        shown = None
        for case in self.cases:
            segmented = self._segment(network, case, should_stop)
            shown = shown or segmented
            both = (torch.from_numpy(m)[None] for m in (segmented.prediction, segmented.reference))
            scores.append(compute_dice(*both, ignore_empty=True)[0].numpy())
        table = np.array(scores)
        means = {}
        for k, structure in enumerate(self.card.structures):
            known = table[:, k][np.isfinite(table[:, k])]
            means[structure.name] = float(known.mean()) if len(known) else None
        known = [v for v in means.values() if v is not None]
        dice = sum(known) / len(known) if known else math.nan
        return {"dice": dice, "dice_per_structure": means}, shown

    def unsegmented(self) -> Segmentation:
        """The first case with nothing segmented."""
        whole = self.cases[0].crop((0, 0, 0), self.cases[0].shape)
        return self._show(
            self.cases[0], whole, np.zeros((len(self.card.structures), *whole.label.shape), bool)
        )

    def _segment(
        self, network: nn.Module, case: CachedCase, should_stop: Callable[[], bool] | None
    ) -> Segmentation:
        whole = case.crop((0, 0, 0), case.shape)
        present = np.asarray(case.present)
        prepared = PreparedCase(whole.image, present, whole.foreground, whole.label, case.grid, case.id)
        probabilities = predict_case(
            network, prepared, self.card, self.device, Effort(OVERLAP), should_stop=should_stop
        )
        return self._show(case, whole, self._masks(probabilities))

    def _show(self, case: CachedCase, whole: Crop, masks: np.ndarray) -> Segmentation:
        return Segmentation(
            case.id,
            case.grid,
            self.card.modalities,
            np.asarray(case.present),
            whole.image,
            prediction=masks,
            reference=np.stack([np.isin(whole.label, s.values) for s in self.card.structures]),
        )

    def _masks(self, probabilities: np.ndarray) -> np.ndarray:
        """Boolean (K, Z, Y, X), one per structure."""
        if self.card.overlapping:
            return probabilities > 0.5
        winner = probabilities.argmax(0)
        return np.stack([winner == k + 1 for k in range(len(self.card.structures))])
