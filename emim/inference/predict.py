"""From a prepared case to probabilities: the network, moved over the patient tile by tile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from emim.events import Events
from emim.inference.quality import QUALITIES, Effort
from emim.inference.sliding import Window, slide
from emim.networks.layout import memory_format
from emim.package.bundle import Package
from emim.package.model import ModelCard
from emim.package.network import build_network
from emim.volumes.preprocess import PreparedCase

BALANCED = QUALITIES["balanced"]
LEFT_RIGHT = (4,)  # axis of (B, C, Z, Y, X)


def load_network(package: Package, device: torch.device) -> nn.Module:
    """The package's network with its weights, on ``device``, ready for inference."""
    card = package.card
    with torch.device("meta"):  # no random numbers drawn, no memory for them: every tensor is in the package
        network = build_network(card)
    network.load_state_dict(package.load_state(), assign=True)
    return network.to(device, torch.float32, memory_format=memory_format(card.network, device)).eval()


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
        effort: size and overlap of tiles, and whether to average with mirror images.
        should_stop: asked before each tile.
        text: shown beside the progress.

    Raises:
        Cancelled: when ``should_stop`` said so.
        EmimError: when the memory of the device does not suffice, or the result is not finite.
    """
    network.eval()
    order = memory_format(card.network, device)
    mirror = effort.mirror and card.mirrored  # else left and right would be averaged
    window = Window(card.crop, effort.overlap, device, order, events, should_stop, text)
    array, covered = slide(
        lambda tiles, present: _probabilities(network, tiles, present, card.overlapping, mirror),
        prepared.image, prepared.present, prepared.foreground, card.outputs, window,
    )  # fmt: skip
    if not card.overlapping:
        array[0][~covered] = 1
    return array


def _probabilities(
    network: nn.Module, tiles: torch.Tensor, present: torch.Tensor, overlapping: bool, mirror: bool
) -> torch.Tensor:
    """Probabilities (B, C, z, y, x) of ``tiles`` (B, M, z, y, x), or their mean with the mirror images'."""
    flips = ((), LEFT_RIGHT) if mirror else ((),)
    total = 0
    for flip in flips:
        logits = network(tiles.flip(flip) if flip else tiles, present).float()
        activated = logits.sigmoid() if overlapping else logits.softmax(dim=1)
        total = total + (activated.flip(flip) if flip else activated)
    return total / len(flips) if mirror else total
