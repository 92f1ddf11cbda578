"""From a prepared case of any size to the features a classification network pools of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from emim.errors import Cancelled, EmimError
from emim.inference.sliding import half_precision, may_overflow, pad_to_tile
from emim.inference.tiles import box, plan_tiles
from emim.machine.memory import is_out_of_memory
from emim.networks.classifier import Classifier
from emim.networks.layout import memory_format
from emim.package.model import ModelCard

# Crops are pooled, not blended: an overlap serves only to show every place away from a crop's edge.
OVERLAP = 0.25


@torch.inference_mode()
def case_features(
    network: Classifier,
    image: np.ndarray,
    present: np.ndarray,
    foreground: np.ndarray,
    card: ModelCard,
    device: torch.device,
    should_stop: Callable[[], bool] | None = None,
) -> torch.Tensor:
    """Pooled features (1, C) of the whole case, on ``device``.

    The foreground is covered by crops of the side ``card.crop`` at the working spacing; nothing is
    resized. All their positions are pooled together; see :mod:`emim.networks.classifier`.

    Args:
        image: z-scores (M, Z, Y, X).
        present: boolean (M,).
        foreground: boolean (Z, Y, X).
        should_stop: asked before each crop.

    Raises:
        Cancelled: when ``should_stop`` said so.
        EmimError: when the memory of a GPU does not suffice.
    """
    network.eval()
    volume = torch.from_numpy(pad_to_tile(image, card.crop)[0])
    starts = plan_tiles(pad_to_tile(foreground, card.crop)[0], card.crop, OVERLAP).starts
    there = torch.from_numpy(np.asarray(present, bool))[None].to(device)
    means, masses = [], []
    for start in starts:
        if should_stop is not None and should_stop():
            raise Cancelled("The classification was cancelled.")
        crop = volume[(slice(None), *box(start, card.crop))][None].to(device)
        crop = crop.contiguous(memory_format=memory_format(card.network, device))
        try:
            mean, mass = _summary(network, crop, there)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            hint = "Close other programs that use the GPU, or use the device cpu."
            raise EmimError("The memory of the GPU does not suffice for one crop.", hint=hint) from error
        means.append(mean.float())
        masses.append(mass.float())
    return network.combine(torch.cat(means), torch.cat(masses))


def _summary(
    network: Classifier, crop: torch.Tensor, there: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    with half_precision(crop.device):
        mean, mass = network.summarise(crop, there)
    if may_overflow(crop.device) and not torch.isfinite(mean).all():
        with half_precision(crop.device, exact=True):
            mean, mass = network.summarise(crop, there)
    return mean, mass


def class_probabilities(network: Classifier, features: torch.Tensor) -> np.ndarray:
    """Probabilities (K,) of the classes from the features of a case.

    Raises:
        EmimError: when they are not finite.
    """
    with torch.inference_mode():
        result = network.classify(features).cpu().double().softmax(1)[0].numpy()  # MPS has no double
    if not np.isfinite(result).all():
        hint = "Check the intensities of the inputs; try the device cpu."
        raise EmimError("The network answered with values that are not finite.", hint=hint)
    return result
