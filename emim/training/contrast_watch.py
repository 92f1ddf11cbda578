"""Validation of the contrastive baseline: its loss on unseen subjects, and the gauges of its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from emim.config import PretrainConfig
from emim.errors import Cancelled
from emim.objectives.contrastive import alignment, chance, found, nt_xent, spread
from emim.training.augmentation import for_contrast
from emim.training.contrast_model import ContrastModel
from emim.training.feature_gauges import feature_gauges, foreground_rows, one_of_each_subject
from emim.training.sampling import contrast_pair, sample_generator
from emim.volumes.cache import CachedCase

# Seed of its own, so that validation never shares crops with a training step.
VALIDATION = 2**32
REPEATS = 4  # pairs of each subject
MAX_SUBJECTS = 12


class ContrastWatch:
    """Measures a :class:`ContrastModel` on fixed pairs of crops.

    Args:
        config: settings of the run.
        training, validation: cases.
    """

    def __init__(
        self, config: PretrainConfig, training: Sequence[CachedCase], validation: Sequence[CachedCase]
    ) -> None:
        self.config = config
        train = config.train
        augmentation = for_contrast(config.preprocess.spacing, train.mirror)
        unseen = list({c.subject: c for c in reversed(validation)}.values())[::-1]
        # As many at once as in training, where there are so many: the more, the harder.
        subjects = min(len(unseen), MAX_SUBJECTS)
        self.samples = min(train.batch, subjects)
        groups = subjects // self.samples if self.samples > 1 else 0
        self.batches = []
        for repeat in range(REPEATS * bool(groups)):
            for g in range(groups):
                pairs = [
                    contrast_pair(
                        unseen[i],
                        train.crop,
                        augmentation,
                        sample_generator(train.seed, VALIDATION + repeat, i),
                    )
                    for i in range(g * self.samples, (g + 1) * self.samples)
                ]
                self.batches.append(pairs)
        self.gauge_samples = [_middle(c, train.crop) for c in one_of_each_subject(validation, training)]

    @property
    def units(self) -> int:
        """How often :meth:`measure` asks whether to stop."""
        return sum(map(len, self.batches)) + len(self.gauge_samples)

    def measure(
        self, model: ContrastModel, device: torch.device, should_stop: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """The values of a validation metric event.

        ``contrastive`` is the loss, ``chance`` what it is when features do not tell subjects apart; both are
        None where there are fewer than two subjects to validate on. ``alignment``, ``spread`` and ``found``
        are those of :mod:`emim.objectives.contrastive`.

        Raises:
            Cancelled: when ``should_stop``, asked before each pass through the network, said so.
        """

        def check() -> None:
            if should_stop is not None and should_stop():
                raise Cancelled

        views = []
        for pairs in self.batches:
            each = []
            for pair in pairs:  # one after the other: the batch of a training may be that of many GPUs
                check()
                each.append(model.project({k: v[None].to(device) for k, v in pair.items()}))
            views.append([torch.cat(view) for view in zip(*each, strict=True)])
        levels: list[list[torch.Tensor]] = []
        for sample in self.gauge_samples:
            check()
            batch = {k: v.to(device)[None] for k, v in sample.items()}
            pyramid = model.network.encode(batch["input"], ~batch["present"])
            levels = levels or [[] for _ in pyramid]
            for rows, features in zip(levels, pyramid, strict=True):
                rows.append(foreground_rows(features.float(), batch["foreground"]).cpu())

        def mean(gauge: Callable[..., torch.Tensor]) -> float | None:
            return float(torch.stack([gauge(a, b) for a, b in views]).mean()) if views else None

        return {
            "contrastive": mean(nt_xent),
            "chance": chance(self.samples) if views else None,
            "alignment": mean(alignment),
            "spread": mean(lambda a, b: spread(torch.cat([a, b]))),
            "found": mean(found),
            **feature_gauges(levels),
        }


def _middle(case: CachedCase, crop: int) -> dict[str, torch.Tensor]:
    """The crop in the middle of ``case``, as it is."""
    read = case.crop([(s - crop) // 2 for s in case.shape], (crop,) * 3)
    return {
        "input": torch.from_numpy(read.image),
        "foreground": torch.from_numpy(read.foreground)[None],
        "present": torch.as_tensor(case.present),
    }
