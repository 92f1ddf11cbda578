"""Dice and HD95 of one structure, by MONAI, defined for empty masks too.

============ ============ ==== ======================
reference    prediction   Dice HD95
============ ============ ==== ======================
some voxels  some voxels  MONAI's
empty        empty        1    0 mm
some voxels  empty        0    diagonal of the image
empty        some voxels  0    diagonal of the image
============ ============ ==== ======================

HD95 is the larger of the two directed 95th percentiles of the distances between the surfaces, in mm.
The diagonal (from corner to corner of the reference image, in mm) is more than any distance that can
occur within the image, so finding nothing, or something that is not there, is never rewarded. For
the images of the BraTS challenge it is 373.13 mm, the value that BraTS itself uses.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """How well one structure of one case was found.

    Attributes:
        dice: 0 to 1.
        hd95: mm.
        reference_ml, prediction_ml: volumes.
        empty: which mask has no voxel: "both", "reference", "prediction" or None.
    """

    structure: str
    dice: float
    hd95: float
    reference_ml: float
    prediction_ml: float
    empty: str | None


def score(structure: str, reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> Score:
    """Compare two boolean masks (Z, Y, X) of one grid; ``spacing`` is mm along (Z, Y, X)."""
    volumes = [float(np.count_nonzero(m) * np.prod(spacing) / 1000) for m in (reference, prediction)]
    some = reference.any(), prediction.any()
    if all(some):
        return Score(structure, *_monai(reference, prediction, spacing), *volumes, None)
    if not any(some):
        return Score(structure, 1.0, 0.0, *volumes, "both")
    empty = "prediction" if some[0] else "reference"
    return Score(structure, 0.0, diagonal(reference.shape, spacing), *volumes, empty)


def diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """mm from corner to corner of an image."""
    return math.hypot(*(n * s for n, s in zip(shape, spacing, strict=True)))


def _monai(reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance

    y, p = (
        torch.from_numpy(np.ascontiguousarray(m, np.float32))[None, None] for m in (reference, prediction)
    )
    dice = compute_dice(p, y, include_background=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI about its own internals
        hd95 = compute_hausdorff_distance(
            p, y, include_background=True, percentile=95, spacing=[float(s) for s in spacing]
        )
    return float(dice), float(hd95)
