"""The head: which tissue is where, as a function of position, different in each subject.

Built from a few bodies (see :mod:`emim.phantom.shapes`) in a standard frame, LPS mm with the origin between
the commissures, mirrored at x = 0 and then deformed. The folds of the cortex come from the zero surfaces of
a random field that is constant along rays from the middle of the brain, so that sulci stand upright on the
surface.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from emim.phantom.lesion import Lesion, draw_lesions
from emim.phantom.noise import SmoothNoise
from emim.phantom.shapes import blend, coverage, ellipsoid, tube

CENTRE = np.array([0.0, 4.0, 6.0])  # of the rays along which sulci run
SOLID = ("white matter", "grey matter", "deep grey matter", "pallidum", "gliosis")
PLANE = -19.0  # the underside of frontal and occipital lobes
# Of :func:`label_regions`. Thalamus, caudate and putamen are one tissue, all ventricles and sulci one fluid,
# and cerebellum and cerebrum the same two tissues: intensities do not tell them apart, their place does.
# Putamen and pallidum are one region; the third and the fourth ventricle belong to what surrounds them.
REGIONS = {
    "thalamus": 1,
    "caudate nucleus": 2,
    "lentiform nucleus": 3,
    "lateral ventricle": 4,
    "cerebellum": 5,
    "brainstem": 6,
}


@dataclass(frozen=True)
class Anatomy:
    """One head, evaluated anywhere.

    Attributes:
        affine: (3, 4), from world points (LPS mm) to the standard frame.
        warp: three coarse and three fine random fields that deform it.
        folds, folia, depth, texture: fields of the sulci, of the cerebellum, of how deep sulci reach, and of
            vessels and gliosis.
        ventricles: size of the ventricles, 1 is usual.
        sulcus: half width of a sulcus in mm; atrophy widens it.
        gliosis: amount of white-matter gliosis around the ventricles and in spots, 0 for none.
        lesions: all of one kind; none of a healthy brain.
    """

    affine: np.ndarray
    warp: tuple[SmoothNoise, ...]
    folds: SmoothNoise
    folia: SmoothNoise
    depth: SmoothNoise
    texture: SmoothNoise
    ventricles: float
    sulcus: float
    gliosis: float
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True)
class Head:
    """An anatomy on one grid.

    Attributes:
        layers: (tissue, coverage (Z, Y, X)), to be painted one over the other.
        brain: bool (Z, Y, X), what skull-stripping leaves.
        label: uint8 (Z, Y, X), 0 to 3.
        texture: float32 (Z, Y, X), about -2 to 2: tissue is never quite uniform.
    """

    layers: list[tuple[str, np.ndarray]]
    brain: np.ndarray
    label: np.ndarray
    texture: np.ndarray


def draw_anatomy(rng: np.random.Generator, centre: np.ndarray, lesion_kind: str | None) -> Anatomy:
    """A random head.

    Args:
        centre: world position (LPS mm) of the middle of the head.
        lesion_kind: see :func:`emim.phantom.lesion.draw_lesions`; None for a brain without a lesion.
    """
    angles = np.radians(rng.normal(0.0, [4.0, 3.0, 4.0]))
    scale = rng.normal(1.0, 0.035) * np.exp(rng.normal(0.0, 0.025, 3))
    matrix = np.diag(1.0 / scale) @ rotation(angles)
    affine = np.column_stack([matrix, -matrix @ centre])
    warp = tuple(SmoothNoise(rng, wavelength) for wavelength in (75.0,) * 3 + (36.0,) * 3)
    age = rng.random()
    anatomy = dict(
        affine=affine,
        warp=warp,
        folds=SmoothNoise(rng, 17.0),
        folia=SmoothNoise(rng, 13.0),
        depth=SmoothNoise(rng, 30.0),
        texture=SmoothNoise(rng, 14.0),
        ventricles=0.75 + 0.6 * age + rng.normal(0.0, 0.06),
        sulcus=0.35 + 0.55 * age,
        gliosis=max(0.0, age + rng.normal(-0.45, 0.25)),
    )

    def is_free(points: np.ndarray, radius: float) -> np.ndarray:
        inside = (_cerebrum(points) < -6.0 - 0.6 * radius) & (np.abs(points[0]) > 12.0 + 0.4 * radius)
        return inside & (_lateral_ventricles(points, 1.0) > 0.35 * radius)

    lesions = () if lesion_kind is None else draw_lesions(rng, lesion_kind, is_free)
    return Anatomy(**anatomy, lesions=lesions)


def rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3): rotations about x, then y, then z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def build_head(anatomy: Anatomy, world: np.ndarray, spacing: tuple[float, float, float], skull: bool) -> Head:
    """Evaluate an anatomy.

    Args:
        world: points of the grid, (3, Z, Y, X), LPS mm.
        spacing: mm along (i, j, k) of the grid.
        skull: with skull and scalp, and ``brain`` everywhere true.
    """
    voxel = float(np.prod(spacing) ** (1 / 3))
    a = anatomy
    points, before = _standard_points(a, world)

    texture = a.texture.at(before)
    surface, cavity, layers = _brain(a, before, texture, spacing, voxel)
    if skull:
        layers = _skull(cavity, before, voxel) + layers
    brain = np.ones(cavity.shape, bool) if skull else surface < 1.6

    label = np.zeros(cavity.shape, np.uint8)
    if a.lesions:
        share = _shares(layers)
        # A tumour of the cerebrum does not grow into the CSF, nor through the tentorium.
        closed = np.maximum(
            sum(share[t] for t in share if t not in SOLID), 1.0 - coverage(_cerebrum(before), voxel)
        )
        amounts = np.zeros((4, *cavity.shape), np.float32)
        amounts[0] = 1.0
        layered = [lesion.layers(points, voxel, share["white matter"], closed) for lesion in a.lesions]
        # The oedema of all first: that of one does not cover the tumour of another.
        for tissue, cover, strength, value in itertools.chain(*zip(*layered, strict=True)):
            amounts *= 1.0 - cover
            amounts[value] += cover
            layers.append((tissue, cover * np.float32(strength)))
        # A voxel belongs to the lesion when most of it does, and then to its largest part.
        label = np.where(amounts[0] < 0.5, 1 + amounts[1:].argmax(axis=0), 0).astype(np.uint8)
        label[~brain] = 0
    return Head(layers, brain, label, texture)


def label_regions(anatomy: Anatomy, world: np.ndarray, head: Head) -> np.ndarray:
    """uint8 (Z, Y, X), the values of :data:`REGIONS`, of ``head`` built on the grid ``world``.

    0 in the core and the enhancing part of a tumour, which leave no other tissue, and outside the brain.
    """
    before = _standard_points(anatomy, world)[1]
    m = _mirrored(before)
    label = np.zeros(before.shape[1:], np.uint8)
    for name, distance in (
        ("brainstem", _brainstem(before)),
        ("cerebellum", _cerebellum(before)),
        ("thalamus", _thalamus(m)),
        ("caudate nucleus", _caudate(m)),
        ("lentiform nucleus", np.minimum(_putamen(m), _pallidum(m))),
        ("lateral ventricle", _lateral_ventricles(before, anatomy.ventricles)),
    ):
        label[distance < 0] = REGIONS[name]
    label[(head.label == 1) | (head.label == 3) | ~head.brain] = 0
    return label


def _standard_points(a: Anatomy, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``world`` in the standard frame, and where it was before lesions displaced it; (3, Z, Y, X) float32."""
    points = np.tensordot(a.affine[:, :3], world, axes=1) + a.affine[:, 3].reshape(3, 1, 1, 1)
    bend = [field.at(points) for field in a.warp]
    points = points + np.stack([2.5 * bend[i] + 0.8 * bend[i + 3] for i in range(3)])
    points = points.astype(np.float32)
    before = points
    for lesion in a.lesions:
        before = lesion.displaced(before).astype(np.float32)
    return points, before


def _shares(layers: list[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Share of each tissue in each voxel after all layers are painted."""
    share: dict[str, np.ndarray] = {}
    for tissue, cover in layers:
        for name in share:
            share[name] = share[name] * (1.0 - cover)
        share[tissue] = share.get(tissue, 0.0) + cover
    return share


def _mirrored(points: np.ndarray) -> np.ndarray:
    return np.stack([np.abs(points[0]), points[1], points[2]])


def _temporal(m: np.ndarray) -> np.ndarray:
    return ellipsoid(m, (41, -6, -22), (23, 46, 21))


def _cerebrum(points: np.ndarray) -> np.ndarray:
    m = _mirrored(points)
    m[0] = m[0] * (1.0 - 0.0016 * m[1])  # narrower in front
    upper = -blend(-ellipsoid(m, (7, 2, 6), (60, 86, 64)), m[2] - PLANE, 10.0)
    return blend(upper, _temporal(m), 10.0)


def _cerebellum(points: np.ndarray) -> np.ndarray:
    m = _mirrored(points)
    return blend(ellipsoid(m, (24, 48, -39), (30, 33, 23)), ellipsoid(m, (0, 46, -36), (14, 27, 22)), 5.0)


def _brainstem(points: np.ndarray) -> np.ndarray:
    stem = tube(
        points, [(0, 10, -6, 15), (0, 16, -22, 14), (0, 16, -36, 15), (0, 30, -60, 9), (0, 36, -90, 7)]
    )
    peduncles = tube(_mirrored(points), [(8, 20, -36, 8), (20, 40, -42, 8)])
    return blend(stem, peduncles, 6.0)


def _lateral_ventricles(points: np.ndarray, size: float) -> np.ndarray:
    body = [
        (11, -38, 3, 4),
        (10, -28, 8, 6),
        (8, -6, 19, 5),
        (12, 18, 18, 5.5),
        (22, 34, 10, 7.5),
        (24, 58, 6, 3),
    ]
    horn = [(23, 34, 8, 5), (33, 18, -10, 3), (32, -4, -18, 3)]
    m = _mirrored(points)
    return np.minimum(tube(m, body), tube(m, horn)) - 4.0 * (size - 1.0)


def _thalamus(m: np.ndarray) -> np.ndarray:
    return ellipsoid(m, (10.5, 8, 6), (8.5, 15, 9))


def _caudate(m: np.ndarray) -> np.ndarray:
    return tube(m, [(17, -27, 5, 6), (17, -10, 15, 4.5), (20, 14, 20, 2.5)])


def _putamen(m: np.ndarray) -> np.ndarray:
    return ellipsoid(m, (26, -7, 2), (5.5, 17, 10))


def _pallidum(m: np.ndarray) -> np.ndarray:
    return ellipsoid(m, (19.5, -5, 0), (4, 9, 7))


def _sheet(field: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm to the zero surface of a field, to first order."""
    gradient = np.gradient(field, *reversed(spacing))
    return np.abs(field) / np.sqrt(sum(g * g for g in gradient) + 1e-4)


def _brain(
    a: Anatomy, p: np.ndarray, texture: np.ndarray, spacing: tuple[float, float, float], voxel: float
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, np.ndarray]]]:
    """Signed distances of the brain's outline and of the cavity of the skull, and the layers in it."""
    m = _mirrored(p)
    cerebrum, cerebellum, stem = _cerebrum(p), _cerebellum(p), _brainstem(p)
    surface = blend(blend(cerebrum, cerebellum, 12.0), stem, 12.0)
    cavity = np.minimum(surface, blend(blend(cerebrum, cerebellum, 25.0), stem, 20.0)) - 3.2 - 1.5 * a.sulcus

    # Depth below the surface of the cerebrum, the fissures and the sulci, whichever is nearest.
    ray = p - CENTRE.reshape(3, 1, 1, 1)
    length = np.sqrt((ray**2).sum(axis=0)) + 1.0
    folds = a.folds.at(ray * (62.0 / length) ** 0.75)
    wander = a.depth.at(p)
    around_callosum = np.hypot((p[1] + 4) / 42, (p[2] - 3) / 26)
    fissure = np.hypot(m[0], np.maximum(1.0 - around_callosum, 0.0) * 30.0) - 0.6
    sylvian = np.sqrt(
        (_temporal(m) - 1.0) ** 2 + np.maximum(36.0 - m[0], 0.0) ** 2 + np.maximum(p[1] - 26.0, 0.0) ** 2
    )
    sylvian -= 0.8
    sulci = _sheet(folds, spacing) + np.maximum(-cerebrum - 16.0 - 6.0 * wander, 0.0)
    sulci += np.maximum(38.0 - length, 0.0)  # rays meet in the middle; no sulci there
    open_to_csf = a.sulcus * np.clip(1.3 - 0.04 * -cerebrum, 0.4, 1.3)
    depth = np.minimum(np.minimum(-cerebrum, sulci - open_to_csf), np.minimum(fissure, sylvian) - a.sulcus)
    cortex = 3.5 + 0.4 * wander

    folia = a.folia.at(p * np.array([0.35, 1.0, 1.0]).reshape(3, 1, 1, 1))
    leaves = np.minimum(-cerebellum, _sheet(folia, spacing) + np.maximum(-cerebellum - 9.0, 0.0) * 1.5)

    size = a.ventricles
    ventricles = np.minimum(
        _lateral_ventricles(p, size),
        np.minimum(
            ellipsoid(p, (0, 2, 1), (1.0 + 1.6 * size, 15, 9)), ellipsoid(p, (0, 30, -36), (7 * size, 5, 10))
        ),
    )
    layers = [
        ("CSF", coverage(cavity, voxel)),
        ("white matter", coverage(stem, voxel)),
        ("grey matter", coverage(-leaves, voxel)),
        ("white matter", coverage(3.2 - leaves, voxel)),
        ("grey matter", coverage(-depth, voxel)),
        ("white matter", coverage(cortex - depth, voxel)),
        ("deep grey matter", coverage(_thalamus(m), voxel)),
        ("deep grey matter", coverage(_caudate(m), voxel)),
        ("deep grey matter", coverage(_putamen(m), voxel)),
        ("pallidum", coverage(_pallidum(m), voxel)),
    ]
    if a.gliosis > 0:
        caps = ventricles - 1.0 - 2.5 * a.gliosis - texture
        spots = 4.0 * (3.1 - 0.6 * a.gliosis - texture)
        deep = coverage(cortex + 3.0 - depth, voxel)
        layers.append(("gliosis", 0.75 * deep * coverage(np.minimum(caps, spots), voxel)))
    layers.append(("CSF", coverage(ventricles, voxel)))
    plexus = np.minimum(
        tube(m, [(20, 28, 13, 1.5), (22, 36, 8, 3.2)]), tube(m, [(9, 0, 14, 1.4), (16, 22, 14, 1.8)])
    )
    layers.append(("choroid plexus", coverage(plexus, voxel)))
    layers.append(("vessel", coverage(_vessels(p, m, cavity, depth, texture), voxel)))
    return surface, cavity, layers


def _vessels(
    p: np.ndarray, m: np.ndarray, cavity: np.ndarray, depth: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """Signed distance of large sinuses and arteries, and of the veins in some of the sulci."""
    sagittal = np.hypot(m[0], cavity + 3.0) - 2.8
    sagittal = np.maximum(sagittal, -10.0 - p[2])
    straight = tube(p, [(0, 34, 6, 1.8), (0, 70, -10, 2.4)])
    internal = tube(m, [(3, 6, 12, 1.0), (3, 32, 8, 1.4)])
    transverse = tube(m, [(3, 80, -14, 2.6), (36, 66, -22, 2.8), (50, 40, -28, 2.6)])
    middle = tube(m, [(4, -14, -19, 1.6), (30, -16, -16, 1.5), (38, -4, -2, 1.1), (46, 14, 8, 0.9)])
    basilar = tube(p, [(0, 0, -48, 1.8), (0, -2, -24, 1.8)])
    cortical = np.maximum(np.abs(depth) - 0.9, 2.5 * (1.5 - texture))
    cortical = np.maximum(cortical, np.maximum(cavity + 1.0, -14.0 - cavity))
    large = np.minimum(np.minimum(sagittal, straight), np.minimum(internal, transverse))
    return np.minimum(np.minimum(large, cortical), np.minimum(middle, basilar))


def _skull(cavity: np.ndarray, p: np.ndarray, voxel: float) -> list[tuple[str, np.ndarray]]:
    """Scalp, muscle at the base, and bone."""
    low = np.clip((-30.0 - p[2]) / 20.0, 0.0, 1.0)
    return [
        ("scalp", coverage(cavity - 12.0 - 4.0 * low, voxel)),
        ("muscle", coverage(cavity - 9.0, voxel) * (0.3 + 0.7 * low)),
        ("bone", coverage(cavity - 6.5, voxel)),
    ]
