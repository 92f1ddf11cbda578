"""Lesions with the sub-regions of the BraTS data: necrotic core 1, oedema 2, enhancing tumour 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from emim.phantom.noise import SmoothNoise
from emim.phantom.shapes import coverage

CORE, OEDEMA, ENHANCING = 1, 2, 3


@dataclass(frozen=True)
class Lesion:
    """One tumour and what surrounds it, in the coordinates of the head's own anatomy (LPS mm).

    Attributes:
        kind: ``ring`` (enhancing rim around necrosis), ``solid`` (enhances throughout, but for small
            necroses) or ``not enhancing`` (its core is non-enhancing tumour, label 1 as in BraTS).
        centre, stretch: mm, and the relative lengths of its axes.
        core, rim, oedema: radius of tumour with core, thickness of the rim, width of the oedema; mm.
        severity: share of the tissue that oedema takes the place of, 0 to 1.
        push: mm by which it displaces the tissue at its surface.
        bleeds: part of its core holds blood products, bright on T1 without enhancement.
        outline, texture: random fields that make its surfaces irregular.
    """

    kind: str
    centre: np.ndarray
    stretch: np.ndarray
    core: float
    rim: float
    oedema: float
    severity: float
    push: float
    bleeds: bool
    outline: SmoothNoise
    texture: SmoothNoise

    def displaced(self, points: np.ndarray) -> np.ndarray:
        """Where the tissue now at ``points`` (3, …) was before the lesion pushed it away."""
        away = points - self.centre.reshape(3, *[1] * (points.ndim - 1))
        u = np.sqrt((away**2).sum(axis=0)) / self.core
        return points - (self.push / self.core * np.exp(0.5 * (1.0 - u * u))) * away

    def layers(
        self, points: np.ndarray, voxel: float, white: np.ndarray, closed: np.ndarray
    ) -> list[tuple[str, np.ndarray, np.ndarray | float, int]]:
        """What to paint over the healthy anatomy, in this order: (tissue, coverage, strength, label).

        Infiltrated tissue is a mixture of oedema and of what was there before; the strength says how much of
        it is oedema, while the label depends on the coverage alone.

        Args:
            points: (3, Z, Y, X), mm.
            voxel: side of a voxel in mm.
            white: coverage of white matter, along which oedema spreads.
            closed: coverage of what oedema and tumour do not enter: CSF and all outside the cerebrum.
        """
        outline, texture = self.outline.at(points), self.texture.at(points)
        away = (points - self.centre.reshape(3, 1, 1, 1)) / self.stretch.reshape(3, 1, 1, 1)
        distance = np.sqrt((away**2).sum(axis=0))
        # The falx keeps it on its side.
        distance += 2.0 * np.maximum(-np.sign(self.centre[0]) * points[0], 0.0)
        core = distance - self.core * (1.0 + 0.16 * outline) - 0.8 * texture
        oedema = distance - self.core - self.oedema * (1.0 + 0.4 * outline) - texture
        oedema += 0.6 * self.oedema * (1.0 - white)
        solid = coverage(core, voxel) * (1.0 - 0.9 * closed)
        infiltration = np.clip(self.severity + 0.1 * texture, 0.25, 1.0)
        painted = [("oedema", coverage(oedema, voxel) * (1.0 - closed), infiltration, OEDEMA)]
        if self.kind == "not enhancing":
            return [*painted, ("tumour", solid, 0.9, CORE)]
        if self.kind == "ring":
            inner = core + self.rim * np.clip(1.0 + 0.35 * texture, 0.4, 1.8)
        else:
            inner = 2.2 - texture + 0.12 * np.maximum(core + self.core, 0.0)
        necrosis = coverage(inner, voxel) * solid
        painted += [("enhancing tumour", solid, 1.0, ENHANCING), ("necrosis", necrosis, 1.0, CORE)]
        if self.bleeds:
            blood = necrosis * coverage(4.0 * (0.3 - outline), voxel)
            painted.append(("blood products", blood, 1.0, CORE))
        return painted


def draw_lesions(
    rng: np.random.Generator, kind: str, is_free: Callable[[np.ndarray, float], np.ndarray]
) -> tuple[Lesion, ...]:
    """The lesions of a head, at places in the cerebrum where there is room.

    Args:
        kind: of one lesion, see :class:`Lesion`; or ``solitary``, a large solid one, or ``multifocal``, three
            to five that are such a one at a smaller scale: together of the same volumes of tumour and oedema,
            and at the same places.
        is_free: function of points (3, N) and a radius in mm -> bool (N,): where a lesion may be.
    """
    large = kind in ("solitary", "multifocal")
    if large:
        core = rng.uniform(15.0, 20.0)
    else:
        core = rng.uniform(10.0, 20.0) if kind != "solid" else rng.uniform(7.0, 13.0)
    candidates = rng.uniform([-58, -72, -30], [58, 72, 56], size=(4000, 3)).T
    places = candidates[:, is_free(candidates, core)]
    stretch = np.exp(rng.normal(0.0, 0.14, 3))
    lesion = Lesion(
        kind="solid" if large else kind,
        centre=places[:, 0],
        stretch=stretch / np.prod(stretch) ** (1 / 3),
        core=core,
        rim=rng.uniform(3.0, 5.0),
        oedema=rng.uniform(3.0, 8.0) if large or kind == "not enhancing" else rng.uniform(6.0, 16.0),
        severity=rng.uniform(0.4, 0.9),
        push=core * rng.uniform(0.12, 0.35),
        bleeds=bool(rng.random() < 0.3),
        outline=SmoothNoise(rng, 34.0),
        texture=SmoothNoise(rng, 13.0),
    )
    return _foci(lesion, places, int(rng.integers(3, 6))) if kind == "multifocal" else (lesion,)


def _foci(whole: Lesion, places: np.ndarray, count: int) -> tuple[Lesion, ...]:
    """``count`` lesions as ``whole`` but smaller, with its volume in total, at some of ``places`` (3, N)."""
    scale = count ** (-1 / 3)
    small = {name: scale * getattr(whole, name) for name in ("core", "rim", "oedema", "push")}
    centres = places[:, :1]
    for _ in range(count - 1):
        gap = np.linalg.norm(places[:, :, None] - centres[:, None], axis=0).min(axis=1)
        apart = gap > 2.6 * small["core"]
        # The first that is far enough from the others, in the order drawn; without one, the farthest.
        at = int(apart.argmax() if apart.any() else gap.argmax())
        centres = np.column_stack([centres, places[:, at]])
    return tuple(replace(whole, centre=centre, **small) for centre in centres.T)
