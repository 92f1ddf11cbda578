"""One image at several resolutions, ready to be compared with another one."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emim.errors import EmimError
from emim.volumes.foreground import find_foreground
from emim.volumes.grid import Grid
from emim.volumes.io import read_image
from emim.volumes.resample import resample_mask, resample_volume

if TYPE_CHECKING:
    import SimpleITK as sitk

# Voxel sizes in mm. The coarsest sees where the head is, the finest is that of a usual MRI.
RESOLUTIONS = (8.0, 4.0, 2.0)
# What lies around the patient counts too, or nothing would tell that an edge must meet an edge.
MARGIN = 10.0
# Vessels, fat and artefacts would leave the tissues only a few bins of the histogram.
TAIL = 0.5 / 100


@dataclass(frozen=True)
class Level:
    """An image at one resolution.

    Attributes:
        values: float32 (Z, Y, X), without outliers.
        region: boolean (Z, Y, X): the patient and 10 mm around.
        grid: of both, in LPS mm.
    """

    values: np.ndarray
    region: np.ndarray
    grid: Grid

    def images(self, length: float) -> tuple[sitk.Image, sitk.Image]:
        """Values and region as images whose unit of length is ``length`` mm."""
        spacing = tuple(s / length for s in self.grid.spacing)
        origin = tuple(o / length for o in self.grid.origin)
        grid = dataclasses.replace(self.grid, spacing=spacing, origin=origin)
        return grid.to_image(self.values), grid.to_image(self.region.astype(np.uint8))


@dataclass(frozen=True)
class Pyramid:
    """An image at all resolutions.

    Attributes:
        levels: coarsest first, one for each of ``RESOLUTIONS``.
        centre: of the patient, LPS mm.
        radius: root mean square distance of the patient from the centre, mm.
    """

    levels: tuple[Level, ...]
    centre: np.ndarray
    radius: float


def read_pyramid(path: str | Path) -> Pyramid:
    """Read an image file.

    Raises:
        EmimError: when it cannot be read or shows nothing.
    """
    import SimpleITK as sitk

    image = read_image(path)
    grid, values = Grid.of(image), sitk.GetArrayFromImage(image)
    found = find_foreground(values)
    if not found.mask.any():
        raise EmimError("The image shows nothing but background.", path, "Leave it out or export it again.")
    low, high = np.quantile(values[found.mask], (TAIL, 1 - TAIL))
    values = np.clip(values, low, high, out=values)
    if found.fill is not None:  # whatever the fill value is, what was cut off is darkest
        values[~found.mask] = low
    patient, levels = found.mask, []
    for mm in reversed(RESOLUTIONS):  # each from the one before, which costs a tenth
        coarse = grid.respaced(tuple(max(s, mm) for s in grid.spacing))
        values = resample_volume(values, grid, coarse, float(low))
        patient, grid = resample_mask(patient, grid, coarse), coarse
        levels.append(Level(values, _widened(patient, grid), grid))
    if not patient.any():  # smaller than a coarse voxel
        raise EmimError("The image shows too little to be aligned.", path, "Leave it out of the alignment.")
    positions = grid.position(np.argwhere(patient)[:, ::-1])
    centre = positions.mean(axis=0)
    radius = math.sqrt(((positions - centre) ** 2).sum(axis=1).mean())
    return Pyramid(tuple(reversed(levels)), centre, max(radius, RESOLUTIONS[0]))


def _widened(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """``mask`` and what lies within ``MARGIN`` of it."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask, sampling=grid.spacing[::-1]) <= MARGIN
