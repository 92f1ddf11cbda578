"""The scanner: grids in every orientation, thick slices, bias field, Rician noise, skull-stripping."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from emim.phantom.anatomy import rotation
from emim.phantom.noise import SmoothNoise

# Directions of increasing i, j, k. LAS is left-handed; PIR is a sagittal acquisition.
ORIENTATIONS = ("LPS", "RAS", "LAS", "PIR", "oblique")


def make_grid(
    orientation: str,
    spacing: tuple[float, float, float],
    extent: tuple[float, float, float],
    centre: np.ndarray,
    tilt: np.ndarray,
) -> sitk.Image:
    """An empty uint8 image whose grid is the one asked for.

    Args:
        orientation: one of :data:`ORIENTATIONS`; ``oblique`` is LPS, to be tilted.
        spacing: mm along (left-right, anterior-posterior, head-foot).
        extent: mm along the same.
        centre: world position (LPS mm) of its middle.
        tilt: rotations about x, y, z in radians.
    """
    size = [max(2, int(round(e / s))) for e, s in zip(extent, spacing, strict=True)]
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    if orientation != "oblique":
        image = sitk.DICOMOrient(image, orientation)
    direction = rotation(tilt) @ np.reshape(image.GetDirection(), (3, 3))
    middle = (np.array(image.GetSize()) - 1) / 2 * np.array(image.GetSpacing())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((centre - direction @ middle).tolist())
    return image


def world_points(grid: sitk.Image) -> np.ndarray:
    """World position (LPS mm) of every voxel: (3, Z, Y, X) float32."""
    step = np.reshape(grid.GetDirection(), (3, 3)) * np.array(grid.GetSpacing())
    k, j, i = np.indices(grid.GetSize()[::-1], dtype=np.float32, sparse=True)
    return np.stack(
        [(grid.GetOrigin()[r] + step[r, 0] * i + step[r, 1] * j + step[r, 2] * k) for r in range(3)]
    ).astype(np.float32)


def resample_slices(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """``image`` on ``grid``; each voxel is the mean over its extent, so thick slices blur as they do."""
    parts = [max(1, round(g / min(image.GetSpacing()))) for g in grid.GetSpacing()]
    direction = np.reshape(grid.GetDirection(), (3, 3))
    spacing = np.array(grid.GetSpacing()) / parts
    fine = sitk.Image([n * p for n, p in zip(grid.GetSize(), parts, strict=True)], sitk.sitkUInt8)
    fine.SetSpacing(spacing.tolist())
    fine.SetDirection(grid.GetDirection())
    shift = direction @ (spacing * (np.array(parts) - 1) / 2)
    fine.SetOrigin((np.array(grid.GetOrigin()) - shift).tolist())
    mean = sitk.BinShrink(sitk.Resample(image, fine, sitk.Transform(), sitk.sitkLinear, 0.0), parts)
    mean.CopyInformation(grid)
    return mean


def bias_field(
    rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, strength: float
) -> np.ndarray:
    """Smooth inhomogeneity of a receive coil, a factor around 1, at world ``points`` (3, Z, Y, X)."""
    field = SmoothNoise(rng, 180.0)
    return np.exp(strength * field.at(points - centre.reshape(3, 1, 1, 1)))


def add_rician_noise(rng: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of a complex signal with Gaussian noise of deviation ``sigma`` in both channels.

    In air it is Rayleigh distributed with mean sigma sqrt(pi/2). Source: Gudbjartsson and Patz, Magn Reson
    Med 34:910 (1995).
    """
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.hypot(real, imaginary)
