"""From probabilities on the working grid to structures on the grid of the reference image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emim.config import Structure
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.resample import needed_part, resample_volume

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

    Overlapping structures: probability of at least 0.5, and every voxel of a structure nested within
    (its label values are a part of the other's). Exclusive ones: the most probable class.
    One channel is resampled at a time, and only where ``source`` lies, to spare memory and time on large
    references.

    Args:
        save: called with each structure and its probabilities (Z, Y, X) on ``target``.
    """

    box, part = needed_part(target, source, margin=(1, 1, 1))

    def on_target(channel: int, outside: float) -> np.ndarray:
        return resample_volume(probabilities[channel], source, part, outside)

    def whole(array: np.ndarray) -> np.ndarray:
        out = np.zeros((*array.shape[:-3], *target.shape), array.dtype)
        out[(..., *box)] = array
        return out

    kind = np.uint8 if max(s.output for s in card.structures) <= 255 else np.int16
    label = np.zeros(part.shape, kind)
    masks: list[np.ndarray] = []
    best = None if card.overlapping else on_target(0, 1.0)
    for i, structure in enumerate(card.structures):
        channel = on_target(i if card.overlapping else i + 1, 0.0)
        if save is not None:
            save(structure, whole(channel))
        if best is None:
            masks.append(channel >= THRESHOLD)
        else:
            label[channel > best] = structure.output
            np.maximum(best, channel, out=best)
    if card.overlapping:
        _nest(card.structures, masks)
        for structure, mask in zip(card.structures, masks, strict=True):
            label[mask] = structure.output
        layers = np.stack([m * kind(s.output) for s, m in zip(card.structures, masks, strict=True)])
    voxel_ml = float(np.prod(target.spacing)) / 1000
    counts = {}
    for i, structure in enumerate(card.structures):
        layer = layers[i] if card.overlapping else label
        counts[structure.name] = int(np.count_nonzero(layer == structure.output))
    label = whole(label)
    layers = whole(layers) if card.overlapping else label[None]
    return Labelling(label, layers, {name: n * voxel_ml for name, n in counts.items()})


def _nest(structures: Sequence[Structure], masks: list[np.ndarray]) -> None:
    """Add to each mask those of the structures within it, so that a tumour is never less than its core."""
    for outer, mask in zip(structures, masks, strict=True):
        for inner, part in zip(structures, masks, strict=True):
            if set(inner.values) < set(outer.values):
                mask |= part
