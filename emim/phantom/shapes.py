"""Bodies as signed distances: negative inside, millimetres, from points of shape (3, …) in LPS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ellipsoid(points: np.ndarray, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Signed distance to an ellipsoid; first-order, exact on the surface. Source: I. Quilez, 3D SDFs."""
    a = [(points[i] - centre[i]) / radii[i] for i in range(3)]
    k0 = np.sqrt(a[0] ** 2 + a[1] ** 2 + a[2] ** 2)
    k1 = np.sqrt(sum((a[i] / radii[i]) ** 2 for i in range(3)))
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)


def tube(points: np.ndarray, path: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Signed distance to a tube along ``path``: (x, y, z, radius) of its nodes."""
    distance = None
    for (*start, r0), (*end, r1) in zip(path[:-1], path[1:], strict=True):
        axis = [e - s for s, e in zip(start, end, strict=True)]
        rel = [points[i] - start[i] for i in range(3)]
        t = np.clip(sum(rel[i] * axis[i] for i in range(3)) / sum(c * c for c in axis), 0.0, 1.0)
        off = [rel[i] - t * axis[i] for i in range(3)]
        d = np.sqrt(off[0] ** 2 + off[1] ** 2 + off[2] ** 2) - (r0 + t * (r1 - r0))
        distance = d if distance is None else np.minimum(distance, d)
    return distance


def blend(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Union of two bodies, its crease rounded over ``width`` mm."""
    h = np.maximum(width - np.abs(a - b), 0.0) / width
    return np.minimum(a, b) - 0.25 * width * h * h


def coverage(distance: np.ndarray, voxel: float) -> np.ndarray:
    """Share of a voxel of side ``voxel`` mm that lies inside: the partial volume."""
    return np.clip(0.5 - distance / voxel, 0.0, 1.0).astype(np.float32)
