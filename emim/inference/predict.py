"""From a prepared case to probabilities: the network, moved over the patient tile by tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.inference.quality import QUALITIES, Effort
from emim.inference.tiles import Tiling, box, plan_tiles
from emim.package.bundle import Package
from emim.package.model import ModelCard
from emim.package.network import build_network
from emim.volumes.preprocess import PreparedCase

# On a CPU, torch convolves a single small volume by another algorithm, at half the speed (slow_conv3d).
TILES_AT_ONCE = {"cpu": 2, "cuda": 4}
# Two tiles of more voxels cost memory without being faster.
LARGE_TILE = 64**3
BALANCED = QUALITIES["balanced"]


def load_network(package: Package, device: torch.device) -> nn.Module:
    """The package's network with its weights, on ``device``, ready for inference."""
    card = package.card
    network = build_network(card)
    network.load_state_dict(package.load_state())
    return network.to(device, memory_format=memory_format(card, device)).eval()


def memory_format(card: ModelCard, device: torch.device) -> torch.memory_format:
    """The order of a tensor's axes in memory with which the card's network is fastest.

    Channels-last makes convolutions faster, but instance normalisation slower. On CPUs convolutions pad
    channels to blocks of 16 otherwise, which costs networks whose channels are no multiple of it more than
    normalisation does. GPUs have not been measured.
    """
    padded = card.network.backbone == "resunet" and card.network.filters % 16 > 0
    last = device.type == "cpu" and padded
    return torch.channels_last_3d if last else torch.contiguous_format


def predict_case(
    network: nn.Module,
    prepared: PreparedCase,
    card: ModelCard,
    device: torch.device,
    effort: Effort = BALANCED,
    events: Events | None = None,
    should_stop: Callable[[], bool] | None = None,
    text: str = "",
) -> np.ndarray:
    """Probabilities (C, Z, Y, X), float32, on ``prepared.grid``.

    C is one per structure where structures overlap, else the background and then the structures.
    A volume smaller than a tile is padded with background to it, as in training. See
    :mod:`emim.inference.tiles` for where tiles lie and how they are blended. Voxels that no tile covers are
    background.

    Args:
        effort: size and overlap of tiles, and whether to average over mirrorings.
        should_stop: asked before each tile.
        text: shown beside the progress.

    Raises:
        Cancelled: when ``should_stop`` said so.
        EmimError: when the memory of the device does not suffice, or the result is not finite.
    """
    volume = _Volume(prepared, effort.side(card), effort.overlap)
    at_once = TILES_AT_ONCE.get(device.type, 1)
    if device.type == "cpu" and volume.side**3 > LARGE_TILE:
        at_once = 1
    network.eval()
    while True:
        try:
            with torch.inference_mode():
                return _predict(
                    network, volume, card, device, at_once, effort.mirror, events, should_stop, text
                )
        except torch.cuda.OutOfMemoryError as error:
            if at_once == 1:
                hint = "Close other programs that use the GPU, or use the device cpu."
                raise EmimError("The memory of the GPU does not suffice for one tile.", hint=hint) from error
        torch.cuda.empty_cache()
        at_once //= 2


def count_tiles(foreground: np.ndarray, side: int, overlap: float) -> int:
    """In how many tiles a case is computed."""
    return len(plan_tiles(pad_to_tile(foreground, side)[0], side, overlap).starts)


class _Volume:
    """A case, padded to hold a tile, with its tiling."""

    def __init__(self, prepared: PreparedCase, side: int, overlap: float) -> None:
        self.side = side
        self.image, self.inner = pad_to_tile(prepared.image, side)
        foreground, _ = pad_to_tile(prepared.foreground, side)
        self.tiling: Tiling = plan_tiles(foreground, side, overlap)
        self.present = np.asarray(prepared.present, bool)


def _predict(
    network: nn.Module,
    volume: _Volume,
    card: ModelCard,
    device: torch.device,
    at_once: int,
    mirror: bool,
    events: Events | None,
    should_stop: Callable[[], bool] | None,
    text: str,
) -> np.ndarray:
    tiling, side = volume.tiling, volume.side
    window = torch.from_numpy(tiling.window).to(device)
    order = memory_format(card, device)
    # bfloat16 where there is: float16 can overflow in the sums of normalisation layers.
    precision = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    image = torch.from_numpy(volume.image)
    blended = torch.zeros(card.outputs, *image.shape[1:])
    if device.type == "cuda" and _fits(device, image.nbytes + blended.nbytes):
        image, blended = image.to(device), blended.to(device)
    done = 0
    for starts in _groups(tiling.starts, at_once):
        for _ in starts:
            if should_stop is not None and should_stop():
                raise Cancelled("The segmentation was cancelled.")
        boxes = [(slice(None), *box(start, side)) for start in starts]
        tiles = torch.stack([image[b] for b in boxes])
        tiles = tiles.to(device, non_blocking=True).contiguous(memory_format=order)
        present = torch.from_numpy(volume.present).to(device).expand(len(tiles), -1)
        with torch.autocast(device.type, precision, enabled=device.type == "cuda"):
            probabilities = _probabilities(network, tiles, present, card.overlapping, mirror)
        for b, tile in zip(boxes, probabilities, strict=True):
            blended[b] += (tile * window).to(blended.device)
            done += 1
            if events is not None:
                events.progress(done, len(tiling.starts), "tile", text)
    total = torch.from_numpy(tiling.total).to(blended.device)
    blended /= total.clamp(min=1e-6)
    if not card.overlapping:
        blended[0] += total == 0
    array = blended[(slice(None), *volume.inner)].cpu().numpy()
    if not np.isfinite(array).all():
        hint = "Check the intensities of the inputs; try the device cpu."
        raise EmimError("The network answered with values that are not finite.", hint=hint)
    return array


def _probabilities(
    network: nn.Module, tiles: torch.Tensor, present: torch.Tensor, overlapping: bool, mirror: bool
) -> torch.Tensor:
    """Mean probabilities (B, C, z, y, x) over the mirrorings of ``tiles`` (B, M, z, y, x)."""
    axes = (2, 3, 4)
    flips = [f for n in range(4) for f in itertools.combinations(axes, n)] if mirror else [()]
    total = 0
    for flip in flips:
        logits = network(tiles.flip(flip) if flip else tiles, present).float()
        activated = logits.sigmoid() if overlapping else logits.softmax(dim=1)
        total = total + (activated.flip(flip) if flip else activated)
    return total / len(flips) if mirror else total


def _groups(starts: Sequence[tuple[int, ...]], at_once: int) -> list[Sequence[tuple[int, ...]]]:
    """``at_once`` tiles each; what is left at the end joins the last group, so that no tile is alone."""
    begins = range(0, max(1, len(starts) - at_once + 1), at_once)
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
    return needed < torch.cuda.mem_get_info(device)[0] / 4
