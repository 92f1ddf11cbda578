"""Validation of classification: scores of whole cases, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from emim.evaluation.class_scores import bootstrap, class_scores
from emim.evaluation.class_verdict import judge_classes
from emim.inference.case_features import OVERLAP, case_features, class_probabilities
from emim.inference.sliding import count_tiles
from emim.networks.classifier import Classifier
from emim.package.model import ModelCard
from emim.run import RunFolder, write_json
from emim.training.pretrain_watch import spread_evenly
from emim.volumes.cache import CachedCase

MOST_CASES = 200
DRAWS = 300  # of the bootstrap: at every validation, so fewer than an evaluation does


class ClassificationWatch:
    """Classifies whole validation cases.

    Args:
        card: what the network is.
        targets: case id to the number of its class.
        cases: validation cases; of many, :data:`MOST_CASES` are measured.
        device: where to infer.
    """

    def __init__(
        self,
        card: ModelCard,
        targets: Mapping[str, int],
        cases: Sequence[CachedCase],
        device: torch.device,
    ) -> None:
        self.card, self.targets, self.device = card, targets, device
        self.cases = spread_evenly(cases, MOST_CASES)
        self._latest: dict[str, Any] = {}

    @property
    def units(self) -> int:
        """How often :meth:`measure` asks whether to stop: once for each crop."""
        whole = (c.crop((0, 0, 0), c.shape).foreground for c in self.cases)
        return sum(count_tiles(foreground, self.card.crop, OVERLAP) for foreground in whole)

    def measure(self, network: Classifier, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Scores of the validation cases; see :func:`emim.evaluation.class_scores.class_scores`.

        Returns:
            its values, where those of classes are by name (None: no such case), ``auc_interval`` (95 %,
            or None) and ``cases``.

        Raises:
            Cancelled: when ``should_stop``, asked before each crop, said so.
        """
        rows = [self._probabilities(network, case, should_stop) for case in self.cases]
        target = np.array([self.targets[c.id] for c in self.cases])
        probabilities = np.stack(rows)
        values = class_scores(probabilities, target)
        for name in ("auc_per_class", "recall_per_class"):
            known = (float(v) if np.isfinite(v) else None for v in values[name])
            values[name] = dict(zip(self.card.classes, known, strict=True))
        interval = bootstrap(probabilities, target, [c.subject for c in self.cases], DRAWS)["auc"]
        self._latest = {**values, "auc_interval": interval, "cases": len(rows)}
        return self._latest

    def write_verdict(self, run: RunFolder, step: int) -> None:
        """What the latest validation says, as ``report/verdict.json``."""
        if self._latest:
            share = step / run.config.train.steps
            write_json(run.report / "verdict.json", judge_classes(self._latest, share).to_dict())

    def _probabilities(
        self, network: Classifier, case: CachedCase, should_stop: Callable[[], bool] | None
    ) -> np.ndarray:
        whole = case.crop((0, 0, 0), case.shape)
        features = case_features(
            network, whole.image, case.present, whole.foreground, self.card, self.device, should_stop
        )
        return class_probabilities(network, features)
