"""The networks: the same as those they are modelled on, and found by name."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from monai.networks.nets.segresnet_ds import SegResNetDS

from emim.config import NetworkConfig
from emim.errors import EmimError
from emim.networks.build import build_segmenter
from emim.networks.convolution import Convolution
from emim.networks.instance_norm import InstanceNorm
from emim.networks.layout import memory_format
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
    ours, theirs = ours.double(), theirs.double()
    x = torch.randn(2, 2, 32, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-4, msg=name)


SHAPES = [
    (2, 3, 16, 16, 16),
    (1, 4, 5, 18, 33),
    (3, 2, 20, 16, 17),
    (1, 2, 1, 16, 16),
    (1, 40, 9, 40, 40),
    (2, 3, 4, 5, 6),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_convolution_is_the_plain_one(shape):
    torch.manual_seed(0)
    fast, plain = Convolution(shape[1], 5), torch.nn.Conv3d(shape[1], 5, 3, padding=1, bias=False).double()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(shape, requires_grad=True)
    y = x.detach().double().requires_grad_()
    a, b = fast(x), plain(y)
    assert "OnCpu" in type(a.grad_fn).__name__
    gradient = torch.randn_like(a)
    a.backward(gradient)
    b.backward(gradient.double())
    for mine, other in ((a, b), (x.grad, y.grad), (fast.weight.grad, plain.weight.grad)):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5 * float(other.detach().std()))


def test_the_fast_gradient_takes_permuted_memory_and_frozen_weights():
    torch.manual_seed(0)
    layer, x = Convolution(3, 4), torch.randn(2, 3, 6, 16, 16)
    layer(x).square().sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    layer(x.to(memory_format=torch.channels_last_3d)).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-3)
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", [(2, 5, 7, 8, 9), (1, 12, 4, 8, 16), (1, 2, 96, 96, 96)])
def test_normalisation_is_instance_normalisation(order, shape):
    torch.manual_seed(0)
    fast, exact = InstanceNorm(shape[1]), torch.nn.InstanceNorm3d(shape[1], affine=True).double()
    for parameter in fast.parameters():
        torch.nn.init.normal_(parameter)
    exact.load_state_dict(fast.state_dict())
    y = (3 + 2 * torch.randn(shape)).requires_grad_()
    x = y.detach().contiguous(memory_format=order).requires_grad_()
    a, b = fast(x), exact(y.double())
    for result in (a, b):
        result.pow(3).mean().backward()
    torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-3, atol=1e-3 * float(y.grad.std()))
    for mine, other in zip(fast.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-5)
    assert a.is_contiguous(memory_format=order) and x.grad.is_contiguous(memory_format=order)


def test_channels_last_trains_as_the_plain_order_does_and_stays_so():
    """On CPUs; down to a level of a single voxel."""
    torch.manual_seed(0)
    config = NetworkConfig(filters=5, blocks=(1, 1, 1, 1))
    plain, x = build_segmenter(2, 3, config), torch.randn(2, 2, 8, 8, 8)
    last = copy.deepcopy(plain).to(memory_format=memory_format(config, torch.device("cpu")))
    present = torch.ones(2, 2, dtype=torch.bool)
    expected, result = plain(x, present), last(x, present)
    assert last.encoder(x)[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
    for logits in (expected, result):
        logits.pow(3).mean().backward()
    for (name, a), b in zip(last.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-4, msg=name)
        assert a.ndim < 5 or a.grad.is_contiguous(memory_format=torch.channels_last_3d), name


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
