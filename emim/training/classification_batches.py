"""Batches for learning to tell cases apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from emim.config import TrainConfig
from emim.training.augmentation import Augmentation
from emim.training.sampling import Batches, keep_some, random_start
from emim.volumes.cache import CachedCase


class ClassificationBatches(Batches):
    """One crop of a case with the class of the case.

    A batch is a dict of ``input`` (B, M, S, S, S) float32, ``present`` (B, M) bool, false for modalities that
    are missing or dropped, and ``target`` (B,) int64. The crop lies anywhere in the box of the foreground. It
    should be large enough to show what tells classes apart: one that does not has the class all the same.

    Args:
        targets: case id to the number of its class.
        modality_dropout: chance that a sample keeps only a random non-empty subset of its modalities.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        train: TrainConfig,
        augmentation: Augmentation | None,
        targets: Mapping[str, int],
        modality_dropout: float,
    ) -> None:
        super().__init__(cases, train, augmentation)
        self.targets, self.modality_dropout = targets, modality_dropout

    def _sample(self, case: CachedCase, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        size = self.train.crop
        read = case.crop(random_start(rng, case.shape, size), (size,) * 3)
        return {
            "input": torch.from_numpy(read.image),
            "present": torch.from_numpy(keep_some(np.asarray(case.present), self.modality_dropout, rng)),
            "target": torch.tensor(self.targets[case.id]),
        }
