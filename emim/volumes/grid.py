"""Where the voxels of an image lie in space: a grid, and how two grids relate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

# Two positions closer than this many voxels are the same position: headers carry rounding errors.
SAME_POSITION = 0.01


@dataclass(frozen=True)
class Grid:
    """A regular grid in ITK's convention: index order (i, j, k), LPS millimetres.

    Attributes:
        size: voxels along i, j, k. Arrays on the grid have the shape (k, j, i) = (Z, Y, X).
        spacing: mm between voxel centres along i, j, k.
        origin: position of the centre of voxel (0, 0, 0).
        direction: row-major 3x3 matrix whose columns are the directions of i, j, k. It may be
            oblique, and left-handed.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid of a 3-D SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X) of an array on this grid."""
        return self.size[::-1]

    @property
    def index_to_mm(self) -> np.ndarray:
        """(3, 3) matrix that turns a step in (i, j, k) into a step in LPS mm."""
        return np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)

    def position(self, index: np.ndarray) -> np.ndarray:
        """LPS mm of (i, j, k) indices, shape (..., 3); fractional indices are allowed."""
        return np.asarray(index, float) @ self.index_to_mm.T + self.origin

    def index(self, position: np.ndarray) -> np.ndarray:
        """Fractional (i, j, k) index of LPS mm positions, shape (..., 3)."""
        return (np.asarray(position, float) - self.origin) @ np.linalg.inv(self.index_to_mm).T

    def corners(self) -> np.ndarray:
        """(8, 3) indices of the outermost voxels."""
        ends = [(0, n - 1) for n in self.size]
        return np.array([(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]], float)

    def is_same(self, other: Grid, tolerance: float = SAME_POSITION) -> bool:
        """Whether both have the same size and no voxel lies ``tolerance`` voxels or more apart."""
        if self.size != other.size:
            return False
        apart = self.index(other.position(other.corners())) - self.corners()
        return bool(np.abs(apart).max() < tolerance)

    def oriented(self) -> Grid:
        """The same voxels with i, j, k running as nearly as possible to left, posterior, superior.

        Axes are only swapped and reversed, so an oblique grid stays oblique.
        """
        direction = np.reshape(self.direction, (3, 3))
        axes = _nearest_axes(direction)
        signs = np.where(direction[range(3), axes] < 0, -1, 1)
        # A reversed axis starts at what was its last voxel.
        first = np.zeros(3)
        first[axes] = [self.size[a] - 1 if s < 0 else 0 for a, s in zip(axes, signs, strict=True)]
        return Grid(
            tuple(self.size[a] for a in axes),
            tuple(self.spacing[a] for a in axes),
            tuple(float(x) for x in self.position(first)),
            tuple(float(x) for x in (direction[:, axes] * signs).ravel()),
        )

    def respaced(self, spacing: tuple[float, float, float]) -> Grid:
        """A grid of another spacing that covers the same box, with the same centre.

        An axis whose spacing already agrees to a thousandth of a mm keeps its voxels exactly.
        """
        kept = [abs(a - b) < 1e-3 for a, b in zip(self.spacing, spacing, strict=True)]
        new = tuple(a if keep else float(b) for a, b, keep in zip(self.spacing, spacing, kept, strict=True))
        size = tuple(
            n if keep else max(1, math.ceil(n * a / b - SAME_POSITION))
            for n, a, b, keep in zip(self.size, self.spacing, new, kept, strict=True)
        )
        first = [
            0.0 if keep else ((n - 1) - (m - 1) * b / a) / 2
            for n, m, a, b, keep in zip(self.size, size, self.spacing, new, kept, strict=True)
        ]
        return Grid(size, new, tuple(float(x) for x in self.position(first)), self.direction)

    def cropped(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Grid:
        """The part from voxel ``start`` to just before ``stop``, both (z, y, x)."""
        origin = self.position(np.array(start[::-1]))
        size = tuple(int(b - a) for a, b in zip(start[::-1], stop[::-1], strict=True))
        return Grid(size, self.spacing, tuple(float(x) for x in origin), self.direction)

    def moved(self, motion: np.ndarray) -> Grid:
        """The same voxels after a rigid ``motion`` (4, 4) of LPS mm."""
        direction = motion[:3, :3] @ np.reshape(self.direction, (3, 3))
        origin = motion[:3, :3] @ np.asarray(self.origin) + motion[:3, 3]
        return Grid(self.size, self.spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist()))

    def to_image(self, array: np.ndarray) -> sitk.Image:
        """``array`` (Z, Y, X) as an image on this grid."""
        import SimpleITK as sitk

        if array.shape != self.shape:
            raise ValueError(f"an array of shape {array.shape} is not on a grid of shape {self.shape}")
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def empty_image(self) -> sitk.Image:
        """An 8-bit image of zeros on this grid."""
        return self.to_image(np.zeros(self.shape, np.uint8))


def index_map(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(A, b) such that voxel ``x`` of ``target`` lies at index ``A x + b`` of ``source``."""
    inverse = np.linalg.inv(source.index_to_mm)
    return inverse @ target.index_to_mm, inverse @ (np.subtract(target.origin, source.origin))


def _nearest_axes(direction: np.ndarray) -> list[int]:
    """For each of L, P, S the grid axis nearest to it; every axis is used once."""
    strength = np.abs(direction)
    axes = [-1, -1, -1]
    for _ in range(3):  # the clearest pair first
        world, axis = np.unravel_index(strength.argmax(), (3, 3))
        axes[world] = int(axis)
        strength[world], strength[:, axis] = -1, -1
    return axes
