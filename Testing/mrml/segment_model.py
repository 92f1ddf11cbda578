"""The model of the tests of EMIMSegment's Logic: it thresholds, so every test knows the right answer."""

import pytest

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.package.bundle import write_package
from emim.package.model import ModelCard

SPACING = 3.0  # mm
MASS = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^4147007^Mass~^^~Anatomic codes - DICOM master list~^^~^^"
)


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory):
    """FLAIR above a threshold is a lesion, T1 above it the core within; T1 may be missing.

    It is a real package, run by the real worker; its weights are set by hand so that the network passes each
    input through unchanged and thresholds it.
    """
    import torch

    from emim.networks.segmenter import Segmenter

    card = ModelCard(
        name="Thrëshold",
        modalities=("T1", "FLAIR"),
        optional=("T1",),
        structures=(
            Structure("Lésion", (1, 2), 2, (230, 159, 0), MASS),
            Structure("Core", (1,), 5, (86, 180, 233), None),
        ),
        overlapping=True,
        preprocess=PreprocessConfig(spacing=(SPACING,) * 3, reference="FLAIR"),
        network=NetworkConfig(filters=4, blocks=(1, 1)),
        crop=32,
        patterns={"T1": ["t1"], "FLAIR": ["flair"]},
    )
    network = Segmenter(2, 2, card.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for channel in range(2):
            network.unet.encoder.conv_init.weight[channel, channel, 1, 1, 1] = 1.0
        head = network.unet.up_layers[-1].head
        head.weight[0, 1], head.weight[1, 0] = 20.0, 20.0  # Lésion from FLAIR, Core from T1
        head.bias[:] = -20.0 * 2.5  # standard deviations
    return write_package(tmp_path_factory.mktemp("modèls") / "thrëshold", card, network.state_dict())
