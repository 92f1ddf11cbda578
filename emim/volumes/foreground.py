"""Which voxels of an MRI show the patient: skull-stripped or raw, brain or any other organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Values nearer to the background than this part of the image's range count as background:
# resampled images carry a faint halo around the stripped brain.
HALO = 0.01
# Below this part of the range (of tissue, seen from the background) lies the noise of air.
NOISE = 0.05
# Border voxels of one same value: so many alone prove an artificial background; fewer only where
# the rest of the image holds few voxels in the range of noise.
SURE_BORDER, POSSIBLE_BORDER, FEW_NOISY = 0.95, 0.2, 0.15
# Air is far darker than tissue: where Otsu's two classes have means nearer than this ratio, none is air.
NO_AIR = 0.4
# Parts smaller than this share of the largest are specks; two legs or two kidneys are not.
SMALL_PART = 0.1
# Sides, in voxels, of the coarse grid on which a raw head is closed.
COARSE = 100


@dataclass(frozen=True)
class Foreground:
    """The patient in one image.

    Attributes:
        mask: boolean (Z, Y, X), without holes.
        fill: value of the artificial background of a stripped or masked image, which is no
            measurement; None when the air was measured too.
    """

    mask: np.ndarray
    fill: float | None


def find_foreground(array: np.ndarray) -> Foreground:
    """Find the patient in one finite, not constant image (Z, Y, X), float32 or integers of at most 16 bits.

    An image whose border holds (nearly) one value, whatever it is, was stripped: everything else is
    foreground. In a raw image Otsu's threshold separates tissue from the noise of air; where nothing
    is as dark as air, the whole field of view is foreground. Specks are removed, holes
    filled, and in raw images also what tissue encloses in a slice (bone).
    """
    fill, share = _border_value(array)
    if share >= POSSIBLE_BORDER:
        inside = array != fill
        if not inside.any():
            return Foreground(inside, fill)
        box = bounding_box(inside)
        distance = array[box] - np.float32(fill)
        np.abs(distance, out=distance)
        values = distance[inside[box]]
        reach = _range(values)[1]
        if share >= SURE_BORDER or np.count_nonzero(values < NOISE * reach) < FEW_NOISY * values.size:
            mask = np.zeros(array.shape, bool)
            mask[box] = _solid(distance > HALO * reach)
            return Foreground(mask, fill)
    array = array.astype(np.float32, copy=False)
    threshold, ratio = _otsu(array)
    if ratio > NO_AIR:
        return Foreground(np.ones(array.shape, bool), None)
    return Foreground(_closed(_solid(array > threshold)), None)


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box (z, y, x) that holds every true voxel of a mask that has some."""
    box = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _border_value(array: np.ndarray) -> tuple[float, float]:
    """The commonest value of the six faces and the share of their voxels that have it."""
    faces = [array[0], array[-1], array[:, 0], array[:, -1], array[:, :, 0], array[:, :, -1]]
    values, counts = np.unique(np.concatenate([f.ravel() for f in faces]), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / counts.sum())


def _range(values: np.ndarray) -> tuple[float, float]:
    """1st and 99th percentile; of every n-th value where there are very many."""
    low, high = np.percentile(values[:: max(1, values.size // 500_000)], (1, 99))
    return float(low), float(high)


def _otsu(array: np.ndarray) -> tuple[float, float]:
    """Otsu's threshold, and the mean below it divided by the mean above it."""
    low, high = _range(array)
    counts, edges = np.histogram(array, 256, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    above = total - below
    sums = np.cumsum(counts * centres)
    base = min(0.0, low)  # magnitudes start at 0
    with np.errstate(divide="ignore", invalid="ignore"):
        dark, bright = sums / below, (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * (bright - dark) ** 2)
        best = int(between.argmax())
        ratio = (dark[best] - base) / (bright[best] - base)
    return float(edges[best + 1]), float(ratio)


def _solid(mask: np.ndarray) -> np.ndarray:
    """``mask`` without specks and with its holes filled."""
    parts = _parts(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # what is outside
    large = sizes >= max(1, SMALL_PART * sizes.max())
    one = np.count_nonzero(large) == 1  # as a rule; a comparison is faster than a table
    return _filled(parts == large.argmax() if one else large[parts])


def _closed(mask: np.ndarray) -> np.ndarray:
    """``mask`` with what it encloses in some axis-parallel slice filled.

    Bone is as dark as air, and the skull's shell is open at the neck, so it is no hole in 3-D.
    """
    # Found on a coarser grid: a boundary two voxels off does no harm, and it takes a tenth of the time.
    steps = [max(1, n // COARSE) for n in mask.shape]
    coarse = mask[tuple(slice(None, None, s) for s in steps)].copy()
    before = coarse.copy()
    for axis in range(3):
        for plane in np.moveaxis(coarse, axis, 0):
            if plane.any():
                plane[:] = _filled(plane)
    added = coarse & ~before
    for axis, step in enumerate(steps):
        added = added.repeat(step, axis).take(range(mask.shape[axis]), axis)
    return mask | added


def _filled(mask: np.ndarray) -> np.ndarray:
    """2-D or 3-D ``mask`` with every hole filled that is not connected to the outside."""
    # One voxel of air all around joins all that is outside, so that only true holes are left.
    air = np.ones([n + 2 for n in mask.shape], bool)
    middle = (slice(1, -1),) * mask.ndim
    np.logical_not(mask, out=air[middle])
    parts = _parts(air)
    return (parts != parts.flat[0])[middle]


def _parts(mask: np.ndarray) -> np.ndarray:
    """The number of the connected part each voxel of ``mask`` belongs to; 0 outside."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(image))
