"""From probabilities on the working grid to structures on the grid of the reference image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emim.config import Structure
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.resample import resample_volume

THRESHOLD = 0.5


@dataclass(frozen=True)
class Labelling:
    """A segmentation on one grid.

    Attributes:
        label: (Z, Y, X), uint8 or int16; overlapping structures are painted in their order, so the
            later (smaller) ones lie on top.
        layers: (L, Z, Y, X) label maps that together hold every structure whole: one per structure
            where they overlap, else just ``label``.
        volumes: structure name to mL of the whole structure, not of what is visible in ``label``.
    """

    label: np.ndarray
    layers: np.ndarray
    volumes: dict[str, float]


def label_on_grid(
    card: ModelCard,
    probabilities: np.ndarray,
    source: Grid,
    target: Grid,
    save: Callable[[Structure, np.ndarray], None] | None = None,
) -> Labelling:
    """Resample ``probabilities`` (C, Z, Y, X) from ``source`` to ``target`` and decide there.

    Overlapping structures: probability of at least 0.5. Exclusive ones: the most probable class.
    One channel is resampled at a time, to spare memory on large references.

    Args:
        save: called with each structure and its probabilities (Z, Y, X) on ``target``.
    """

    def on_target(channel: int, outside: float) -> np.ndarray:
        return resample_volume(probabilities[channel], source, target, outside)

    kind = np.uint8 if max(s.output for s in card.structures) <= 255 else np.int16
    label = np.zeros(target.shape, kind)
    layers = []
    best = None if card.overlapping else on_target(0, 1.0)
    for i, structure in enumerate(card.structures):
        channel = on_target(i if card.overlapping else i + 1, 0.0)
        if save is not None:
            save(structure, channel)
        if best is None:
            inside = channel >= THRESHOLD
            layers.append(inside * kind(structure.output))
        else:
            inside = channel > best
            np.maximum(best, channel, out=best)
        label[inside] = structure.output
    layers = np.stack(layers) if layers else label[None]
    voxel_ml = float(np.prod(target.spacing)) / 1000
    counts = {}
    for i, structure in enumerate(card.structures):
        whole = layers[i] if card.overlapping else label
        counts[structure.name] = int(np.count_nonzero(whole == structure.output))
    return Labelling(label, layers, {name: n * voxel_ml for name, n in counts.items()})
