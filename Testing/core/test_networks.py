"""The networks: the same as those they are modelled on, and found by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from monai.networks.nets.segresnet_ds import SegResNetDS

from emim.config import NetworkConfig
from emim.errors import EmimError
from emim.networks.build import build_segmenter
from emim.networks.residual_unet import ResidualUNet


@pytest.mark.parametrize("blocks", [(1, 1), (1, 2, 2, 2), (1, 2, 2, 4, 4)])
def test_the_residual_unet_is_monais(blocks):
    norm = ("instance", {"affine": True})
    theirs = SegResNetDS(3, init_filters=4, in_channels=2, out_channels=3, norm=norm, blocks_down=blocks)
    ours = ResidualUNet(2, 3, 4, blocks)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 2, 32, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-2, msg=name)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(EmimError, match="no backbone 'unet'"):
        build_segmenter(2, 3, NetworkConfig(backbone="unet"))


def test_building_a_network_does_not_import_monai():
    code = """
import sys
from emim.config import NetworkConfig
from emim.networks.build import build_segmenter

build_segmenter(2, 3, NetworkConfig(filters=4, blocks=(1, 1)))
assert "monai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
