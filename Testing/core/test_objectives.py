"""Losses, collapse lines and gauges against independent computations."""

import numpy as np
import pytest
import torch

from emim.config import RegulariserConfig
from emim.objectives.barlow import barlow_loss
from emim.objectives.collapse_lines import collapse_lines
from emim.objectives.gauges import effective_rank, mean_correlation, output_variance, uniformity
from emim.objectives.observations import cell_observations
from emim.objectives.reconstruction import masked_mean, measured, normalise_units, voxel_error
from emim.objectives.regulariser import Projector, Regulariser, uniformity_loss, vicreg_loss


def barlow_by_hand(a, b):
    """Float64, element by element."""
    a, b = a.double().numpy(), b.double().numpy()
    n, d = a.shape
    total = 0.0
    for i in range(d):
        for j in range(d):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            c = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
            total += (1 - c) ** 2 if i == j else 0.0051 * c**2
    return total / d


def test_barlow_loss_matches_a_float64_reference():
    torch.manual_seed(0)
    a, b = torch.randn(40, 7), torch.randn(40, 7)
    assert float(barlow_loss(a, b)) == pytest.approx(barlow_by_hand(a, b), rel=1e-5)
    same = float(barlow_loss(a, 3 * a + 1))
    off = np.corrcoef(a.double().numpy().T) ** 2
    assert same == pytest.approx(0.0051 * (off.sum() - 7) / 7, rel=1e-4), "scale and shift do not matter"


def test_barlow_loss_of_too_little_is_zero_and_differentiable():
    a = torch.randn(1, 5, requires_grad=True)
    barlow_loss(a, a).backward()
    assert (a.grad == 0).all()


def test_weighted_losses_are_those_of_the_rows_picked_out():
    torch.manual_seed(0)
    rows, keep = torch.randn(2, 50, 6), torch.rand(50) > 0.4
    projector = Projector(6, 5)
    for loss in (barlow_loss, vicreg_loss, lambda a, b, w=None: uniformity_loss(a, w)):
        results = []
        for a, b, weight in (
            (*rows[:, keep], torch.ones(int(keep.sum()))),
            (*torch.where(keep[:, None], rows, 7 * rows), keep.float()),
        ):
            a.requires_grad_()
            value = loss(projector(a, weight), projector(b, weight), weight)
            results.append((value, torch.autograd.grad(value, a)[0]))
        (picked, gradient), (weighed, weighted) = results
        torch.testing.assert_close(weighed, picked, rtol=1e-5, atol=0)
        torch.testing.assert_close(weighted[keep], gradient, rtol=1e-3, atol=1e-6)
        assert not weighted[~keep].any()


@pytest.mark.parametrize("name", ["barlow", "vicreg", "uniformity"])
def test_empty_crops_have_no_penalty_and_no_gradient(name):
    torch.manual_seed(0)
    regulariser = Regulariser(RegulariserConfig(name=name, width=8, cells=2), (3, 4))
    features = [torch.randn(2, 3, 4, 4, 4), torch.randn(2, 4, 2, 2, 2, requires_grad=True)]
    foreground = torch.zeros(2, 1, 8, 8, 8, dtype=torch.bool)
    loss = regulariser(features, features if regulariser.compares_views else None, foreground)
    loss.backward()
    assert loss == 0 and features[1].grad is not None and not features[1].grad.any()


def test_masked_loss_ignores_everything_else():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4)
    where = torch.rand(2, 3, 4, 4, 4) > 0.6
    expected = ((prediction - target)[where] ** 2).mean()
    assert torch.allclose(masked_mean(voxel_error(prediction, target), where), expected)
    other = torch.where(where, target, torch.tensor(1e9))
    assert torch.allclose(masked_mean(voxel_error(prediction, other), where), expected)
    l1 = (prediction - target)[where].abs().mean()
    assert torch.allclose(masked_mean(voxel_error(prediction, target, "l1"), where), l1)


def test_normalised_targets_have_unit_statistics_over_foreground():
    torch.manual_seed(0)
    target = 3 + 2 * torch.randn(1, 2, 8, 8, 8)
    foreground = torch.rand(1, 1, 8, 8, 8) > 0.3
    unit = normalise_units(target, measured(target, foreground), 4)[0, 1, :4, 4:, :4][
        foreground[0, 0, :4, 4:, :4]
    ]
    assert abs(unit.mean()) < 1e-4 and abs(unit.var(unbiased=False) - 1) < 1e-3


def test_collapse_lines_match_brute_force():
    rng = np.random.default_rng(0)
    n, m, side, unit = 5, 2, 4, 2
    x = rng.normal(size=(n, m, side, side, side)) + rng.normal(size=(1, m, side, side, side)) * 2
    w = (rng.random((n, m, side, side, side)) < 0.7).astype(float) * rng.integers(1, 4, (n, 1, 1, 1, 1))
    lines = collapse_lines(((torch.tensor(a), torch.tensor(b)) for a, b in zip(x, w, strict=True)), unit)

    def weighted_error(groups):
        """Smallest weighted squared error with one constant for each group of elements."""
        error = 0.0
        for g in np.unique(groups):
            here = (groups == g) & (w > 0)
            if here.any():
                mean = np.average(x[here], weights=w[here])
                error += (w[here] * (x[here] - mean) ** 2).sum()
        return error / w.sum()

    zyx = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    offset = np.broadcast_to((zyx % unit * np.array([4, 2, 1])[:, None, None, None]).sum(0), x.shape)
    assert lines["L_a"] == pytest.approx(weighted_error(np.zeros(x.shape)))
    assert lines["L_b"] == pytest.approx(weighted_error(offset))

    numerator = denominator = unseen = 0.0
    for voxel in np.ndindex(x.shape[1:]):
        values, weights = x[(slice(None), *voxel)], w[(slice(None), *voxel)]
        count = (weights > 0).sum()
        if count > 1:
            mean = np.average(values, weights=weights)
            error = (weights * (values - mean) ** 2).sum()
            numerator += error
            unseen += error * count / (count - 1)
            denominator += weights.sum()
    assert lines["L_c"] == pytest.approx(numerator / denominator)
    assert lines["L_c_unseen"] == pytest.approx(unseen / denominator)
    assert lines["L_c"] < lines["L_b"] < lines["L_a"]


def test_unseen_line_is_what_the_perfect_template_costs_on_new_subjects():
    rng = np.random.default_rng(1)
    anatomy = rng.normal(size=(1, 1, 16, 16, 16))
    x = anatomy + rng.normal(size=(6, 1, 16, 16, 16))
    lines = collapse_lines([(torch.tensor(a), torch.ones(a.shape)) for a in x], 4)
    new = anatomy + rng.normal(size=(50, 1, 16, 16, 16))
    assert lines["L_c_unseen"] == pytest.approx(((new - anatomy) ** 2).mean(), rel=0.05)


def test_effective_rank():
    torch.manual_seed(0)
    assert effective_rank(torch.ones(50, 8)) == 0
    line = torch.randn(50, 1) @ torch.randn(1, 8)
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    q, _ = torch.linalg.qr(torch.randn(50, 8))
    q = q - q.mean(0)
    assert 7.5 < effective_rank(q) <= 8
    assert effective_rank(torch.randn(2000, 8)) > 7.9


def test_uniformity_and_correlation():
    torch.manual_seed(0)
    line = torch.randn(50, 1) @ torch.randn(1, 8)
    assert uniformity(line) == pytest.approx(1) and mean_correlation(line) == pytest.approx(1)
    spread = torch.randn(3000, 8)
    assert uniformity(spread) == pytest.approx(1 / 8, abs=0.01)
    assert mean_correlation(spread) < 0.05


def test_output_variance():
    torch.manual_seed(0)
    target = torch.randn(6, 2, 4, 4, 4)
    where = torch.rand_like(target) > 0.3
    assert output_variance(target, target, where) == pytest.approx(1)
    assert output_variance(0.5 * target, target, where) == pytest.approx(0.25, rel=1e-5)
    assert output_variance(target[:1].expand_as(target), target, where) == pytest.approx(0, abs=1e-12)
    assert np.isnan(output_variance(target[:1], target[:1], where[:1]))


def test_observations_are_foreground_cells():
    features = torch.arange(8.0).view(1, 1, 2, 2, 2)
    foreground = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    foreground[..., 2:] = True  # the right half
    rows, weight = cell_observations(features, foreground, 2)
    assert rows.flatten().tolist() == list(range(8))
    assert rows[weight > 0].flatten().tolist() == [1, 3, 5, 7]
    rows, weight = cell_observations(features[..., :1], foreground[..., 2:], 2)
    assert rows.flatten().tolist() == [0, 2, 4, 6] and weight.all(), "one cell along an axis of one voxel"


@pytest.mark.parametrize("name", ["barlow", "vicreg", "uniformity"])
def test_regulariser_lowers_what_it_penalises(name):
    """A few steps on the features themselves must spread a nearly flat pyramid."""
    torch.manual_seed(0)
    config = RegulariserConfig(name=name, width=32, cells=2)
    regulariser = Regulariser(config, (4, 8))
    base = torch.randn(16, 1, 4, 4, 4) * torch.randn(1, 8, 1, 1, 1)
    features = torch.nn.Parameter(base + 0.05 * torch.randn(16, 8, 4, 4, 4))
    foreground = torch.ones(16, 1, 8, 8, 8, dtype=torch.bool)
    optimiser = torch.optim.Adam([features, *regulariser.parameters()], lr=0.05)

    def loss():
        masked = [features, features]
        other = [features * 1.0, features * 1.0] if regulariser.compares_views else None
        return regulariser(masked, other, foreground)

    before = loss().item()
    rank = effective_rank(cell_observations(features.detach(), foreground, 2)[0])
    for _ in range(60):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < before
    if name != "barlow":  # Barlow decorrelates the projector's output, not the features directly
        assert effective_rank(cell_observations(features.detach(), foreground, 2)[0]) > rank


def test_uniformity_and_vicreg_formulas():
    f = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    assert float(uniformity_loss(f)) == pytest.approx(0.5)
    torch.manual_seed(0)
    z = torch.randn(2000, 4) * 2
    assert float(vicreg_loss(z, z)) < 0.01, "no penalty when decorrelated, spread and equal"
    assert float(vicreg_loss(z * 0, z * 0)) == pytest.approx(2 * 0.5 * (1 - 0.01), rel=1e-3)
