"""The network of a model package as MONAI has it: SegResNetDS with the package's weights."""

from __future__ import annotations

from monai.networks.nets.segresnet_ds import SegResNetDS
from torch import nn

from emim.package.bundle import Package


def monai_network(package: Package) -> nn.Module:
    """MONAI's own class. EMIM's modality tokens stand for what is missing: here nothing is."""
    card = package.card
    network = SegResNetDS(
        spatial_dims=3,
        init_filters=card.network.filters,
        in_channels=len(card.modalities),
        out_channels=card.outputs,
        blocks_down=card.network.blocks,
        norm=("instance", {"affine": True}),
    )
    state = {k.removeprefix("unet."): v for k, v in package.load_state().items() if k.startswith("unet.")}
    network.load_state_dict(state)
    return network.eval()
