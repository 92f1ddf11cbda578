"""From a prepared case to probabilities: the network, moved over the volume tile by tile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.networks.build import build_segmenter
from emim.package.bundle import Package
from emim.package.model import ModelCard
from emim.volumes.preprocess import PreparedCase


def load_network(package: Package, device: torch.device) -> nn.Module:
    """The package's network with its weights, on ``device``, ready for inference."""
    card = package.card
    network = build_segmenter(len(card.modalities), card.outputs, card.network)
    network.load_state_dict(package.load_state())
    return network.to(device).eval()


def predict_case(
    network: nn.Module,
    prepared: PreparedCase,
    card: ModelCard,
    device: torch.device,
    overlap: float = 0.5,
    mirror: bool = False,
    events: Events | None = None,
    should_stop: Callable[[], bool] | None = None,
    text: str = "",
) -> np.ndarray:
    """Probabilities (C, Z, Y, X), float32, on ``prepared.grid``.

    C is one per structure where structures overlap, else the background and then the structures.
    Tiles have the side of the training crop; a smaller volume is padded with background to it, as in
    training. Tiles are blended with Gaussian weights.

    Args:
        overlap: share of a tile that its neighbour covers too, 0 to below 1.
        mirror: average over all eight mirrorings of each tile; eight times slower.
        should_stop: asked before each tile.
        text: shown beside the progress.

    Raises:
        Cancelled: when ``should_stop`` said so.
        EmimError: when the memory of the device does not suffice, or the result is not finite.
    """
    image = torch.from_numpy(np.ascontiguousarray(prepared.image, np.float32))[None]
    present = torch.from_numpy(np.asarray(prepared.present, bool))[None].to(device)
    # bfloat16 where there is: float16 can overflow in the sums of normalisation layers.
    precision = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    total = count_tiles(image.shape[2:], card.crop, overlap)
    done = 0

    def predict_tile(tile: torch.Tensor) -> torch.Tensor:
        nonlocal done
        if should_stop is not None and should_stop():
            raise Cancelled("The segmentation was cancelled.")
        with torch.autocast(device.type, precision, enabled=device.type == "cuda"):
            probabilities = _probabilities(network, tile, present, card.overlapping, mirror)
        done += 1
        if events is not None:
            events.progress(done, total, "tile", text)
        return probabilities

    def infer(stitch: torch.device) -> torch.Tensor:
        return sliding_window_inference(
            image, card.crop, 1, predict_tile, overlap, mode="gaussian", sw_device=device, device=stitch
        )

    network.eval()
    try:
        with torch.inference_mode():
            try:
                result = infer(_stitching_device(device, image.shape, card.outputs))
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                done = 0
                result = infer(torch.device("cpu"))
    except torch.cuda.OutOfMemoryError as error:
        hint = "Close other programs that use the GPU, or use the device cpu."
        raise EmimError("The memory of the GPU does not suffice for one tile.", hint=hint) from error
    array = result[0].float().cpu().numpy()
    if not np.isfinite(array).all():
        hint = "Check the intensities of the inputs; try the device cpu."
        raise EmimError("The network answered with values that are not finite.", hint=hint)
    return array


def _probabilities(
    network: nn.Module, tile: torch.Tensor, present: torch.Tensor, overlapping: bool, mirror: bool
) -> torch.Tensor:
    """Mean probabilities (1, C, z, y, x) over the mirrorings of ``tile`` (1, M, z, y, x)."""
    axes = (2, 3, 4)
    flips = [f for n in range(4) for f in itertools.combinations(axes, n)] if mirror else [()]
    total = 0
    for flip in flips:
        logits = network(tile.flip(flip), present).float()
        activated = logits.sigmoid() if overlapping else logits.softmax(dim=1)
        total = total + activated.flip(flip)
    return total / len(flips)


def count_tiles(shape: tuple[int, ...], side: int, overlap: float) -> int:
    """How many tiles MONAI will cut."""
    step = max(1, int(side * (1 - overlap)))
    return math.prod(math.ceil(max(0, n - side) / step) + 1 for n in shape)


def _stitching_device(device: torch.device, shape: tuple[int, ...], outputs: int) -> torch.device:
    """Where tiles are put together: on the GPU only if it has ample room for the whole volume."""
    if device.type == "cuda":
        needed = 4 * math.prod(shape[2:]) * (2 * outputs + 1)
        free, _ = torch.cuda.mem_get_info(device)
        if needed < free / 2:
            return device
    return torch.device("cpu")
