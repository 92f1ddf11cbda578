"""Classification networks of every backbone, and the probes."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from emim.config import ClassifierDesign, NetworkConfig, PretrainConfig
from emim.networks.build import build_classifier, build_pretrainer, build_segmenter
from emim.networks.classifier import Neighbours, Pooling
from emim.networks.rescale import match_fresh_scale
from emim.networks.transfer import transfer

NETWORKS = {
    "resunet": NetworkConfig(filters=4, blocks=(1, 1, 1)),
    "vit": NetworkConfig(backbone="vit", patch=8, width=24, depth=3, heads=2),
    "swin": NetworkConfig(backbone="swin", filters=16, stages=(1, 1)),
}
each_backbone = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def crops(count=2):
    x = torch.randn(count, 3, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, :, :4] = 0
    return x


@each_backbone
@pytest.mark.parametrize("pooling", ["attention", "average"])
def test_logits_do_not_depend_on_what_is_missing(network, pooling):
    torch.manual_seed(0)
    net = build_classifier(3, 4, network, ClassifierDesign(pooling)).eval()
    x, present = crops(), torch.tensor([[True, False, True], [True, True, True]])
    logits = net(x, present)
    assert logits.shape == (2, 4) and torch.isfinite(logits).all()
    other = x.clone()
    other[0, 1] = 7
    assert torch.equal(net(other, present)[0], logits[0])
    assert not torch.equal(net(other)[0], logits[0])


@each_backbone
def test_weights_of_pretraining_and_segmentation_fit(network):
    config = dataclasses.replace(PretrainConfig(), network=network)
    for source in (build_pretrainer(2, config), build_segmenter(2, 3, network)):
        net = build_classifier(2, 2, network, ClassifierDesign())
        state = source.state_dict()
        report = transfer(state, net, "ab", "ab", "x")
        assert not report.adapted
        assert all(not n.startswith(("encoder.", "tokens.")) for n in report.new)
        for name in report.loaded:
            wanted = state[name] if name in state else state["unet." + name]
            assert torch.equal(net.state_dict()[name], wanted)
        swapped = build_classifier(2, 2, network, ClassifierDesign())
        names = [n for n, _ in transfer(state, swapped, "ab", "ba", "x").adapted]
        assert set(names) == set(net.modality_axes)


def test_crops_together_are_as_one():
    torch.manual_seed(0)
    pool = Pooling(6, attention=True)
    torch.nn.init.normal_(pool.query)
    level = torch.randn(1, 6, 4, 4, 8)
    foreground = (torch.rand(1, 1, 4, 4, 8) > 0.3).float()
    whole, _ = pool(level, foreground)
    parts = [pool(level[..., a : a + 4], foreground[..., a : a + 4]) for a in (0, 4)]
    net = build_classifier(1, 2, NetworkConfig(backbone="vit", patch=8, width=6, heads=1), ClassifierDesign())
    means, masses = torch.cat([m for m, _ in parts]), torch.stack([m for _, m in parts])
    assert torch.allclose(net.combine(means, masses), whole, atol=1e-5)


def test_only_foreground_counts():
    pool = Pooling(3, attention=False)
    level = torch.randn(1, 3, 2, 2, 2)
    foreground = torch.zeros(1, 1, 4, 4, 4)
    foreground[..., :2, :2, :2] = 1
    mean, _ = pool(level, foreground)
    wanted = torch.nn.functional.layer_norm(level[0, :, 0, 0, 0], (3,))
    assert torch.allclose(mean[0], wanted, atol=1e-4)
    empty, mass = pool(level, torch.zeros_like(foreground))
    assert torch.isfinite(empty).all() and torch.isfinite(mass).all()


def test_neighbours_vote():
    head = Neighbours(2, 2, ClassifierDesign("average", neighbours=3, bank=4))
    head.features.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]))
    head.target.copy_(torch.tensor([0, 0, 1, 1]))
    p = head(torch.tensor([[2.0, 0.0], [0.0, 0.5]])).exp()
    assert torch.allclose(p.sum(1), torch.ones(2), atol=1e-5)
    assert p[0, 0] > 0.95 and p[1, 1] > 0.95
    # A class with more stored cases does not win where all are equally near.
    head.target.copy_(torch.tensor([0, 0, 0, 1]))
    head.features.copy_(torch.ones(4, 2))
    head.neighbours = 4
    assert head(torch.ones(1, 2)).exp()[0, 0] == pytest.approx(0.5, abs=0.01)


def test_features_are_standardised():
    net = build_classifier(1, 2, NETWORKS["resunet"], ClassifierDesign())
    features = torch.randn(9, sum(net.widths)) * torch.arange(1, sum(net.widths) + 1) + 5
    features[:, 0] = 3
    net.standardise(features, scale=False)
    assert torch.equal(net.centre, features.mean(0)) and (net.spread == 1).all()
    net.standardise(features, scale=True)
    scaled = (features - net.centre) / net.spread
    assert np.allclose(scaled.mean(0), 0, atol=1e-5) and np.allclose(scaled[:, -5:].std(0, correction=0), 1)
    assert not scaled[:, 0].any()


def test_weights_that_grew_get_the_scale_of_fresh_ones_and_say_the_same():
    torch.manual_seed(0)
    fresh = build_classifier(3, 2, NETWORKS["resunet"], ClassifierDesign())
    grown = copy.deepcopy(fresh)
    for weight in grown.encoder.parameters():
        weight.data *= 3.0 if weight.ndim > 1 else 1.0
    x, present = crops(), torch.ones(2, 3, dtype=torch.bool)
    before, _ = grown.summarise(x, present)
    factors = match_fresh_scale(grown, fresh, x, present)
    assert all(f < 0.4 for f in factors)
    with torch.no_grad():
        levels = zip(grown.pyramid(x, present), fresh.pyramid(x, present), strict=True)
        assert all(float(a.std()) == pytest.approx(float(b.std()), rel=0.01) for a, b in levels)
        torch.testing.assert_close(grown.summarise(x, present)[0], before.detach(), atol=0.01, rtol=0)
