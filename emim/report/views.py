"""Planes of a volume as a radiologist expects to see them.

Volumes are (Z, Y, X) with the axes of LPS: X grows to the patient's left, Y to the back, Z to the
head. Pictures follow the radiological convention: in axial and coronal planes the patient's right
is on the picture's left; anterior (axial) or superior (coronal, sagittal) is up; sagittal planes
look to the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLANES = ("axial", "coronal", "sagittal")

# Directions at the left, right, top and bottom edge of the picture.
EDGES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


def cut(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """The picture (rows, columns) of slice ``index`` of ``volume`` (Z, Y, X) in the named plane."""
    if plane == "axial":
        return volume[index]
    if plane == "coronal":
        return volume[::-1, index]
    return volume[::-1, :, index]


def pixel_size(plane: str, spacing: Sequence[float]) -> tuple[float, float]:
    """mm (between rows, between columns) of a picture; ``spacing`` is mm along (Z, Y, X)."""
    z, y, x = spacing
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def largest_slices(mask: np.ndarray) -> dict[str, int]:
    """Per plane, the slice in which ``mask`` (Z, Y, X) is largest; the middle one of several or of none."""
    chosen = {}
    for axis, plane in enumerate(PLANES):
        area = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))
        best = np.flatnonzero(area == area.max())
        chosen[plane] = int(best[np.argmin(np.abs(best - (len(area) - 1) / 2))])
    return chosen


def window(image: np.ndarray, where: np.ndarray | None = None) -> tuple[float, float]:
    """Intensities shown black and white: percentiles 1 and 99.5 of ``image`` inside ``where``.

    Without ``where`` the voxels that are not 0 are used. A constant image gives a window of width 1.
    """
    values = image[(image != 0) if where is None else where]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, (1, 99.5)))
    return (low, high) if high > low else (low - 1.0, low)
