"""Mask patterns: which mask units of which modalities are hidden from the network.

A crop is divided into N cubic mask units. A pattern gives every (modality, unit) pair a *kind*:
0 visible, 1 hidden by the modal mask, 2 by the position mask, 3 by the patch mask (:data:`KINDS`).

The hybrid mask pattern (HMP) of E-MIM (arXiv 2407.10377) concatenates the three masking steps; order,
ratios and mask unit are not published, so those here are this project's. A total target ratio is
split: with d of M modalities dropped, the share q = (ratio - d/M) / (1 - d/M) of the units of the
others is to be hidden; ``position_share`` of q by position, the rest by patch. With ``max_dropped`` above
1 some samples are hidden by dropped modalities alone.

To add a pattern, write a function like those below and name it in :data:`PATTERNS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from emim.config import MaskConfig

VISIBLE, MODAL, POSITION, PATCH = range(4)
KINDS = {"modal": MODAL, "position": POSITION, "patch": PATCH}

Pattern = Callable[[np.random.Generator, int, int, MaskConfig], np.ndarray]


def hybrid(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """The three steps one after the other; a pair counts for the step that hid it first."""
    kinds = _drop_modalities(rng, modalities, units, config)
    dropped = (kinds[:, 0] == MODAL).sum()
    to_hide = (config.ratio - dropped / modalities) / (1 - dropped / modalities)
    total = _count(to_hide, units)
    positions = min(total, _count(config.position_share * to_hide, units))
    _hide_positions(rng, kinds, positions)
    _hide_patches(rng, kinds, total - positions)
    return kinds


def modal(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """Whole modalities only; ``max_dropped`` decides the ratio, ``ratio`` is not used."""
    return _drop_modalities(rng, modalities, units, config, limit=modalities - 1)


def position(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """The same positions in every modality: plain masked image modelling, also named "random"."""
    kinds = np.zeros((modalities, units), np.int8)
    _hide_positions(rng, kinds, _count(config.ratio, units))
    return kinds


def patch(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """Positions drawn for each modality independently."""
    kinds = np.zeros((modalities, units), np.int8)
    _hide_patches(rng, kinds, _count(config.ratio, units))
    return kinds


def m3ae(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """Whole modalities, and units of the others drawn from all of them together, as M3AE (arXiv 2303.05302).

    0 to M-1 modalities are dropped, all numbers alike, whatever ``max_dropped``. M3AE's total ratio is 0.875
    (``mask.ratio`` must say so): then three of four modalities may be gone; a lower ratio leaves room for
    fewer. Other than there, a learned value per modality stands for what is hidden, not a learned image.
    """
    kinds = np.full((modalities, units), PATCH, np.int8)
    most = min(modalities - 1, math.floor(config.ratio * modalities))
    kinds[rng.choice(modalities, rng.integers(0, most + 1), replace=False)] = MODAL
    left = np.flatnonzero(kinds == PATCH)
    kinds.flat[rng.choice(left, _visible(modalities, units, config), replace=False)] = VISIBLE
    return kinds


def dirichlet(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """Visible units shared out to the modalities by a Dirichlet draw, as BM-MAE (arXiv 2505.00568).

    All shares are alike likely (concentration 1), so a modality is often nearly, and sometimes quite, hidden;
    where it is quite, that counts as the modal mask. What a modality cannot hold, at low ratios, goes to the
    others; BM-MAE draws again.
    """
    shares = rng.dirichlet(np.ones(modalities))
    total = _visible(modalities, units, config)
    counts = np.diff(np.rint(np.cumsum(shares) * total).astype(int), prepend=0)
    while (spare := np.maximum(counts - units, 0).sum()) > 0:
        counts = np.minimum(counts, units)
        most = np.argmax(np.where(counts < units, shares, -1))
        counts[most] += spare
    kinds = np.full((modalities, units), PATCH, np.int8)
    for row, count in zip(kinds, counts, strict=True):
        row[rng.choice(units, count, replace=False)] = VISIBLE
    kinds[counts == 0] = MODAL
    return kinds


def none(rng: np.random.Generator, modalities: int, units: int, config: MaskConfig) -> np.ndarray:
    """Nothing is hidden: a plain autoencoder, as a control."""
    return np.zeros((modalities, units), np.int8)


PATTERNS: dict[str, Pattern] = {
    "hybrid": hybrid,
    "random": position,
    "modal": modal,
    "position": position,
    "patch": patch,
    "m3ae": m3ae,
    "dirichlet": dirichlet,
    "none": none,
}


def draw_mask(config: MaskConfig, present: np.ndarray, units: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the mask of one sample.

    Args:
        config: pattern and ratios.
        present: boolean (M,), false for modalities the sample lacks; they are not masked, and the
            ratio holds over the modalities that are there.
        units: number N of mask units.
        rng: source of randomness.

    Returns:
        int8 (M, N), see the module's text. At least one pair that is present stays visible.
    """
    kinds = np.zeros((len(present), units), np.int8)
    kinds[present] = PATTERNS[config.pattern](rng, int(present.sum()), units, config)
    return kinds


def only_drops(config: MaskConfig, modalities: int) -> bool:
    """Whether a hybrid mask of so many modalities always hides a whole one, and that is all of the ratio."""
    drops = config.max_dropped >= 1 and modalities > 1
    return config.pattern == "hybrid" and drops and math.isclose(config.ratio * modalities, 1)


def _count(share: float, units: int) -> int:
    """Units that make up ``share``, rounded up as in the definition, but not by a rounding error."""
    return math.ceil(share * units - 1e-9)


def _visible(modalities: int, units: int, config: MaskConfig) -> int:
    """How many of all (modality, unit) pairs stay visible; at least one."""
    return max(1, modalities * units - _count(config.ratio, modalities * units))


def _drop_modalities(rng, modalities, units, config, limit=None) -> np.ndarray:
    kinds = np.zeros((modalities, units), np.int8)
    if limit is None:  # the modal mask alone must not exceed the target ratio
        limit = min(modalities - 1, math.floor(config.ratio * modalities))
    most = min(config.max_dropped, limit)
    if most >= 1:
        count = rng.integers(1, most + 1)
        kinds[rng.choice(modalities, count, replace=False)] = MODAL
    return kinds


def _hide_positions(rng, kinds: np.ndarray, count: int) -> None:
    where = rng.choice(kinds.shape[1], min(count, kinds.shape[1] - 1), replace=False)
    part = kinds[:, where]
    part[part == VISIBLE] = POSITION
    kinds[:, where] = part


def _hide_patches(rng, kinds: np.ndarray, count: int) -> None:
    for row in kinds:
        visible = np.flatnonzero(row == VISIBLE)
        if visible.size:  # one unit of every modality that is not dropped stays visible
            row[rng.choice(visible, min(count, visible.size - 1), replace=False)] = PATCH
