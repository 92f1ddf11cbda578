"""From one grid to another: copied where the voxels coincide, else interpolated once.

Interpolation is linear: it neither overshoots at the edge of a skull-stripped brain nor rings around
a constant background, as B-splines do, and it is several times faster. Where the axes of both grids are
parallel, it is done along one axis after the other, which costs a fraction of ITK's way, the way of all other
grids; the two agree to rounding. Where it would skip voxels
(the target is more than 1.5 times coarser), the source is first smoothed with a Gaussian that widens
its resolution to the target's (Cardoso et al., MICCAI 2015): sigma = sqrt(f^2 - 1) / 2.355 voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from emim.volumes.foreground import bounding_box
from emim.volumes.grid import SAME_POSITION, Grid, index_map

SMOOTH_ABOVE = 1.5
PARALLEL = 1e-4  # voxels that axes called parallel may diverge by over the whole grid
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


def resample_array(array: np.ndarray, source: Grid, target: Grid, outside: Sequence[float]) -> np.ndarray:
    """Bring ``array`` (C, Z, Y, X) from ``source`` to ``target``; returns float32 (C, Z, Y, X).

    Grids that differ only by swapped or reversed axes and whole voxels are copied, value for value.

    Args:
        outside: per channel, the value of target voxels outside the source.
    """
    channels = [
        resample_volume(channel, source, target, value)
        for channel, value in zip(array.astype(np.float32, copy=False), outside, strict=True)
    ]
    return np.stack(channels)


def resample_volume(array: np.ndarray, source: Grid, target: Grid, outside: float = 0.0) -> np.ndarray:
    """Bring float32 ``array`` (Z, Y, X) from ``source`` to ``target``; see :func:`resample_array`."""
    copied = copy_voxels(array, source, target, outside)
    if copied is not None:
        return copied
    factors = np.abs(index_map(source, target)[0]).max(axis=1)  # source voxels per target step
    sigmas = [math.sqrt(f**2 - 1) / FWHM_PER_SIGMA if f > SMOOTH_ABOVE else 0.0 for f in factors]
    box, source = needed_part(source, target, margin=[math.ceil(3 * s) + 2 for s in sigmas])
    if 0 in source.size:
        return np.full(target.shape, outside, np.float32)
    array = array[box]
    for axis, sigma in enumerate(reversed(sigmas)):
        if sigma:
            array = _smooth(array, axis, sigma)
    return _linear(array, source, target, outside)


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Bring boolean ``mask`` (Z, Y, X) to ``target``: true where at least half of the weight is true."""
    copied = copy_voxels(mask, source, target, False)
    if copied is not None:
        return copied
    return resample_volume(mask.astype(np.float32), source, target) >= 0.5


def resample_label(label: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Bring int16 ``label`` (Z, Y, X) to ``target``: the label of greatest linear weight at each voxel."""
    copied = copy_voxels(label, source, target, 0)
    if copied is not None:
        return copied
    out = np.zeros(target.shape, np.int16)
    if not label.any():
        return out
    labelled = source.cropped(*zip(*((s.start, s.stop) for s in bounding_box(label != 0)), strict=True))
    region, target = needed_part(target, labelled, margin=(2, 2, 2))
    if 0 in target.size:
        return out
    box, source = needed_part(source, target, margin=(2, 2, 2))
    label = label[box]
    heaviest = _linear((label == 0).astype(np.float32), source, target, 1.0)
    for value in np.unique(label[label != 0]):
        weight = _linear((label == value).astype(np.float32), source, target, 0.0)
        out[region][weight > heaviest] = value
        np.maximum(heaviest, weight, out=heaviest)
    return out


def copy_voxels(array: np.ndarray, source: Grid, target: Grid, outside: float) -> np.ndarray | None:
    """``array`` (Z, Y, X) on ``target`` if its voxels are voxels of ``source``, else None."""
    matrix, offset = index_map(source, target)
    steps, start = np.rint(matrix).astype(int), np.rint(offset).astype(int)
    if not (np.abs(steps).sum(0) == 1).all() or not (np.abs(steps).sum(1) == 1).all():
        return None
    apart = target.corners() @ (matrix - steps).T + (offset - start)
    if np.abs(apart).max() >= SAME_POSITION:
        return None
    axes = np.abs(steps).argmax(axis=0)  # the source axis that runs along each target axis
    out = np.full(target.shape, outside, array.dtype)
    inside, taken = [], []
    for axis, n in zip(axes, target.size, strict=True):
        sign, first, limit = int(steps[axis].sum()), int(start[axis]), source.size[axis]
        # Target voxel x is source voxel sign * x + first; keep the x for which that exists.
        low = max(0, -first if sign > 0 else first - limit + 1)
        high = min(n, limit - first if sign > 0 else first + 1)
        if high <= low:
            return out
        inside.append(slice(low, high))
        begin, end = sign * low + first, sign * high + first
        taken.append(slice(begin, None if end < 0 else end, sign))
    source_axes = array.transpose(2, 1, 0).transpose(axes)  # (i, j, k), in the target's order
    out.transpose(2, 1, 0)[tuple(inside)] = source_axes[tuple(taken)]
    return out


def needed_part(source: Grid, target: Grid, margin: Sequence[int]) -> tuple[tuple[slice, ...], Grid]:
    """The box (z, y, x) of ``source`` that ``target`` lies in, ``margin`` (i, j, k) voxels wider."""
    matrix, offset = index_map(source, target)
    corners = target.corners() @ matrix.T + offset
    start = [max(0, math.floor(low) - m) for low, m in zip(corners.min(0), margin, strict=True)]
    stop = [
        max(a, min(n, math.ceil(high) + 1 + m))
        for a, n, high, m in zip(start, source.size, corners.max(0), margin, strict=True)
    ]
    box = tuple(slice(a, b) for a, b in zip(reversed(start), reversed(stop), strict=True))
    return box, source.cropped(tuple(start[::-1]), tuple(stop[::-1]))


def _smooth(array: np.ndarray, axis: int, sigma: float) -> np.ndarray:
    """Convolve ``array`` along ``axis`` with a Gaussian of ``sigma`` voxels; the edge is repeated."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    width = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
    padded = np.moveaxis(np.pad(array, width, mode="edge"), axis, 0)
    smooth = np.zeros_like(np.moveaxis(array, axis, 0))
    for shift, weight in enumerate(weights):
        smooth += weight * padded[shift : shift + smooth.shape[0]]
    return np.moveaxis(smooth, 0, axis)


def _linear(array: np.ndarray, source: Grid, target: Grid, outside: float) -> np.ndarray:
    """Interpolate float32 ``array`` (Z, Y, X); voxels half a voxel or more outside become ``outside``."""
    matrix, offset = index_map(source, target)
    axes = np.abs(matrix).argmax(axis=0)  # the source axis that runs along each target axis
    straight = np.zeros((3, 3))
    straight[axes, range(3)] = matrix[axes, range(3)]
    if len(set(axes)) < 3 or np.abs(target.corners() @ (matrix - straight).T).max() >= PARALLEL:
        return _interpolate(array, source, target, outside)
    array = array.transpose(2, 1, 0).transpose(axes).transpose(2, 1, 0)
    inside = [slice(None)] * 3
    for i in (2, 1, 0):  # planes, then rows: what is left is smallest where it is slowest
        positions = offset[axes[i]] + matrix[axes[i], i] * np.arange(target.size[i])
        array, inside[2 - i] = _linear_along(array, 2 - i, np.round(positions, 6))
    if array.shape == target.shape:
        return np.ascontiguousarray(array)
    out = np.full(target.shape, outside, np.float32)
    out[tuple(inside)] = array
    return out


def _linear_along(array: np.ndarray, axis: int, positions: np.ndarray) -> tuple[np.ndarray, slice]:
    """``array`` at fractional ``positions`` of an axis, and which of them lie inside (a run without gaps)."""
    last = array.shape[axis] - 1
    found = np.flatnonzero((positions >= -0.5) & (positions < last + 0.5))
    inside = slice(found[0], found[-1] + 1) if found.size else slice(0, 0)
    positions = np.clip(positions[inside], 0, last)
    below = np.minimum(positions.astype(int), max(0, last - 1))
    share = (positions - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    low = array.take(below, axis)
    if not share.any():
        return low, inside
    high = array.take(np.minimum(below + 1, last), axis)
    high -= low
    high *= share
    high += low
    return high, inside


def _interpolate(array: np.ndarray, source: Grid, target: Grid, outside: float) -> np.ndarray:
    import SimpleITK as sitk

    resampled = sitk.Resample(
        source.to_image(array),
        target.size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        target.origin,
        target.spacing,
        target.direction,
        outside,
    )
    return sitk.GetArrayFromImage(resampled)
