"""Writes a model package whose network is known: a threshold on FLAIR and one on T1ce.

Run as a script, because the process of the GUI tests never imports torch: ``segment_model.py FOLDER``.
"""

import sys

import torch

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.networks.segmenter import Segmenter
from emim.package.bundle import write_package
from emim.package.model import ModelCard

CARD = ModelCard(
    name="bright lesions",
    description="Marks what is bright in FLAIR, and in it what is bright in T1ce.",
    modalities=("T1", "T1ce", "T2", "FLAIR"),
    optional=("T1", "T1ce", "T2"),
    structures=(
        Structure("Lesion", (1, 2), 1, (230, 159, 0)),
        Structure("Enhancing", (2,), 2, (86, 180, 233)),
    ),
    overlapping=True,
    preprocess=PreprocessConfig(spacing=(4.0, 4.0, 4.0)),
    network=NetworkConfig(filters=4, blocks=(1, 1)),
    crop=32,
    training={"training_cases": 20, "validation_cases": 5, "validation_dice": 0.81},
)


def threshold_state(card, thresholds):
    """Weights with which each output says whether one modality is above so many standard deviations.

    The first convolution copies the modalities, residual branches and the way up add nothing, and the
    last convolution is 20 (x - z); ``thresholds`` is a pair (modality, z) for each output.
    """
    network = Segmenter(len(card.modalities), card.outputs, card.network)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for channel in range(len(card.modalities)):
        state["unet.encoder.conv_init.weight"][channel, channel, 1, 1, 1] = 1
    for output, (source, z) in enumerate(thresholds):
        state["unet.up_layers.0.head.weight"][output, card.modalities.index(source)] = 20
        state["unet.up_layers.0.head.bias"][output] = -20 * z
    return state


if __name__ == "__main__":
    write_package(sys.argv[1], CARD, threshold_state(CARD, [("FLAIR", 2.0), ("T1ce", 2.4)]))
