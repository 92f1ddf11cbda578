"""The task of telling cases apart: network, batches, loss, and what is watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from emim.config import FinetuneConfig
from emim.inference.case_features import case_features
from emim.machine.reduce import mean_over_ranks
from emim.networks.layout import memory_format
from emim.package.model import ModelCard
from emim.package.network import build_network
from emim.run import RunFolder
from emim.training.augmentation import for_finetuning
from emim.training.classification_batches import ClassificationBatches
from emim.training.classification_watch import ClassificationWatch
from emim.training.optimisation import Optimisation
from emim.training.pretrain_watch import spread_evenly
from emim.volumes.cache import CachedCase

# Training cases by which features are standardised before the whole network learns; a probe sees all.
MOST_CASES = 32


class Classification:
    """Classification; the counterpart of :class:`emim.training.tasks.Finetuning`.

    Args:
        config: settings, with modalities, spacing, classes and pooling.
        card: what the network is to be.
        labels: case id to class.
        training, validation: cases.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        card: ModelCard,
        labels: Mapping[str, str],
        training: Sequence[CachedCase],
        validation: Sequence[CachedCase],
        device: torch.device,
    ) -> None:
        self.config, self.card, self.device = config, card, device
        self.training = list(training)
        targets = {i: card.classes.index(c) for i, c in labels.items() if c in card.classes}
        self.targets = targets
        torch.manual_seed(config.train.seed)
        self.network = build_network(card)
        if config.classification.mode != "full":
            for part in ("encoder", "tokens"):
                if hasattr(self.network, part):
                    getattr(self.network, part).requires_grad_(False)
        self.watch = ClassificationWatch(card, targets, validation, device)
        self.data = ClassificationBatches(
            training,
            config.train,
            for_finetuning(config.preprocess.spacing, config.train.mirror, labelled=False),
            targets,
            config.modality_dropout,
        )

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.config.classification.mode != "knn"

    def optimisation(self, rates: Mapping[str, float] | None = None) -> Optimisation:
        """Moves the network, which may have got other weights since, to the device.

        Args:
            rates: see :func:`emim.training.optimisation.make_optimiser`.
        """
        self.network.to(self.device, memory_format=memory_format(self.card.network, self.device))
        weights = class_weights([self.targets[c.id] for c in self.training], len(self.card.classes))
        weights = weights.to(self.device)

        def compute_loss(network: torch.nn.Module, batch: dict[str, torch.Tensor], step: int):
            logits = network(batch["input"], batch["present"]).float()
            entropy = F.cross_entropy(logits, batch["target"], reduction="none")
            # Not divided by the weights of the batch: in a batch of one class they would cancel.
            return mean_over_ranks((weights[batch["target"]] * entropy).mean()), {}

        start = self.config.head_start
        return Optimisation(self.network, self.config.train, self.device, compute_loss, rates, start)

    def prepare(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Standardise features by training cases and, for neighbours, keep those of all of them.

        Raises:
            Cancelled: when ``should_stop`` said so.
        """
        network = self.network.to(self.device)
        cases = self.training
        if self.config.classification.mode == "full":
            cases = spread_evenly(cases, MOST_CASES)
        features = torch.cat([self._features(case, should_stop) for case in cases]).clone()
        if len(features) > 1:
            network.standardise(features, scale=self.config.classification.mode != "full")
        if not self.trains:
            head = network.output["head"]
            head.features.copy_((features - network.centre) / network.spread)
            head.target.copy_(torch.tensor([self.targets[c.id] for c in cases]))

    def measure(self, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """The values of a validation; see :meth:`ClassificationWatch.measure`."""
        return self.watch.measure(self.network, should_stop)

    def score(self, values: dict[str, Any]) -> float:
        """Of a validation, the higher the better: the log-likelihood, which few cases resolve finest."""
        return -values["cross_entropy"]

    def write_preview(self, run: RunFolder, step: int) -> None:
        """There is no picture to show; the verdict is written instead."""
        self.watch.write_verdict(run, step)

    def _features(self, case: CachedCase, should_stop: Callable[[], bool] | None) -> torch.Tensor:
        whole = case.crop((0, 0, 0), case.shape)
        present = case.present
        return case_features(
            self.network, whole.image, present, whole.foreground, self.card, self.device, should_stop
        )


def class_weights(targets: Sequence[int], classes: int) -> torch.Tensor:
    """Weight (K,) of each class: inverse to its frequency, 1 on average over the cases."""
    counts = torch.bincount(torch.tensor(targets), minlength=classes).float()
    return len(targets) / ((counts > 0).sum() * counts.clamp(min=1))
