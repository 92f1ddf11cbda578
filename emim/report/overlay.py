"""A label map over an image: three orthogonal slices as one picture.

Arrays are (Z, Y, X) with the axes of LPS and are shown in the radiological convention
(:mod:`emim.report.views`): the patient's left is on the picture's right.

Drawn by Pillow, not matplotlib: a segmentation must not wait for the import of a plotting library.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emim.report.views import EDGES, PLANES, cut, largest_slices, pixel_size, window
from emim.run import write_atomically

_TEXT, _DIM = "#e8ebef", "#b0b8c1"
_WIDTH, _MARGIN, _GAP, _ROW = 1440, 14, 17, 40  # pixels
_MAX_HEIGHT = 720
_FINE = 2  # slices are drawn this much larger, for smooth edges

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
    marked = np.zeros(image.shape, bool)
    for value in colors if label is not None else ():
        marked |= label == value
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
    shapes = {p: (max(1, round(scale * w)), max(1, round(scale * h))) for p, (w, h) in sizes.items()}
    tallest = max(h for _, h in shapes.values())
    font = _font(18)
    rows = _legend_rows(legend, font)
    legend_height = _ROW * len(rows) + (12 if rows else 0)

    picture = Image.new("RGB", (_WIDTH, tallest + 2 * _MARGIN + legend_height))
    left = (_WIDTH - sum(w for w, _ in shapes.values()) - (len(PLANES) - 1) * _GAP) // 2
    for plane in PLANES:
        width, height = shapes[plane]
        shown = None if label is None else cut(label, plane, indices[plane])
        slice_ = _draw(cuts[plane], (low, high), shown, colors, (_FINE * width, _FINE * height)).reduce(_FINE)
        _letter(slice_, EDGES[plane])
        picture.paste(slice_, (left, _MARGIN + (tallest - height) // 2))
        left += width + _GAP
    _draw_legend(ImageDraw.Draw(picture), rows, tallest + 2 * _MARGIN, font)
    out = io.BytesIO()
    picture.save(out, format="png", compress_level=3)
    return out.getvalue()


def _draw(
    image: np.ndarray,
    limits: tuple[float, float],
    label: np.ndarray | None,
    colors: Colors,
    size: tuple[int, int],
) -> Image.Image:
    """The slice ``image`` in grey with its structures filled and outlined, ``size`` (w, h) in pixels."""
    low, high = limits
    gray = np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255
    gray = Image.fromarray(np.rint(gray).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    pixels = np.repeat(np.asarray(gray)[..., None], 3, axis=2)
    for value, color in colors.items():
        if label is None or not (label == value).any():
            continue
        mask = Image.fromarray(np.where(label == value, np.uint8(255), np.uint8(0)))
        inside = np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127
        pixels[inside] = (7 * pixels[inside].astype(np.uint16) + 3 * np.array(color, np.uint16)) // 10
        pixels[inside & ~_eroded(inside, 3)] = color
    return Image.fromarray(pixels)


def _eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """``mask`` without its outermost ``by`` pixels; what is beyond the picture counts as outside."""
    inner = np.pad(mask, by)
    for axis in (0, 1):
        line = inner.copy()
        for shift in range(1, by + 1):
            inner &= np.roll(line, shift, axis)
            inner &= np.roll(line, -shift, axis)
    return inner[by:-by, by:-by]


def _letter(slice_: Image.Image, edges: str) -> None:
    """The patient's directions at the left, right, upper and lower edge."""
    width, height = slice_.size
    places = ((6, height // 2, "lm"), (width - 6, height // 2, "rm"), (width // 2, 5, "ma"),
              (width // 2, height - 5, "md"))  # fmt: skip
    draw = ImageDraw.Draw(slice_)
    for letter, (x, y, anchor) in zip(edges, places, strict=True):
        draw.text((x, y), letter, _DIM, _font(17), anchor, stroke_width=2, stroke_fill="black")


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, which knows more scripts than Pillow's own."""
    found = find_spec("matplotlib")
    file = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found else None
    return ImageFont.truetype(str(file), size) if file and file.is_file() else ImageFont.load_default(size)


def _amount(value: int, label: np.ndarray, volumes: Mapping[int, float] | None) -> str:
    if volumes is not None and value in volumes:
        return f"  {volumes[value]:.1f} mL"
    return "" if (label == value).any() else "  (none)"


def _legend_rows(
    legend: Sequence[tuple[str, tuple[int, int, int]]], font: ImageFont.FreeTypeFont
) -> list[list]:
    """Entries with the pixels each takes, broken into rows that fit the picture's width."""
    rows: list[list] = []
    used = _WIDTH
    for text, color in legend:
        width = round(font.getlength(text)) + 74
        if used + width > _WIDTH - 2 * _MARGIN:
            rows.append([])
            used = 0
        rows[-1].append((text, color, width))
        used += width
    return rows


def _draw_legend(draw: ImageDraw.ImageDraw, rows: list[list], top: int, font: ImageFont.FreeTypeFont) -> None:
    for r, row in enumerate(rows):
        y = top + _ROW * r + _ROW // 2 - 8
        x = (_WIDTH - sum(width for *_, width in row)) // 2
        for text, color, width in row:
            draw.rectangle((x, y - 10, x + 23, y + 9), fill=tuple(color))
            draw.text((x + 36, y), text, _TEXT, font, "lm")
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
