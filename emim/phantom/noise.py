"""Smooth random fields: the source of everything individual about a head."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

# Side of the cube, in mm around the middle of the head, in which fields vary; constant beyond it.
EXTENT = 200.0


class SmoothNoise:
    """A random field of zero mean that waves at about ``wavelength`` mm.

    Its variance is 1 on its own lattice and, by the interpolation, some 0.6 on average.

    White noise through a difference of two Gaussians (1 : 1.6), whose pass band has its peak at
    2 pi / wavelength. Being made on its own lattice, it does not depend on the grid it is evaluated on.
    """

    def __init__(self, rng: np.random.Generator, wavelength: float) -> None:
        self._step = wavelength / 5.0
        n = int(np.ceil(EXTENT / self._step)) + 2
        white = sitk.GetImageFromArray(rng.standard_normal((n, n, n), dtype=np.float32))
        sigma = wavelength / 5.72 / self._step
        fine, coarse = (sitk.SmoothingRecursiveGaussian(white, s * sigma) for s in (1.0, 1.6))
        field = sitk.GetArrayFromImage(fine - coarse)
        self._values = field / field.std()

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at ``points`` (3, …) in mm, trilinearly interpolated: float32 (…)."""
        n = len(self._values)
        place = np.clip(points / self._step + (n - 1) / 2, 0.0, n - 1.001).astype(np.float32)
        corner = place.astype(np.int32)
        fx, fy, fz = place - corner
        flat = self._values.ravel()

        def along_x(at: np.ndarray) -> np.ndarray:
            low = flat.take(at)
            return low + fx * (flat.take(at + 1) - low)

        def along_xy(at: np.ndarray) -> np.ndarray:
            low = along_x(at)
            return low + fy * (along_x(at + n) - low)

        first = (corner[2] * n + corner[1]) * n + corner[0]
        low = along_xy(first)
        return low + fz * (along_xy(first + n * n) - low)
