"""Moving a network over a volume tile by tile, and blending what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.inference.tiles import Tiling, box, plan_tiles
from emim.machine.device import mixed_precision
from emim.machine.memory import free_memory, is_out_of_memory

# On a CPU, torch convolves a single small volume by another algorithm, at half the speed (slow_conv3d).
TILES_AT_ONCE = {"cpu": 2, "cuda": 4}
# Two tiles of more voxels cost memory without being faster.
LARGE_TILE = 64**3

# From tiles (B, M, z, y, x) and the modalities present (B, M) to values (B, C, z, y, x).
Compute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Window:
    """How a volume is covered and who is told.

    Attributes:
        side, overlap: of the tiles, see :func:`emim.inference.tiles.plan_tiles`.
        device: where the tiles are computed.
        order: the order of the axes of a tile in memory.
        events: told of every tile.
        should_stop: asked before each tile.
        text: shown beside the progress.
    """

    side: int
    overlap: float
    device: torch.device
    order: torch.memory_format = torch.contiguous_format
    events: Events | None = None
    should_stop: Callable[[], bool] | None = None
    text: str = ""


def slide(
    compute: Compute,
    image: np.ndarray,
    present: np.ndarray,
    foreground: np.ndarray,
    channels: int,
    window: Window,
) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, Z, Y, X), float32, of ``image`` (M, Z, Y, X), and where there are any, boolean (Z, Y, X).

    A volume smaller than a tile is padded with zeros to it, as in training. Voxels that no tile covers are 0.

    Args:
        compute: what is done with a batch of tiles.
        present: boolean (M,).
        foreground: boolean (Z, Y, X), what tiles must cover.
        channels: number C of values.

    Raises:
        Cancelled: when ``window.should_stop`` said so.
        EmimError: when the memory of the device does not suffice, or the result is not finite.
    """
    device = window.device
    volume = _Volume(image, present, foreground, window)
    at_once = TILES_AT_ONCE.get(device.type, 1)
    if device.type == "cpu" and window.side**3 > LARGE_TILE:
        at_once = 1
    exact = False
    while True:
        try:
            with torch.inference_mode(), half_precision(device, exact):
                array, covered = _slide(compute, volume, channels, window, at_once)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if at_once == 1:
                hint = "Close other programs that use the GPU, or use the device cpu."
                raise EmimError("The memory of the GPU does not suffice for one tile.", hint=hint) from error
            array = None
        if array is None:  # not above: an exception that is handled still holds the tensors of its frames
            torch.cuda.empty_cache()
            at_once //= 2
        elif np.isfinite(array).all():
            return array, covered
        elif exact or not may_overflow(device):
            hint = "Check the intensities of the inputs; try the device cpu."
            raise EmimError("The network answered with values that are not finite.", hint=hint)
        else:
            exact = True


def half_precision(device: torch.device, exact: bool = False) -> torch.autocast:
    """Mixed precision on CUDA; full precision elsewhere, and where ``exact``."""
    precision = None if exact else mixed_precision(device)
    return torch.autocast(device.type, precision, enabled=precision is not None)


def may_overflow(device: torch.device) -> bool:
    """Whether :func:`half_precision` is float16, which ends at 65504; sums of normalisation can exceed it."""
    return mixed_precision(device) == torch.float16


def count_tiles(foreground: np.ndarray, side: int, overlap: float) -> int:
    """In how many tiles a case is computed."""
    return len(plan_tiles(pad_to_tile(foreground, side)[0], side, overlap).starts)


class _Volume:
    """A case, padded to hold a tile, with its tiling."""

    def __init__(
        self, image: np.ndarray, present: np.ndarray, foreground: np.ndarray, window: Window
    ) -> None:
        self.image, self.inner = pad_to_tile(image, window.side)
        self.present = np.asarray(present, bool)
        self.tiling: Tiling = plan_tiles(pad_to_tile(foreground, window.side)[0], window.side, window.overlap)


def _slide(
    compute: Compute, volume: _Volume, channels: int, window: Window, at_once: int
) -> tuple[np.ndarray, np.ndarray]:
    tiling, side, device, events = volume.tiling, window.side, window.device, window.events
    weight = torch.from_numpy(tiling.window).to(device)
    image = torch.from_numpy(volume.image)
    blended = torch.zeros(channels, *image.shape[1:])
    if device.type == "cuda" and _fits(device, image.nbytes + blended.nbytes):
        image, blended = image.to(device), blended.to(device)
    done = 0
    for starts in _groups(tiling.starts, at_once, device.type == "cpu"):
        for _ in starts:
            if window.should_stop is not None and window.should_stop():
                raise Cancelled("Cancelled before all tiles of the case were computed.")
        boxes = [(slice(None), *box(start, side)) for start in starts]
        tiles = torch.stack([image[b] for b in boxes])
        # Apple's GPUs may read the tiles after their memory has gone to others (PyTorch issue 189690).
        tiles = tiles.to(device, non_blocking=device.type == "cuda").contiguous(memory_format=window.order)
        present = torch.from_numpy(volume.present).to(device).expand(len(tiles), -1)
        values = compute(tiles, present)
        for b, tile in zip(boxes, values, strict=True):
            blended[b] += (tile * weight).to(blended.device)
            done += 1
            if events is not None:
                events.progress(done, len(tiling.starts), "tile", window.text)
    total = torch.from_numpy(tiling.total).to(blended.device)
    blended /= total.clamp(min=1e-6)
    array = blended[(slice(None), *volume.inner)].cpu().numpy()
    return array, tiling.total[volume.inner] > 0


def _groups(
    starts: Sequence[tuple[int, ...]], at_once: int, never_alone: bool
) -> list[Sequence[tuple[int, ...]]]:
    """``at_once`` tiles each; ``never_alone``: what is left at the end joins the last group."""
    begins = range(0, max(1, len(starts) - (at_once - 1 if never_alone else 0)), at_once)
    ends = [*begins[1:], len(starts)]
    return [starts[a:b] for a, b in zip(begins, ends, strict=True) if a < b]


def pad_to_tile(array: np.ndarray, side: int) -> tuple[np.ndarray, tuple[slice, ...]]:
    """``array`` (…, Z, Y, X) with zeros around axes shorter than ``side``, and where it lies in that."""
    missing = [max(0, side - n) for n in array.shape[-3:]]
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, array.shape[-3:], strict=True))
    if not any(missing):
        return np.ascontiguousarray(array), inner
    padding = [(0, 0)] * (array.ndim - 3) + [(m // 2, m - m // 2) for m in missing]
    return np.pad(array, padding), inner


def _fits(device: torch.device, needed: int) -> bool:
    """Whether the GPU has ample room for ``needed`` bytes."""
    return needed < free_memory(device) / 4
