"""Tiles: MONAI's answer where both compute the same tiles, also where some are left out."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.errors import EmimError
from emim.inference.predict import predict_case
from emim.inference.quality import QUALITIES, Effort
from emim.inference.sliding import Window, _groups, count_tiles, slide
from emim.inference.tiles import gaussian_window, grid_starts, plan_tiles
from emim.machine.device import mixed_precision
from emim.networks.build import build_segmenter
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.preprocess import PreparedCase

SIDE = 16
CARD = ModelCard(
    name="tiles",
    modalities=("T1", "T2"),
    structures=(Structure("A", (1,), 1, (255, 0, 0)), Structure("B", (2,), 2, (0, 255, 0))),
    overlapping=False,
    preprocess=PreprocessConfig(spacing=(1, 1, 1)),
    network=NetworkConfig(filters=4, blocks=(1, 1)),
    crop=SIDE,
)


def case(shape, foreground=None):
    rng = np.random.default_rng(0)
    foreground = np.ones(shape, bool) if foreground is None else foreground
    image = rng.standard_normal((2, *shape)).astype(np.float32) * foreground
    grid = Grid(shape[::-1], (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return PreparedCase(image, np.array([True, True]), foreground, None, grid, "")


def network(card=CARD):
    torch.manual_seed(0)
    net = build_segmenter(2, card.outputs, card.network).eval()
    for parameter in net.parameters():  # strong enough that neighbouring tiles differ
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def monai(net, prepared, overlap, overlapping=False):
    def answer(x):
        logits = net(x, torch.ones(len(x), 2, dtype=torch.bool))
        return logits.sigmoid() if overlapping else logits.softmax(1)

    image = torch.from_numpy(prepared.image)[None]
    with torch.inference_mode():
        return sliding_window_inference(image, SIDE, 1, answer, overlap, mode="gaussian")[0].numpy()


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(
    ("shape", "overlap"),
    [((32, 24, 40), 0.5), ((16, 28, 40), 0.25), ((32, 32, 16), 0.0), ((10, 16, 13), 0.5)],
)
def test_same_as_monai_where_the_tiles_are_the_same(shape, overlap, overlapping):
    card = dataclasses.replace(CARD, overlapping=overlapping)
    net, prepared = network(card), case(shape)
    ours = predict_case(net, prepared, card, torch.device("cpu"), Effort(overlap))
    theirs = monai(net, prepared, overlap, overlapping)
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=5e-4)


def test_window_is_monais():
    from monai.data.utils import compute_importance_map

    for side in (16, 48):
        theirs = compute_importance_map((side,) * 3, mode="gaussian", sigma_scale=0.125).numpy()
        np.testing.assert_allclose(gaussian_window(side), theirs, rtol=1e-4)


@pytest.mark.parametrize("shape", [(17, 30, 50), (16, 16, 16), (96, 33, 47)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
def test_tiles_reach_every_voxel_with_the_overlap_asked_for(shape, overlap):
    starts = grid_starts(shape, SIDE, overlap)
    for axis, length in enumerate(shape):
        along = sorted({s[axis] for s in starts})
        assert along[0] == 0 and along[-1] == length - SIDE
        assert max(np.diff(along), default=0) <= SIDE * (1 - overlap) + 1


def test_tiles_beside_the_patient_are_left_out_and_change_nothing_in_him():
    shape = (64, 56, 56)
    foreground = np.zeros(shape, bool)
    foreground[20:50, :30, 10:50] = foreground[40:64, 40:56, :10] = True
    prepared = case(shape, foreground)
    tiling = plan_tiles(foreground, SIDE, 0.5)
    assert len(tiling.starts) < 0.8 * len(grid_starts(shape, SIDE, 0.5))
    assert count_tiles(foreground, SIDE, 0.5) == len(tiling.starts)
    net = network()
    ours = predict_case(net, prepared, CARD, torch.device("cpu"))
    theirs = monai(net, prepared, 0.5)
    np.testing.assert_allclose(ours[:, foreground], theirs[:, foreground], atol=5e-4)


def test_a_volume_without_a_patient_is_background():
    nothing = np.zeros((24, 24, 24), bool)
    assert plan_tiles(nothing, SIDE, 0.5).starts == []
    result = predict_case(network(), case((24, 24, 24), nothing), CARD, torch.device("cpu"))
    assert result[0].min() == 1 and result[1:].max() == 0


@pytest.mark.parametrize("filters", [4, 16])
def test_batches_and_memory_order_do_not_matter(monkeypatch, filters):
    card = dataclasses.replace(CARD, network=NetworkConfig(filters=filters, blocks=(1, 1)))
    net, prepared = network(card), case((32, 24, 24))
    results = []
    for at_once in (1, 2, 3):
        monkeypatch.setattr("emim.inference.sliding.TILES_AT_ONCE", {"cpu": at_once})
        results.append(predict_case(net, prepared, card, torch.device("cpu")))
    plain = torch.contiguous_format
    monkeypatch.setattr("emim.inference.predict.memory_format", lambda card, device: plain)
    results.append(predict_case(net, prepared, card, torch.device("cpu")))
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, atol=5e-4)


def test_what_half_precision_cannot_hold_is_computed_again(monkeypatch):
    """On GPUs without bfloat16; the CPU's autocast stands in."""
    asked = []

    def compute(tiles, present):
        asked.append(torch.is_autocast_enabled("cpu"))
        return tiles[:, :1] * (math.inf if asked[-1] else 1)

    monkeypatch.setattr("emim.inference.sliding.mixed_precision", lambda device: torch.float16)
    prepared = case((24, 24, 24))
    window = Window(SIDE, 0.0, torch.device("cpu"))
    given = (prepared.image, prepared.present, prepared.foreground, 1, window)
    found, _ = slide(compute, *given)
    np.testing.assert_allclose(found[0], prepared.image[0], rtol=1e-6)
    assert asked[0] and not asked[-1]
    monkeypatch.setattr("emim.inference.sliding.mixed_precision", lambda device: torch.bfloat16)
    with pytest.raises(EmimError, match="not finite"):
        slide(compute, *given)


@pytest.mark.parametrize(
    "capability, precision", [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)]
)
def test_no_bfloat16_where_it_is_emulated(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert mixed_precision(torch.device("cuda", 0)) is precision
    assert mixed_precision(torch.device("cpu")) is None


def test_a_better_quality_is_more_work():
    inside = np.ones((40, 30, 20), bool)
    tiles = [count_tiles(inside, SIDE, q.overlap) * (1 + q.mirror) for q in QUALITIES.values()]
    assert list(QUALITIES) == ["fast", "balanced", "best"] and tiles == sorted(set(tiles))


def test_only_on_a_cpu_no_tile_is_alone():
    starts = [(i, 0, 0) for i in range(11)]
    assert [len(g) for g in _groups(starts, 2, never_alone=True)] == [2, 2, 2, 2, 3]
    assert [len(g) for g in _groups(starts, 4, never_alone=False)] == [4, 4, 3]
    assert [len(g) for g in _groups(starts[:3], 4, never_alone=False)] == [3]
    assert _groups([], 4, never_alone=False) == _groups([], 2, never_alone=True) == []


def test_tiles_are_waited_for_but_on_their_way_to_nvidias_gpus(monkeypatch):
    """Apple's read them later, when their memory may be another's."""
    asked, to = [], torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: (asked.append(k.get("non_blocking")), to(self, *a, **k))[1]
    )
    prepared = case((24, 24, 24))
    given = (prepared.image, prepared.present, prepared.foreground, 1, Window(SIDE, 0.0, torch.device("cpu")))
    slide(lambda tiles, present: tiles[:, :1], *given)
    assert asked and not any(asked)


def test_memory_of_apples_gpus_that_does_not_suffice_is_told_as_such():
    def compute(tiles, present):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 7.64 GiB, max allowed: 8 GiB).")

    prepared = case((16, 16, 16))
    given = (prepared.image, prepared.present, prepared.foreground, 1, Window(SIDE, 0.0, torch.device("cpu")))
    with pytest.raises(EmimError, match="does not suffice for one tile"):
        slide(compute, *given)
