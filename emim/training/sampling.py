"""Batches as a function of (seed, step): no state to keep, whoever loads them and wherever a run resumes.

Each sample is a function of (seed, step, its index in the batch), so a rank prepares its own samples only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from emim.config import MaskConfig, TrainConfig
from emim.machine.distributed import share
from emim.masking.patterns import draw_mask
from emim.training.augmentation import Augmentation
from emim.volumes.cache import CachedCase


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The source of all randomness of one step."""
    return np.random.default_rng([seed, step])


def sample_generator(seed: int, step: int, index: int) -> np.random.Generator:
    """The source of all randomness of one sample of a step, which no :func:`step_generator` shares."""
    return np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(index,)))


def random_start(rng: np.random.Generator, shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Start of a cubic crop inside ``shape``; centred along axes shorter than the crop."""
    return tuple(int(rng.integers(0, s - size + 1)) if s > size else (s - size) // 2 for s in shape)


def start_around(rng: np.random.Generator, voxel: Sequence[int], shape: Sequence[int], size: int):
    """Start of a crop that contains ``voxel`` at a random place, inside ``shape`` where it fits."""
    start = [int(v - rng.integers(size // 4, size - size // 4)) for v in voxel]
    return tuple(
        min(max(a, 0), s - size) if s > size else (s - size) // 2 for a, s in zip(start, shape, strict=True)
    )


class Batches(Dataset):
    """Item ``step`` is the batch of that step, or this rank's share of it; see the two kinds below.

    Args:
        cases: training cases.
        train: size and number of the crops, seed and length of the run.
        augmentation: applied to every crop; None for none.
    """

    def __init__(
        self, cases: Sequence[CachedCase], train: TrainConfig, augmentation: Augmentation | None
    ) -> None:
        self.cases, self.train, self.augmentation = list(cases), train, augmentation
        self._mine = share(train.batch)  # asked for now: processes that load batches have no rank

    def __len__(self) -> int:
        return self.train.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return self.samples(step, self._mine)

    def samples(self, step: int, indices: range) -> dict[str, torch.Tensor]:
        """These of the ``train.batch`` samples of a step, whichever rank they are for."""
        return collate([self._augmented(sample_generator(self.train.seed, step, i)) for i in indices])

    def for_another_thread(self) -> Batches:
        """The same batches for another thread: transforms keep a random state, which no two may share."""
        batches = copy.copy(self)
        batches.augmentation = copy.deepcopy(self.augmentation)
        return batches

    def _augmented(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        sample = self._sample(self.cases[rng.integers(len(self.cases))], rng)
        return self.augmentation(sample, rng) if self.augmentation else sample

    def _sample(self, case: CachedCase, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        raise NotImplementedError


class PretrainBatches(Batches):
    """Masked crops for pre-training.

    A batch is a dict of ``input`` and ``target`` (B, M, S, S, S) float32, which differ by the
    intensity augmentation, ``foreground`` (B, 1, S, S, S) bool, ``present`` (B, M) bool and
    ``kinds`` (B, M, g, g, g) int8, the mask over units. The crop S is a multiple of the mask unit.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        train: TrainConfig,
        augmentation: Augmentation | None,
        mask: MaskConfig,
    ) -> None:
        super().__init__(cases, train, augmentation)
        self.mask = mask

    def _sample(self, case: CachedCase, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        start = random_start(rng, case.shape, self.train.crop)
        return pretrain_sample(case, start, self.train.crop, self.mask, rng)


def pretrain_sample(
    case: CachedCase,
    start: Sequence[int],
    crop: int,
    mask: MaskConfig,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    """One crop of ``case`` with a mask drawn from ``rng``; see :class:`PretrainBatches`."""
    read = case.crop(start, (crop, crop, crop))
    grid = crop // mask.unit
    kinds = draw_mask(mask, np.asarray(case.present), grid**3, rng)
    target = torch.from_numpy(read.image)
    return {
        "input": target,
        "target": target,
        "foreground": torch.from_numpy(read.foreground)[None],
        "present": torch.as_tensor(np.asarray(case.present)),
        "kinds": torch.from_numpy(kinds).view(-1, grid, grid, grid),
    }


class ContrastBatches(Batches):
    """Pairs of crops for the contrastive objective.

    A batch is a dict of ``input`` (B, 2, M, S, S, S) float32, ``foreground`` (B, 2, 1, S, S, S) bool and
    ``present`` (B, M) bool. Each pair is of another subject. Both crops contain one voxel of its foreground
    in their middle half, so they overlap by half along each axis or more; each is augmented for itself.
    """

    def __init__(
        self, cases: Sequence[CachedCase], train: TrainConfig, augmentation: Augmentation | None
    ) -> None:
        super().__init__(cases, train, augmentation)
        by_subject: dict[str, list[CachedCase]] = {}
        for case in cases:
            by_subject.setdefault(case.subject, []).append(case)
        self.subjects = list(by_subject.values())

    def samples(self, step: int, indices: range) -> dict[str, torch.Tensor]:
        seed = self.train.seed
        drawn = step_generator(seed, step).choice(len(self.subjects), self.train.batch, replace=False)
        pairs = []
        for i in indices:
            rng = sample_generator(seed, step, i)
            cases = self.subjects[drawn[i]]
            case = cases[rng.integers(len(cases))]
            pairs.append(contrast_pair(case, self.train.crop, self.augmentation, rng))
        return collate(pairs)


def contrast_pair(
    case: CachedCase, crop: int, augmentation: Augmentation | None, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Two crops of ``case`` drawn from ``rng``; see :class:`ContrastBatches`."""
    voxels = case.foreground_voxels()
    voxel = voxels[rng.integers(len(voxels))] if len(voxels) else [s // 2 for s in case.shape]
    views = []
    for _ in range(2):
        read = case.crop(start_around(rng, voxel, case.shape, crop), (crop,) * 3)
        view = {"input": torch.from_numpy(read.image), "foreground": torch.from_numpy(read.foreground)[None]}
        views.append(augmentation(view, rng) if augmentation else view)
    return {**collate(views), "present": torch.as_tensor(np.asarray(case.present))}


class FinetuneBatches(Batches):
    """Labelled crops for fine-tuning.

    A batch is a dict of ``input`` (B, M, S, S, S) float32, ``label`` (B, K, S, S, S) bool, one mask
    per structure, and ``present`` (B, M) bool, false for modalities that are missing or dropped.

    Args:
        structures: label values of each structure.
        foreground_share: share of crops that hold a voxel of a structure in their middle half (structures are
            drawn evenly, and within one the voxels that a case stores of each of its values).
        modality_dropout: chance that a sample keeps only a random non-empty subset of its modalities.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        train: TrainConfig,
        augmentation: Augmentation | None,
        structures: Sequence[Sequence[int]],
        foreground_share: float,
        modality_dropout: float,
    ) -> None:
        super().__init__(cases, train, augmentation)
        self.structures = [tuple(s) for s in structures]
        self.foreground_share, self.modality_dropout = foreground_share, modality_dropout

    def _sample(self, case: CachedCase, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        read = case.crop(self._start(case, rng), (self.train.crop,) * 3)
        label = np.stack([np.isin(read.label, values) for values in self.structures])
        return {
            "input": torch.from_numpy(read.image),
            "label": torch.from_numpy(label),
            "present": torch.from_numpy(keep_some(np.asarray(case.present), self.modality_dropout, rng)),
        }

    def _start(self, case: CachedCase, rng: np.random.Generator) -> tuple[int, ...]:
        there = [s for s in self.structures if set(s) & set(case.label_values or ())]
        if there and rng.random() < self.foreground_share:
            structure = there[rng.integers(len(there))]
            voxels = np.concatenate([case.label_voxels(v) for v in structure if v in case.label_values])
            return start_around(rng, voxels[rng.integers(len(voxels))], case.shape, self.train.crop)
        return random_start(rng, case.shape, self.train.crop)


def keep_some(present: np.ndarray, dropout: float, rng: np.random.Generator) -> np.ndarray:
    """With chance ``dropout`` a random non-empty subset of the modalities ``present`` (M,), else all."""
    if rng.random() >= dropout:
        return present.copy()
    there = np.flatnonzero(present)
    kept = rng.choice(there, rng.integers(1, len(there) + 1), replace=False)
    result = np.zeros_like(present)
    result[kept] = True
    return result


def collate(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack samples to a batch."""
    return {k: torch.stack([s[k] for s in samples]) for k in samples[0]}
