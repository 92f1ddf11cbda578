"""From mask units to voxels and back."""

from __future__ import annotations

import torch


def to_voxels(units: torch.Tensor, unit: int) -> torch.Tensor:
    """Repeat each element of ``units`` (..., gz, gy, gx) to a cube of ``unit`` voxels a side."""
    for axis in (-3, -2, -1):
        units = units.repeat_interleave(unit, dim=axis)
    return units


def to_units(voxels: torch.Tensor, unit: int) -> torch.Tensor:
    """Reorder ``voxels`` (..., Z, Y, X) into (..., N, unit³), units in Z, Y, X order.

    Sides must be multiples of ``unit``.
    """
    *lead, z, y, x = voxels.shape
    grid = voxels.reshape(*lead, z // unit, unit, y // unit, unit, x // unit, unit)
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3, n + 5)
    return grid.permute(order).reshape(*lead, -1, unit**3)


def from_units(units: torch.Tensor, unit: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Inverse of :func:`to_units`: (..., N, unit³) to (..., Z, Y, X) of the given ``shape``."""
    *lead, _, _ = units.shape
    z, y, x = (s // unit for s in shape)
    grid = units.reshape(*lead, z, y, x, unit, unit, unit)
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2, n + 5)
    return grid.permute(order).reshape(*lead, *shape)
