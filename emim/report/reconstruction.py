"""What was hidden and what the network made of it: small pictures of a pre-training preview."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image

from emim.report.record import RunRecord
from emim.report.views import cut, largest_slices, pixel_size, window

COLUMNS = ("Original", "What the network saw", "Its output", "Gaps filled", "Difference")
SHOWN_PLANES = ("axial", "coronal")
DIFFERENCE_MAXIMUM = 2.0  # standard deviations shown brightest

_HIDDEN = np.array([70, 110, 160], np.float32)  # over anatomy
_HIDDEN_AIR = np.array([34, 52, 76], np.float32)


@dataclass(frozen=True)
class Picture:
    """One PNG and its height over width in mm."""

    png: bytes
    aspect: float


@dataclass(frozen=True)
class Row:
    """The pictures of one modality, in the order of ``COLUMNS``; none when it is missing in the case."""

    modality: str
    pictures: tuple[Picture, ...]


def reconstructions(run: RunRecord) -> dict[str, list[Row]]:
    """Per plane, one row for each modality of the preview case; empty without a valid preview."""
    needed = ("original", "masked", "reconstructed", "hidden")
    if any(run.preview.get(n) is None for n in needed):
        return {}
    original = run.preview["original"]
    if original.ndim != 4 or any(run.preview[n].shape != original.shape for n in needed):
        return {}
    foreground = run.preview.get("foreground")
    if foreground is None or foreground.shape != original.shape[1:]:
        foreground = (original != 0).any(0)
    foreground = foreground.astype(bool)
    indices = largest_slices(foreground)
    limits = [window(x, foreground) if x.any() else None for x in original]
    return {plane: _rows(run, plane, indices[plane], foreground, limits) for plane in SHOWN_PLANES}


def _rows(run: RunRecord, plane: str, index: int, foreground: np.ndarray, limits: list) -> list[Row]:
    high, wide = pixel_size(plane, run.spacing)
    inside = cut(foreground, plane, index)
    aspect = inside.shape[0] * high / (inside.shape[1] * wide)
    rows = []
    for m, limit in enumerate(limits):
        name = run.modalities[m] if m < len(run.modalities) else f"modality {m + 1}"
        if limit is None:
            rows.append(Row(name, ()))
            continue
        seen, masked, output, gaps = (
            cut(run.preview[n][m], plane, index) for n in ("original", "masked", "reconstructed", "hidden")
        )
        gaps = gaps.astype(bool)
        error = np.where(gaps & inside, np.abs(output - seen), 0) / DIFFERENCE_MAXIMUM
        images = (
            _gray(seen, inside, limit),
            _tint(_gray(masked, inside, limit), gaps, inside),
            _gray(output, inside, limit),
            _gray(np.where(gaps, output, seen), inside, limit),
            (255 * matplotlib.colormaps["inferno"](np.clip(error, 0, 1))[..., :3]).astype(np.uint8),
        )
        rows.append(Row(name, tuple(Picture(_png(i), aspect) for i in images)))
    return rows


def _gray(values: np.ndarray, inside: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    shown = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1) * 255
    # After normalisation air is 0, the mean grey of the tissue; it is shown black.
    return np.repeat(np.where(inside, shown, 0)[..., None], 3, axis=-1).astype(np.uint8)


def _tint(picture: np.ndarray, gaps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    hidden = np.where(inside[..., None], _HIDDEN, _HIDDEN_AIR)
    return np.where(gaps[..., None], hidden, picture).astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return out.getvalue()
