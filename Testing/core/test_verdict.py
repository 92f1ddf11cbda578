"""The verdict on a run: from numbers, and from real short trainings, one broken on purpose."""

import json

import pytest
import torch
from torch import nn

from emim.masking.units import from_units, to_units
from emim.networks.build import BACKBONES
from emim.objectives.gauges import effective_rank, rank_ratio
from emim.objectives.verdict import judge
from emim.training.pretrain import pretrain

LINES = {"L_a": 0.99, "L_b": 0.98, "L_c": 0.65, "L_c_unseen": 0.7}


def validation(loss, variance, ranks=(0.6, 0.5)):
    return {"reconstruction": loss, "output_variance": variance, "rank_ratio": list(ranks)}


@pytest.mark.parametrize(
    ("values", "state", "word"),
    [
        (validation(0.5, 0.4), "healthy", "0.71 times"),
        (validation(0.98, 0.001), "complete collapse", "L_b"),
        (validation(0.70, 0.005), "complete collapse", "L_c"),
        (validation(0.5, 0.4, (0.6, 0.03)), "dimensional collapse", "level 2"),
        (validation(0.69, 0.3), "undecided", "not clearly below"),
        (validation(1.5, 0.001), "undecided", "above every collapse line"),
        (validation(None, 0.3), "undecided", "no validation loss"),
        (validation(0.5, None), "undecided", "Too few subjects"),
    ],
)
def test_verdicts(values, state, word):
    verdict = judge([values] * 20, LINES)
    assert verdict.state == state and any(word in w for w in verdict.why), verdict
    assert verdict.advice or state == "healthy"


def test_one_training_subject_tells_nothing_of_average_anatomy():
    lines = {"L_a": 0.99, "L_b": 0.98, "L_c": float("nan"), "L_c_unseen": float("nan")}
    verdict = judge([validation(0.5, 0.4)] * 20, lines)
    assert verdict.state == "undecided" and "too few subjects train" in verdict.why[0]
    assert "nan" not in " ".join(verdict.why) and verdict.advice == ("Give more subjects.",)


@pytest.mark.parametrize("width", [4, 8, 64])
def test_flat_features_count_as_collapsed_at_every_width(width):
    torch.manual_seed(0)
    flat = torch.randn(500, 1) @ torch.randn(1, width) + 1e-3 * torch.randn(500, width)
    ratio = rank_ratio(effective_rank(flat), flat.shape)
    assert judge([validation(0.5, 0.4, (0.6, ratio))], LINES).state == "dimensional collapse"
    full = torch.randn(500, width)
    assert rank_ratio(effective_rank(full), full.shape) > 0.9


def test_an_early_run_is_not_judged():
    assert judge([validation(0.98, 0.001)], LINES, progress=0.1).state == "undecided"
    assert judge([], LINES).state == "undecided"


class WithoutPositions(nn.Module):
    """SimMIM on a transformer whose mask tokens carry no position: frozen zeros, as published once."""

    def __init__(self, modalities, config):
        super().__init__()
        self.unit, width = 8, 32
        self.embed = nn.Linear(modalities * self.unit**3, width)
        self.token = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, modalities * self.unit**3)
        self.modalities = modalities

    def encode(self, x, hidden):
        if hidden.ndim == 2:
            hidden = hidden[:, :, None, None, None].expand_as(x)
        units = to_units(x, self.unit).transpose(1, 2).flatten(2)
        masked = to_units(hidden.float(), self.unit).mean(-1).transpose(1, 2).amax(-1, keepdim=True) > 0
        tokens = self.blocks(torch.where(masked, self.token, self.embed(units)))
        side = round(tokens.shape[1] ** (1 / 3))
        return [tokens.transpose(1, 2).unflatten(2, (side, side, side))]

    def forward(self, x, hidden):
        features = self.encode(x, hidden)
        tokens = features[0].flatten(2).transpose(1, 2)
        units = self.head(tokens).unflatten(2, (self.modalities, self.unit**3)).transpose(1, 2)
        return from_units(units, self.unit, tuple(x.shape[-3:])), features


def state_of(run):
    return json.loads((run / "report" / "verdict.json").read_text())


def test_a_broken_configuration_is_recognised_as_collapsed(
    phantoms, cache, tmp_path, small_pretrain, monkeypatch
):
    broken = BACKBONES["resunet"]._replace(pretrainer=f"{__name__}:WithoutPositions")
    monkeypatch.setitem(BACKBONES, "without-positions", broken)
    config = small_pretrain(
        network__backbone="without-positions",
        mask__pattern="position",
        regulariser__name="none",
        train__crop=32,
        train__steps=80,
        train__validate_every=20,
    )
    run = pretrain(phantoms, tmp_path / "broken", config, cache=cache)
    verdict = state_of(run)
    assert verdict["state"] == "complete collapse", verdict
    assert "no longer depends on the input" in verdict["why"][0] and "collapse line" in verdict["why"][1]


def test_a_healthy_configuration_is_not(phantoms, cache, tmp_path, small_pretrain):
    config = small_pretrain(
        network__filters=8,
        train__crop=32,
        train__steps=200,
        train__validate_every=50,
        train__learning_rate=3e-3,
    )
    verdict = state_of(pretrain(phantoms, tmp_path / "healthy", config, cache=cache))
    assert verdict["state"] == "healthy", verdict
