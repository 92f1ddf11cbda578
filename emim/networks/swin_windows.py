"""The boxes of a token grid within which a Swin transformer attends.

Swin rolls the grid cyclically by half a window, cuts it into windows, and masks those that the grid's end
runs through, so that what was not adjacent before does not attend to each other. Cutting the grid itself
gives the same result: full windows inside and, at both ends of an axis, one box each for the two parts of the
window that would wrap around. That spares the roll, the masks and the masked half of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
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


def window_side(side: int, aim: int) -> int:
    """The divisor of ``side`` nearest to ``aim`` (the smaller of two), at most ``aim`` + 1.

    Windows then fill the grid exactly: none is padded.
    """
    divisors = [d for d in range(1, aim + 2) if side % d == 0]
    return min(divisors, key=lambda d: (abs(d - aim), d))


def window_boxes(grid: Sequence[int], aim: int, shifted: bool) -> list[Boxes]:
    """Boxes that together cover a ``grid`` of tokens (Z, Y, X).

    Args:
        aim: about the side of a window; see :func:`window_side`.
        shifted: windows begin half a window later along each axis that has more than one.
    """
    axes = [_segments(side, window_side(side, aim), shifted) for side in grid]
    return [Boxes(*zip(*parts, strict=True)) for parts in product(*axes)]


def _segments(side: int, window: int, shifted: bool) -> list[tuple[int, int, int]]:
    """(start, count, size) of the runs of boxes along an axis."""
    if not shifted or side == window or window == 1:
        return [(0, side // window, window)]
    shift = window // 2
    last = side - (window - shift)
    return [(0, 1, shift), (shift, side // window - 1, window), (last, 1, window - shift)]


def cut(grid: torch.Tensor, boxes: Sequence[Boxes]) -> tuple[torch.Tensor, ...]:
    """The tokens of each of ``boxes``, (B · number, tokens, C), from ``grid`` (B, Z, Y, X, C)."""
    return _Cut.apply(grid, boxes)


def join(parts: Sequence[torch.Tensor], boxes: Sequence[Boxes], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of :func:`cut`: (B, Z, Y, X, C) with sides ``grid``."""
    return _Join.apply(boxes, tuple(grid), *parts)


# As autograd functions each direction writes every token once; slices would add up full grids of zeros.
class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grid, boxes):
        ctx.boxes, ctx.grid = boxes, grid.shape[1:4]
        return _cut(grid, boxes)

    @staticmethod
    def backward(ctx, *parts):
        return _join(parts, ctx.boxes, ctx.grid), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, boxes, grid, *parts):
        ctx.boxes = boxes
        return _join(parts, boxes, grid)

    @staticmethod
    def backward(ctx, grid):
        return None, None, *_cut(grid, ctx.boxes)


def _cut(grid: torch.Tensor, boxes: Sequence[Boxes]) -> tuple[torch.Tensor, ...]:
    parts = []
    for box in boxes:
        view = _view(grid, box)
        parts.append(view.reshape(-1, view[0, 0, 0, 0, ..., 0].numel(), grid.shape[-1]))
    return tuple(parts)


def _join(parts: Sequence[torch.Tensor], boxes: Sequence[Boxes], grid: Sequence[int]) -> torch.Tensor:
    number = sum(part.shape[0] * part.shape[1] for part in parts)
    z, y, x = grid
    joined = parts[0].new_empty(number // (z * y * x), z, y, x, parts[0].shape[-1])
    for part, box in zip(parts, boxes, strict=True):
        view = _view(joined, box)
        view.copy_(part.view(view.shape))
    return joined


def _view(grid: torch.Tensor, box: Boxes) -> torch.Tensor:
    """(B, boxes along Z, Y, X, tokens along Z, Y, X, C)."""
    b, c = grid.shape[0], grid.shape[-1]
    for axis, (start, count, size) in enumerate(zip(*box, strict=True)):
        grid = grid.narrow(1 + axis, start, count * size)
    (nz, ny, nx), (z, y, x) = box.count, box.size
    return grid.view(b, nz, z, ny, y, nx, x, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
