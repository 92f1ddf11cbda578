"""The classification model of the tests: which of its first and its last modality is brighter, or neither.

Run as a script where the process must not import torch: ``class_model.py FOLDER MODALITY MODALITY …``.
"""

import sys

from emim.config import NetworkConfig, PreprocessConfig
from emim.package.bundle import write_package
from emim.package.model import ModelCard

CLASSES = ("first type", "last type", "other <type>")


def write_class_model(folder, modalities, name="Lésion type"):
    """A package whose weights are set by hand, so that exchanging the two modalities exchanges two classes.

    The encoder passes the modalities through; the head is plus and minus their difference.
    """
    import torch

    from emim.networks.build import build_classifier

    card = ModelCard(
        name=name,
        task="classification",
        description="Tells which sequence shows more.",
        modalities=tuple(modalities),
        optional=tuple(modalities[1:-1]),
        structures=(),
        classes=CLASSES,
        overlapping=False,
        preprocess=PreprocessConfig(spacing=(4.0, 4.0, 4.0)),
        network=NetworkConfig(filters=4, blocks=(1, 1)),
        crop=32,
        training={
            "training_cases": 20,
            "validation_cases": 8,
            "validation_balanced_accuracy": 0.75,
            "validation_auc": 0.82,
            "validation_auc_interval": [0.61, 0.97],
        },
    )
    network = build_classifier(len(modalities), 3, card.network, card.classifier)
    last = len(modalities) - 1
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for channel in range(len(modalities)):
            network.encoder.conv_init.weight[channel, channel, 1, 1, 1] = 1.0
            network.encoder.layers[0]["downsample"].weight[channel, channel, 1, 1, 1] = 1.0
        head = network.output["head"]
        head.weight[0, 0], head.weight[0, last] = 20.0, -20.0
        head.weight[1, 0], head.weight[1, last] = -20.0, 20.0
        head.bias[2] = -3.0
    return write_package(folder, card, network.state_dict())


if __name__ == "__main__":
    write_class_model(sys.argv[1], sys.argv[2:])
