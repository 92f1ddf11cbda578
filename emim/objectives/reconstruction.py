"""The masked reconstruction loss: hidden, present, measured foreground voxels only."""

from __future__ import annotations

import torch

from emim.masking.units import from_units, to_units

LOSSES = ("l2", "l1")


def voxel_error(prediction: torch.Tensor, target: torch.Tensor, loss: str = "l2") -> torch.Tensor:
    """Squared ("l2") or absolute ("l1") error of each voxel, in float32."""
    difference = prediction.float() - target.float()
    return difference.square() if loss == "l2" else difference.abs()


def measured(target: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Where each modality has a value of its own, boolean, of the shape of ``target`` (…, M, Z, Y, X).

    The foreground is that of all modalities together. Where one of them ends before it, by a smaller field
    of view or a tighter brain mask, preparation wrote exactly 0, which is no truth to learn.

    Args:
        target: prepared volumes, not normalised any further.
        foreground: boolean (…, 1, Z, Y, X).
    """
    return foreground & (target != 0)


def masked_mean(error: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of ``error`` over the voxels where boolean ``where`` is true; NaN when there is none.

    Modalities are z-scored, so one mean over all of them weighs them alike and can be compared
    with the collapse lines of :mod:`emim.objectives.collapse_lines`.
    """
    return torch.where(where, error, 0).sum() / where.sum()


def normalise_units(target: torch.Tensor, where: torch.Tensor, unit: int) -> torch.Tensor:
    """Standardise every mask unit over its own voxels (MAE's normalised targets).

    Args:
        target: (B, M, Z, Y, X).
        where: boolean, same shape: the voxels that count, see :func:`measured`.
        unit: side of a mask unit in voxels.
    """
    units = to_units(target.float(), unit)
    weight = to_units(where.float(), unit)
    count = weight.sum(-1, keepdim=True).clamp(min=1)
    mean = (units * weight).sum(-1, keepdim=True) / count
    variance = ((units - mean).square() * weight).sum(-1, keepdim=True) / count
    normalised = (units - mean) / (variance + 1e-6).sqrt()
    return from_units(normalised, unit, tuple(target.shape[-3:]))
