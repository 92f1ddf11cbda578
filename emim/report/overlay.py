"""A label map over an image: three orthogonal slices as one picture.

Arrays are (Z, Y, X) with the axes of LPS and are shown in the radiological convention
(:mod:`emim.report.views`): the patient's left is on the picture's right.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from emim.report.views import EDGES, PLANES, cut, largest_slices, pixel_size, window
from emim.run import write_atomically

_BACKGROUND, _TEXT, _DIM = "#000000", "#e8ebef", "#b0b8c1"
_WIDTH, _MARGIN, _GAP = 12.0, 0.12, 0.14  # inches
_MAX_HEIGHT = 6.0
_DPI = 120

Colors = Mapping[int, tuple[int, int, int]]


def write_overlay(
    image: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[float],
    colors: Colors,
    names: Mapping[int, str],
    path: str | Path,
    volumes: Mapping[int, float] | None = None,
) -> Path:
    """Write a PNG with ``label`` over ``image`` in an axial, a coronal and a sagittal slice.

    Each slice is the one that shows most of the labelled volume, or the middle one if the label is
    empty. Structures are filled, outlined, and listed below.

    Args:
        image: (Z, Y, X), axes of LPS.
        label: (Z, Y, X), whole numbers; 0 is background.
        spacing: mm along (Z, Y, X).
        colors: label value to (red, green, blue) from 0 to 255; other values are not shown.
        names: label value to name; a value without one is called by its number.
        path: file to write; an existing one is replaced.
        volumes: label value to mL, listed beside the name.

    Raises:
        ValueError: when ``image`` and ``label`` differ in shape or are not 3-D.
    """
    image, label = np.asarray(image), np.asarray(label)
    if image.ndim != 3 or image.shape != label.shape:
        raise ValueError(f"image {image.shape} and label {label.shape} must be (Z, Y, X) of one shape")
    entries = [
        (
            str(names.get(value, value)) + _amount(value, label, volumes),
            color,
        )
        for value, color in colors.items()
    ]
    path = Path(path)
    data = slices_png(image, label, spacing, colors, legend=entries)
    write_atomically(path, data)
    return path


def slices_png(
    image: np.ndarray,
    label: np.ndarray | None,
    spacing: Sequence[float],
    colors: Colors,
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
    focus: np.ndarray | None = None,
) -> bytes:
    """The picture of :func:`write_overlay` as PNG bytes.

    ``focus`` (Z, Y, X), boolean, chooses the slices in place of ``label``; pictures of one case with
    the same focus show the same slices.
    """
    marked = np.isin(label, list(colors)) if label is not None else np.zeros(image.shape, bool)
    focus = marked if focus is None else focus
    box = _content(image, focus | marked)
    image, focus = image[box].astype(np.float32), focus[box]
    label = None if label is None else label[box]
    indices = largest_slices(focus)
    low, high = window(image)

    pixels = {p: pixel_size(p, spacing) for p in PLANES}
    cuts = {p: cut(image, p, indices[p]) for p in PLANES}
    sizes = {p: (c.shape[1] * pixels[p][1], c.shape[0] * pixels[p][0]) for p, c in cuts.items()}  # mm
    room = _WIDTH - 2 * _MARGIN - (len(PLANES) - 1) * _GAP
    scale = min(room / sum(w for w, _ in sizes.values()), _MAX_HEIGHT / max(h for _, h in sizes.values()))
    picture_height = scale * max(h for _, h in sizes.values())
    rows = _legend_rows(legend)
    legend_height = 0.34 * len(rows) + (0.1 if rows else 0)
    height = picture_height + 2 * _MARGIN + legend_height

    figure = Figure(figsize=(_WIDTH, height), facecolor=_BACKGROUND)
    used = scale * sum(w for w, _ in sizes.values()) + (len(PLANES) - 1) * _GAP
    left = (_WIDTH - used) / 2
    for plane in PLANES:
        w, h = (scale * s for s in sizes[plane])
        bottom = legend_height + _MARGIN + (picture_height - h) / 2
        axes = figure.add_axes([left / _WIDTH, bottom / height, w / _WIDTH, h / height])
        shown = None if label is None else cut(label, plane, indices[plane])
        _draw(axes, cuts[plane], (low, high), shown, colors)
        _letter(axes, EDGES[plane])
        left += w + _GAP
    _draw_legend(figure, rows, height)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name in a script the font does not have
        figure.savefig(out, format="png", dpi=_DPI, facecolor=_BACKGROUND, metadata={"Software": None})
    return out.getvalue()


def _draw(axes, image: np.ndarray, limits: tuple[float, float], label: np.ndarray | None, colors: Colors):
    rows, columns = image.shape
    axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="bilinear")
    for value, color in colors.items():
        if label is None or not (label == value).any():
            continue
        # A frame of background closes outlines at the edge of the picture.
        inside = np.pad(label == value, 1).astype(float)
        x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
        rgb = tuple(c / 255 for c in color)
        axes.contourf(x, y, inside, levels=[0.5, 2], colors=[rgb], alpha=0.3, antialiased=True)
        axes.contour(x, y, inside, levels=[0.5], colors=[rgb], linewidths=1.5)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_axis_off()


def _letter(axes, edges: str) -> None:
    places = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"),
              (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))  # fmt: skip
    for letter, (x, y, horizontal, vertical) in zip(edges, places, strict=True):
        text = axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical)
        text.set(color=_DIM, fontsize=10, path_effects=[withStroke(linewidth=2.5, foreground="black")])


def _amount(value: int, label: np.ndarray, volumes: Mapping[int, float] | None) -> str:
    if volumes is not None and value in volumes:
        return f"  {volumes[value]:.1f} mL"
    return "" if (label == value).any() else "  (none)"


def _legend_rows(legend: Sequence[tuple[str, tuple[int, int, int]]]) -> list[list]:
    """Entries with the inches each takes, broken into rows that fit the picture's width."""
    rows: list[list] = []
    used = _WIDTH
    for text, color in legend:
        width = 0.62 + 0.105 * len(text)
        if used + width > _WIDTH - 2 * _MARGIN:
            rows.append([])
            used = 0.0
        rows[-1].append((text, color, width))
        used += width
    return rows


def _draw_legend(figure: Figure, rows: list[list], height: float) -> None:
    for r, row in enumerate(rows):
        y = (0.34 * (len(rows) - r) - 0.1) / height
        x = (_WIDTH - sum(width for *_, width in row)) / 2
        for text, color, width in row:
            swatch = matplotlib.patches.Rectangle(
                (x / _WIDTH, y - 0.08 / height), 0.2 / _WIDTH, 0.16 / height,
                facecolor=tuple(c / 255 for c in color), edgecolor="none", transform=figure.transFigure,
            )  # fmt: skip
            figure.add_artist(swatch)
            # A dollar sign in a name is no formula.
            figure.text((x + 0.3) / _WIDTH, y, text, color=_TEXT, fontsize=11, va="center", parse_math=False)
            x += width


def _content(image: np.ndarray, keep: np.ndarray) -> tuple[slice, slice, slice]:
    """The box, with a small margin, outside which ``image`` is 0 and nothing is to be kept."""
    inside = (image != 0) | keep
    box = []
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (found[0], found[-1]) if found.size else (0, image.shape[axis] - 1)
        box.append(slice(max(int(first) - 3, 0), int(last) + 4))
    return tuple(box)
