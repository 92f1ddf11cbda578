"""The boxes of a token grid within which a Swin transformer attends.

Swin rolls the grid cyclically by half a window, cuts it into windows, and masks those that the grid's end
runs through, so that what was not adjacent before does not attend to each other. Cutting the grid itself
gives the same result: full windows inside and, at both ends of an axis, one box each for the two parts of the
window that would wrap around. That spares the roll, the masks and the masked half of the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise, product
from typing import NamedTuple

import torch


class Boxes(NamedTuple):
    """Equal boxes side by side.

    Attributes:
        start: first token of the first box along (Z, Y, X).
        count: boxes along each axis.
        size: sides of a box.
    """

    start: tuple[int, ...]
    count: tuple[int, ...]
    size: tuple[int, ...]


def window_boxes(grid: Sequence[int], most: int, shifted: bool) -> list[list[Boxes]]:
    """Boxes that together cover a ``grid`` of tokens (Z, Y, X), those of a size in a list.

    Each axis is divided into as few windows of at most ``most`` tokens as it takes, as even as can be: 32
    tokens into 7, 7, 6, 6, 6. None is padded.

    Args:
        most: largest side of a window.
        shifted: boxes reach from the middle of a window to that of the next.
    """
    axes = [_runs(_edges(side, most, shifted)) for side in grid]
    by_size: dict[tuple[int, ...], list[Boxes]] = {}
    for parts in product(*axes):
        boxes = Boxes(*zip(*parts, strict=True))
        by_size.setdefault(boxes.size, []).append(boxes)
    return list(by_size.values())


def _edges(side: int, most: int, shifted: bool) -> list[int]:
    """Where boxes along an axis begin, and the end of the last."""
    windows = math.ceil(side / most)
    small, larger = divmod(side, windows)
    edges = [0, *accumulate(small + (i < larger) for i in range(windows))]
    if not shifted or windows == 1:
        return edges
    return [0, *((a + b) // 2 for a, b in pairwise(edges)), side]


def _runs(edges: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, count, size) of the runs of equal boxes along an axis."""
    boxes = [(b - a, a) for a, b in pairwise(edges)]
    runs = [list(same) for _, same in groupby(boxes, key=lambda box: box[0])]
    return [(same[0][1], len(same), same[0][0]) for same in runs]


def cut(grid: torch.Tensor, sizes: Sequence[Sequence[Boxes]]) -> tuple[torch.Tensor, ...]:
    """The tokens of the boxes of each size, (B · number, tokens, C), from ``grid`` (B, Z, Y, X, C)."""
    return _Cut.apply(grid, sizes)


def join(
    parts: Sequence[torch.Tensor], sizes: Sequence[Sequence[Boxes]], grid: Sequence[int]
) -> torch.Tensor:
    """The inverse of :func:`cut`: (B, Z, Y, X, C) with sides ``grid``."""
    return _Join.apply(sizes, tuple(grid), *parts)


# As autograd functions each direction writes every token once; slices would add up full grids of zeros.
class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grid, sizes):
        ctx.sizes, ctx.grid = sizes, grid.shape[1:4]
        return _cut(grid, sizes)

    @staticmethod
    def backward(ctx, *parts):
        return _join(parts, ctx.sizes, ctx.grid), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sizes, grid, *parts):
        ctx.sizes = sizes
        return _join(parts, sizes, grid)

    @staticmethod
    def backward(ctx, grid):
        return None, None, *_cut(grid, ctx.sizes)


def _cut(grid: torch.Tensor, sizes: Sequence[Sequence[Boxes]]) -> tuple[torch.Tensor, ...]:
    parts = []
    for same in sizes:
        views = [_view(grid, boxes) for boxes in same]
        tokens, channels = math.prod(same[0].size), grid.shape[-1]
        part = grid.new_empty(sum(v.numel() for v in views) // (tokens * channels), tokens, channels)
        for view, place in zip(views, _places(part, views), strict=True):
            place.copy_(view)
        parts.append(part)
    return tuple(parts)


def _join(
    parts: Sequence[torch.Tensor], sizes: Sequence[Sequence[Boxes]], grid: Sequence[int]
) -> torch.Tensor:
    number = sum(part.shape[0] * part.shape[1] for part in parts)
    joined = parts[0].new_empty(number // math.prod(grid), *grid, parts[0].shape[-1])
    for part, same in zip(parts, sizes, strict=True):
        views = [_view(joined, boxes) for boxes in same]
        for view, place in zip(views, _places(part, views), strict=True):
            view.copy_(place)
    return joined


def _places(part: torch.Tensor, views: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The boxes of each of ``views`` in ``part``, where they lie one view after the other."""
    pieces = part.split([math.prod(view.shape[:4]) for view in views])
    return [piece.view(view.shape) for piece, view in zip(pieces, views, strict=True)]


def _view(grid: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """(B, boxes along Z, Y, X, tokens along Z, Y, X, C)."""
    b, c = grid.shape[0], grid.shape[-1]
    for axis, (start, count, size) in enumerate(zip(*boxes, strict=True)):
        grid = grid.narrow(1 + axis, start, count * size)
    (nz, ny, nx), (z, y, x) = boxes.count, boxes.size
    return grid.view(b, nz, z, ny, y, nx, x, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
