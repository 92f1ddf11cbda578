"""What the two kinds of training are made of: network, batches, loss, and what is watched.

A run trains a task to its end; an estimate tries a few of its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from emim.config import FinetuneConfig, PretrainConfig
from emim.networks.build import build_segmenter
from emim.networks.layout import memory_format
from emim.package.model import ModelCard
from emim.run import RunFolder
from emim.training.augmentation import for_contrast, for_finetuning, for_pretraining
from emim.training.classification import Classification
from emim.training.contrast_model import ContrastModel
from emim.training.contrast_watch import ContrastWatch
from emim.training.finetune_watch import FinetuneWatch
from emim.training.optimisation import Optimisation
from emim.training.pretrain_model import PretrainModel
from emim.training.pretrain_watch import PretrainWatch
from emim.training.preview import Segmentation, write_reconstruction, write_segmentation
from emim.training.sampling import ContrastBatches, FinetuneBatches, PretrainBatches
from emim.training.segmentation_loss import SegmentationLoss
from emim.volumes.cache import CachedCase


def finetuning_task(
    config: FinetuneConfig, card: ModelCard, labels: Mapping[str, str] | None, *cases: Any
) -> Finetuning | Classification:
    """The task of ``config``; ``labels``, case id to class, are those of classification.

    The rest is what the tasks take: training and validation cases, and the device.
    """
    if config.task == "classification":
        return Classification(config, card, labels, *cases)
    return Finetuning(config, card, *cases)


class Pretraining:
    """Masked reconstruction.

    Args:
        config: settings, with modalities and spacing.
        training, validation: cases; no validation case is allowed.
    """

    trains: ClassVar[bool] = True

    def __init__(
        self,
        config: PretrainConfig,
        training: Sequence[CachedCase],
        validation: Sequence[CachedCase],
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self._watched = training, validation
        torch.manual_seed(config.train.seed)
        self.model = self._model().to(device, memory_format=memory_format(config.network, device))
        self.data = self._batches(training)

    def _model(self) -> torch.nn.Module:
        return PretrainModel(len(self.config.modalities), self.config)

    def _batches(self, training: Sequence[CachedCase]) -> PretrainBatches:
        augmentation = for_pretraining(self.config.train.mirror)
        return PretrainBatches(training, self.config.train, augmentation, self.config.mask)

    @cached_property
    def watch(self) -> PretrainWatch:
        return PretrainWatch(self.config, *self._watched)

    def optimisation(self) -> Optimisation:
        return Optimisation(
            self.model,
            self.config.train,
            self.device,
            lambda model, batch, step: model(batch, step),
            weigh=self.model.count_scored,
        )

    def measure(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The values of a validation; see :meth:`PretrainWatch.measure`."""
        return self.watch.measure(self.model, self.device, should_stop)

    def write_preview(self, run: RunFolder, step: int) -> None:
        write_reconstruction(run, self.watch.reconstruct(self.model, self.device), step)


class Contrast(Pretraining):
    """The contrastive baseline."""

    def _model(self) -> torch.nn.Module:
        return ContrastModel(len(self.config.modalities), self.config)

    def _batches(self, training: Sequence[CachedCase]) -> ContrastBatches:
        config = self.config
        augmentation = for_contrast(config.preprocess.spacing, config.train.mirror)
        return ContrastBatches(training, config.train, augmentation)

    @cached_property
    def watch(self) -> ContrastWatch:
        return ContrastWatch(self.config, *self._watched)

    def optimisation(self) -> Optimisation:
        return Optimisation(
            self.model, self.config.train, self.device, lambda model, batch, step: model(batch, step)
        )

    def write_preview(self, run: RunFolder, step: int) -> None:
        """Nothing: there is no reconstruction to look at."""


def pretraining_task(config: PretrainConfig, *cases_and_device: Any) -> Pretraining:
    """The task of the objective of ``config``; the arguments are those of :class:`Pretraining`."""
    return (Contrast if config.objective == "contrastive" else Pretraining)(config, *cases_and_device)


class Finetuning:
    """Segmentation.

    Args:
        config, training, validation: as for :class:`Pretraining`.
        card: what the network is to be.
    """

    trains: ClassVar[bool] = True

    def __init__(
        self,
        config: FinetuneConfig,
        card: ModelCard,
        training: Sequence[CachedCase],
        validation: Sequence[CachedCase],
        device: torch.device,
    ) -> None:
        self.config, self.card, self.device = config, card, device
        torch.manual_seed(config.train.seed)
        self.network = build_segmenter(len(card.modalities), card.outputs, card.network)
        self.watch = FinetuneWatch(card, validation, device)
        self.data = FinetuneBatches(
            training,
            config.train,
            for_finetuning(config.preprocess.spacing, config.train.mirror),
            [s.values for s in card.structures],
            config.foreground_share,
            config.modality_dropout,
        )
        self._shown: Segmentation | None = None

    def optimisation(self, rates: Mapping[str, float] | None = None) -> Optimisation:
        """Moves the network, which may have got other weights since, to the device.

        Args:
            rates: see :func:`emim.training.optimisation.make_optimiser`.
        """
        loss = SegmentationLoss(self.card.overlapping)

        def compute_loss(network: torch.nn.Module, batch: dict[str, torch.Tensor], step: int):
            return loss(network(batch["input"], batch["present"]), batch["label"]), {}

        self.network.to(self.device, memory_format=memory_format(self.card.network, self.device))
        start = self.config.head_start
        return Optimisation(self.network, self.config.train, self.device, compute_loss, rates, start)

    def measure(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """The values of a validation; see :meth:`FinetuneWatch.measure`."""
        values, self._shown = self.watch.measure(self.network, should_stop)
        return values

    def score(self, values: dict[str, Any]) -> float:
        """Of a validation: the higher, the better."""
        return values["dice"]

    def write_preview(self, run: RunFolder, step: int) -> None:
        """What :meth:`measure` segmented last in the first case; nothing where it has not come that far."""
        shown = self._shown or self.watch.unsegmented()
        write_segmentation(run, shown, self.card.structures, step)
