"""Augmentation by MONAI's transforms, seeded by the step.

What moves voxels acts on everything in a sample alike; what changes intensities acts on ``input``
only, so the reconstruction target stays the measured volume.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffined,
    RandFlipd,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)

LEFT_RIGHT = 2  # spatial axis of (Z, Y, X) arrays


class _WithoutMetadata:
    """Meanwhile MONAI keeps no history of each tensor, which takes it longer than transforming it.

    Its switch is one for all threads: the first to begin turns it, the last to end turns it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = get_track_meta()
                set_track_meta(False)
            self._inside += 1

    def __exit__(self, *error) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                set_track_meta(self._before)


_without_metadata = _WithoutMetadata()


class Augmentation:
    """Random transforms of one sample.

    Args:
        keys: voxel-wise entries of a sample.
        spatial: MONAI dictionary transform of these.
        intensity: MONAI array transform of ``input``.
    """

    def __init__(self, keys: tuple[str, ...], spatial: Compose, intensity: Compose) -> None:
        self.keys, self.spatial, self.intensity = keys, spatial, intensity

    def __call__(self, sample: dict[str, torch.Tensor], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Transform ``sample`` (entries (C, Z, Y, X)); every random choice comes from ``rng``."""
        with _without_metadata:
            return self._transformed(dict(sample), rng)

    def _transformed(
        self, sample: dict[str, torch.Tensor], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        air = sample["input"] == 0
        self.intensity.set_random_state(int(rng.integers(2**31)))
        # Air stays zero: its level says nothing about tissue, and a missing modality has none.
        sample["input"] = torch.where(air, 0, _plain(self.intensity(sample["input"])))
        self.spatial.set_random_state(int(rng.integers(2**31)))
        moved = self.spatial({k: sample[k].float() for k in self.keys})
        for key in self.keys:
            sample[key] = _plain(moved[key]).to(sample[key].dtype).contiguous()
        return sample


def for_pretraining(mirror: bool | None = None) -> Augmentation:
    """Left-right mirroring and slight changes of contrast: masking is the real augmentation."""
    keys = ("input", "target", "foreground")
    return Augmentation(
        keys,
        Compose([_mirror(keys, mirror)]),
        Compose(
            [
                RandScaleIntensity(0.1, prob=0.5, channel_wise=True),
                RandShiftIntensity(0.1, prob=0.5, channel_wise=True),
            ]
        ),
    )


def for_contrast(spacing: Sequence[float] = (1, 1, 1), mirror: bool | None = None) -> Augmentation:
    """What the two crops of a pair must not be told by: as :func:`for_finetuning`, but most of it each time.

    Without strong augmentation crops are told by their brightness and place, and nothing else is learned.
    """
    keys = ("input", "foreground")
    return Augmentation(
        keys,
        Compose([_mirror(keys, mirror), _affine(keys, spacing, prob=0.8)]),
        Compose(
            [
                RandScaleIntensity(0.25, prob=0.8, channel_wise=True),
                RandShiftIntensity(0.25, prob=0.8, channel_wise=True),
                RandGaussianNoise(prob=0.5, std=0.1, sample_std=True),
                RandGaussianSmooth((0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.5),
                RandAdjustContrast(prob=0.5, gamma=(0.7, 1.5), retain_stats=True),
            ]
        ),
    )


def for_finetuning(
    spacing: Sequence[float] = (1, 1, 1), mirror: bool | None = None, labelled: bool = True
) -> Augmentation:
    """Rotation, scaling, mirroring, contrast, noise and blur, about as nnU-Net dosed for MRI.

    Args:
        spacing: mm along X, Y, Z. With thick slices only the plane of the slices is rotated, since a
            rotation out of it would shear the anatomy.
        mirror: mirror left and right, unless false.
        labelled: samples have a ``label`` of every voxel, which moves along.
    """
    keys = ("input", "label") if labelled else ("input",)
    return Augmentation(
        keys,
        Compose(
            [
                _mirror(keys, mirror),
                _affine(keys, spacing, prob=0.3),
            ]
        ),
        Compose(
            [
                RandScaleIntensity(0.25, prob=0.3, channel_wise=True),
                RandShiftIntensity(0.25, prob=0.3, channel_wise=True),
                RandGaussianNoise(prob=0.15, std=0.1, sample_std=True),
                RandGaussianSmooth((0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.15),
                RandAdjustContrast(prob=0.2, gamma=(0.7, 1.5), retain_stats=True),
            ]
        ),
    )


def _mirror(keys: tuple[str, ...], wanted: bool | None) -> RandFlipd:
    return RandFlipd(keys, prob=0.0 if wanted is False else 0.5, spatial_axis=LEFT_RIGHT)


def _affine(keys: tuple[str, ...], spacing: Sequence[float], prob: float) -> RandAffined:
    """Rotation and scaling; a second of ``keys`` is a mask or labels."""
    across = np.argsort(spacing[::-1])  # array axes, thinnest voxels first
    thick = spacing[::-1][across[2]] > 2 * spacing[::-1][across[1]]
    return RandAffined(
        keys,
        prob=prob,
        rotate_range=[0.3 if not thick or axis == across[2] else 0.0 for axis in range(3)],
        scale_range=(0.15, 0.15, 0.15),
        mode=("bilinear", "nearest")[: len(keys)],
        padding_mode="zeros",
    )


def _plain(x: torch.Tensor) -> torch.Tensor:
    return x.as_tensor() if hasattr(x, "as_tensor") else torch.as_tensor(x)
