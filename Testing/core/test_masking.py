"""Mask patterns: realised ratios and the structure of each step, seen on the tensors."""

import numpy as np
import pytest
import torch

from emim.config import MaskConfig
from emim.masking.patterns import MODAL, PATCH, POSITION, VISIBLE, draw_mask, only_drops
from emim.masking.tokens import ModalityTokens
from emim.masking.units import from_units, to_units, to_voxels

ALL = np.ones(4, bool)


def draw(pattern, present=ALL, units=216, seed=0, **settings):
    return draw_mask(MaskConfig(pattern=pattern, **settings), present, units, np.random.default_rng(seed))


@pytest.mark.parametrize("pattern", ["hybrid", "random", "position", "patch", "m3ae", "dirichlet"])
@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.875])
@pytest.mark.parametrize("modalities", [1, 2, 4, 6])
def test_total_ratio_is_met(pattern, ratio, modalities):
    for seed in range(5):
        kinds = draw(pattern, np.ones(modalities, bool), seed=seed, ratio=ratio)
        assert abs((kinds != VISIBLE).mean() - ratio) < 0.015


def test_hybrid_has_the_three_steps():
    kinds = draw("hybrid", ratio=0.75, position_share=0.5)
    dropped = (kinds == MODAL).all(1)
    assert dropped.sum() == 1
    rest = kinds[~dropped]
    assert not (rest == MODAL).any()
    by_position = rest == POSITION
    assert (by_position == by_position[0]).all(), "position units are the same in every modality"
    assert by_position[0].sum() == np.ceil(0.5 * (0.75 - 0.25) / 0.75 * 216)
    by_patch = rest == PATCH
    assert (by_patch.sum(1) == by_patch[0].sum()).all()
    assert not (by_patch == by_patch[0]).all(), "patch units are drawn for each modality"
    assert not (by_patch & by_position).any()


def test_position_is_shared_and_patch_is_not():
    kinds = draw("position")
    assert set(np.unique(kinds)) == {VISIBLE, POSITION} and (kinds == kinds[0]).all()
    kinds = draw("patch")
    assert set(np.unique(kinds)) == {VISIBLE, PATCH} and not (kinds == kinds[0]).all()


def test_modal_drops_up_to_the_given_number():
    counts = {int((draw("modal", seed=s, max_dropped=3) == MODAL).all(1).sum()) for s in range(40)}
    assert counts == {1, 2, 3}
    assert (draw("modal", np.ones(1, bool)) == VISIBLE).all(), "a single modality is never dropped"


def test_hybrid_never_drops_more_than_the_ratio_allows():
    for seed in range(20):
        kinds = draw("hybrid", np.ones(2, bool), seed=seed, ratio=0.4)
        assert not (kinds == MODAL).any() and abs((kinds > 0).mean() - 0.4) < 0.02


@pytest.mark.parametrize(
    ("modalities", "ratio", "alone"), [(2, 0.5, True), (4, 0.25, True), (2, 0.75, False), (4, 0.5, False)]
)
def test_it_is_known_when_hybrid_masks_only_drop(modalities, ratio, alone):
    kinds = np.stack([draw("hybrid", np.ones(modalities, bool), seed=s, ratio=ratio) for s in range(20)])
    assert (set(np.unique(kinds)) == {VISIBLE, MODAL}) == alone
    assert only_drops(MaskConfig(pattern="hybrid", ratio=ratio), modalities) == alone
    assert not only_drops(MaskConfig(pattern="hybrid", ratio=ratio, max_dropped=0), modalities)
    assert not only_drops(MaskConfig(pattern="modal", ratio=ratio), modalities)


def test_m3ae_drops_any_number_of_modalities_and_keeps_its_total():
    numbers = []
    for seed in range(200):
        kinds = draw("m3ae", seed=seed, ratio=0.875)
        dropped = (kinds == MODAL).all(1)
        assert (kinds == VISIBLE).sum() == 4 * 216 // 8 and not (kinds[~dropped] == MODAL).any()
        numbers.append(int(dropped.sum()))
    assert set(numbers) == {0, 1, 2, 3} and 30 < numbers.count(3) < 70, "all numbers are alike likely"
    counts = (draw("m3ae", seed=numbers.index(0), ratio=0.875) == VISIBLE).sum(1)
    assert len(set(counts)) > 1, "units are drawn from all modalities together"


def test_m3ae_drops_no_more_than_the_ratio_leaves_room_for():
    dropped = {int((draw("m3ae", seed=s, ratio=0.6) == MODAL).all(1).sum()) for s in range(60)}
    assert dropped == {0, 1, 2}


def test_dirichlet_shares_what_is_visible_out_evenly_on_average_and_unevenly_each_time():
    shares = []
    for seed in range(400):
        kinds = draw("dirichlet", seed=seed, ratio=0.75)
        visible = (kinds == VISIBLE).sum(1)
        assert visible.sum() == 216 and ((visible == 0) == (kinds == MODAL).all(1)).all()
        shares.append(visible / 216)
    # The mean of each share is 1/4, its variance (1/4)(3/4)/5.
    assert np.abs(np.mean(shares, 0) - 0.25).max() < 0.04
    assert np.var(shares, 0) == pytest.approx(np.full(4, 0.0375), rel=0.3)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.99])
def test_dirichlet_keeps_its_total_where_a_modality_cannot_hold_its_share(ratio):
    for seed in range(50):
        for modalities in (1, 2, 4):
            kinds = draw("dirichlet", np.ones(modalities, bool), units=27, seed=seed, ratio=ratio)
            hidden = int(np.ceil(ratio * 27 * modalities - 1e-9))
            assert (kinds == VISIBLE).sum() == max(1, 27 * modalities - hidden)


def test_missing_modalities_are_left_alone():
    present = np.array([True, False, True, False])
    for seed in range(10):
        kinds = draw("hybrid", present, seed=seed)
        assert (kinds[~present] == VISIBLE).all()
        assert abs((kinds[present] > 0).mean() - 0.75) < 0.015
        assert (kinds[present] == VISIBLE).any()


def test_something_stays_visible_at_extreme_ratios():
    for pattern in ("hybrid", "position", "patch", "m3ae", "dirichlet"):
        for seed in range(10):
            assert (draw(pattern, units=8, seed=seed, ratio=0.99) == VISIBLE).any()


def test_masks_repeat_by_seed_and_differ_between_seeds():
    assert (draw("hybrid", seed=3) == draw("hybrid", seed=3)).all()
    assert not (draw("hybrid", seed=3) == draw("hybrid", seed=4)).all()


def test_units_and_voxels():
    volume = torch.arange(2 * 8 * 12 * 4.0).view(2, 8, 12, 4)
    units = to_units(volume, 4)
    assert units.shape == (2, 6, 64)
    assert torch.equal(units[1, 1].view(4, 4, 4), volume[1, 0:4, 4:8, 0:4])
    assert torch.equal(from_units(units, 4, (8, 12, 4)), volume)
    grid = torch.arange(6).view(2, 3, 1)
    assert torch.equal(to_units(to_voxels(grid, 4), 4), torch.arange(6)[:, None].expand(6, 64))


def test_tokens_replace_only_what_is_hidden():
    tokens = ModalityTokens(2)
    with torch.no_grad():
        tokens.value.copy_(torch.tensor([5.0, -7.0]))
    x = torch.randn(3, 2, 4, 4, 4)
    hidden = torch.rand_like(x) > 0.5
    y = tokens(x, hidden)
    assert torch.equal(y[~hidden], x[~hidden])
    assert (y[:, 0][hidden[:, 0]] == 5).all() and (y[:, 1][hidden[:, 1]] == -7).all()
    y = tokens(x, torch.tensor([[True, False]] * 3))
    assert (y[:, 0] == 5).all() and torch.equal(y[:, 1], x[:, 1])
