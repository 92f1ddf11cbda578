"""The contrastive baseline: its loss, its pairs of crops, what it trains, and what is said about it."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emim.config import PretrainConfig, override
from emim.errors import EmimError
from emim.networks.build import build_encoder
from emim.objectives.contrastive import alignment, chance, found, nt_xent, spread
from emim.objectives.verdict import judge
from emim.report.page import render
from emim.report.record import read_run
from emim.training.augmentation import for_contrast
from emim.training.contrast_model import ContrastModel
from emim.training.contrast_watch import ContrastWatch
from emim.training.estimate import estimate_pretraining
from emim.training.pretrain import pretrain
from emim.training.sampling import ContrastBatches
from emim.volumes.cached_case import Crop

NETWORKS = {
    "resunet": {},
    "vit": {"network__patch": 8, "network__width": 24, "network__depth": 3, "network__heads": 2},
    "swin": {"network__filters": 16, "network__stages": (2, 1)},
}


# ---- loss and gauges ----------------------------------------------------------------------------


def test_the_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    a, b = torch.randn(3, 5), torch.randn(3, 5)
    z = [F.normalize(v, dim=0) for v in (*a, *b)]
    terms = []
    for i in range(6):
        similar = [math.exp(float(z[i] @ z[k]) / 0.1) for k in range(6)]
        partner = (i + 3) % 6
        terms.append(-math.log(similar[partner] / (sum(similar) - similar[i])))
    assert float(nt_xent(a, b)) == pytest.approx(sum(terms) / 6, rel=1e-4)


def test_the_loss_tells_right_from_wrong_and_chance():
    z = torch.eye(4)
    assert nt_xent(z, z) < 0.01 and found(z, z) == 1 and alignment(z, z) == 0
    assert nt_xent(z, z.roll(1, 0)) > 5 and found(z, z.roll(1, 0)) == 0
    assert alignment(z, z.roll(1, 0)) == pytest.approx(2.0)
    alike = torch.ones(4, 3)
    assert float(nt_xent(alike, alike)) == pytest.approx(chance(4)) == pytest.approx(math.log(7))
    assert spread(alike) == 0 and float(spread(torch.eye(2))) == pytest.approx(-4.0)


# ---- pairs of crops -----------------------------------------------------------------------------


class Coordinates:
    """A case whose two modalities say which subject a voxel is of, and which voxel it is."""

    def __init__(self, subject, session=0, shape=(30, 34, 26)):
        self.id, self.subject, self.shape = f"{subject}-{session}", f"s{subject}", shape
        self.present = np.array([True, True])
        self.tissue = np.argwhere(np.ones([n // 2 for n in shape], bool)) + np.array(shape) // 4
        self.values = np.stack(
            [np.full(shape, subject + 1.0), np.arange(np.prod(shape), dtype=float).reshape(shape) + 1]
        ).astype(np.float32)

    def foreground_voxels(self):
        return self.tissue

    def crop(self, start, size):
        where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        return Crop(self.values[(slice(None), *where)], np.ones(size, bool), None)


@pytest.fixture
def batches(small_pretrain):
    cases = [Coordinates(s, j) for s in range(5) for j in range(2)]
    return ContrastBatches(cases, small_pretrain(train__batch=4, train__steps=30).train, None)


def test_pairs_are_of_different_subjects_and_overlap(batches):
    offsets = []
    for step in range(30):
        batch = batches[step]
        assert batch["input"].shape == (4, 2, 2, 16, 16, 16) and batch["foreground"].shape[1:3] == (2, 1)
        subjects = batch["input"][:, :, 0, 0, 0, 0]
        assert (subjects[:, 0] == subjects[:, 1]).all() and len(set(subjects[:, 0].tolist())) == 4
        for one, other in batch["input"][:, :, 1]:
            overlap = np.intersect1d(one.numpy(), other.numpy()).size
            assert overlap >= 8**3, "half along each axis or more"
            offsets.append(overlap < 16**3)
    assert np.mean(offsets) > 0.8, "and they differ"


def test_pairs_repeat_by_step_and_ranks_prepare_their_own(batches):
    everyone = range(batches.train.batch)
    whole, again = batches.samples(7, everyone), batches.samples(7, everyone)
    part = batches.samples(7, range(1, 3))
    for name, value in whole.items():
        assert torch.equal(value, again[name]) and torch.equal(value[1:3], part[name])
    assert not torch.equal(whole["input"], batches.samples(8, everyone)["input"])


def test_the_crops_of_a_pair_are_augmented_apart():
    augmentation = for_contrast((1.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    image = torch.rand(2, 12, 12, 12) + 1
    image[:, :4] = 0
    view = {"input": image, "foreground": (image[:1] > 0)}
    changed = [augmentation(view, rng) for _ in range(2)]
    assert not torch.equal(changed[0]["input"], changed[1]["input"])
    for c in changed:
        assert c["foreground"].dtype == torch.bool and c["foreground"].any()
        assert c["input"].shape == image.shape and torch.isfinite(c["input"]).all()
    assert torch.equal(view["input"], image)


# ---- the model ----------------------------------------------------------------------------------


def make_batch(samples=4, modalities=3, side=16):
    torch.manual_seed(1)
    base = torch.randn(samples, 1, modalities, side, side, side)
    present = torch.ones(samples, modalities, dtype=torch.bool)
    present[0, -1] = False
    return {
        "input": base + 0.3 * torch.randn(samples, 2, modalities, side, side, side),
        "foreground": torch.ones(samples, 2, 1, side, side, side, dtype=torch.bool),
        "present": present,
    }


@pytest.mark.parametrize("backbone", NETWORKS)
def test_it_learns_to_tell_samples_apart_with_every_weight(backbone, small_pretrain):
    config = small_pretrain(objective="contrastive", network__backbone=backbone, **NETWORKS[backbone])
    torch.manual_seed(0)
    model, batch = ContrastModel(3, config), make_batch()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss, values = model(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and values["found"] == 1


def test_air_and_missing_modalities_have_no_say(small_pretrain):
    model = ContrastModel(3, small_pretrain(objective="contrastive")).eval()
    batch = make_batch()
    changed = {k: v.clone() for k, v in batch.items()}
    changed["input"][0, :, -1] = 7.0
    for a, b in zip(model.project(batch), model.project(changed), strict=True):
        torch.testing.assert_close(a, b)
    batch["foreground"][:, :, :, :8] = False
    seen = []
    model.projector.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.project(batch)
    features = model.network.encode(batch["input"][:, 0], ~batch["present"])[-1]
    torch.testing.assert_close(seen[0][:4], features[:, :, 2:].mean((2, 3, 4)))


@pytest.mark.parametrize("backbone", NETWORKS)
def test_only_what_encodes_is_there(backbone, small_pretrain):
    config = small_pretrain(objective="contrastive", network__backbone=backbone, **NETWORKS[backbone])
    names = {n.split(".")[0] for n, _ in build_encoder(3, config).named_parameters()}
    assert names <= {"encoder", "tokens"} and "encoder" in names


def test_one_sample_at_once_is_refused(small_pretrain):
    model = ContrastModel(3, small_pretrain(objective="contrastive"))
    with pytest.raises(EmimError, match="one sample"):
        model({k: v[:1] for k, v in make_batch().items()}, 0)


def test_one_sample_on_each_of_several_ranks_can_be_tried_out(small_pretrain, monkeypatch):
    """Memory is tried by each rank alone; in training the others add their samples."""
    monkeypatch.setattr("emim.training.contrast_model.launched_size", lambda: 2)
    model = ContrastModel(3, small_pretrain(objective="contrastive"))
    loss, _ = model({k: v[:1] for k, v in make_batch().items()}, 0)
    loss.backward()
    assert float(loss.detach()) == 0 and all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "settings", [{"train.batch": 1}, {"train.micro_batch": 1}, {"train.micro_batch": 2, "train.batch": 5}]
)
def test_a_batch_with_nothing_to_compare_is_refused(settings, tmp_path):
    config = override(PretrainConfig(objective="contrastive"), settings)
    with pytest.raises(EmimError, match=next(iter(settings))):
        pretrain("/no/such/cohort", tmp_path / "run", config)


def test_a_batch_of_more_subjects_than_there_are_is_refused(phantoms, tmp_path, small_pretrain):
    config = small_pretrain(objective="contrastive", train__batch=7)
    with pytest.raises(EmimError, match="train.batch") as refused:
        pretrain(phantoms, tmp_path / "run", config)
    assert "6" in refused.value.hint and not (tmp_path / "run").exists()


# ---- what is said about a run -------------------------------------------------------------------


def validation(loss, ranks=(0.6, 0.5)):
    return {"contrastive": loss, "chance": 1.1, "rank_ratio": list(ranks)}


@pytest.mark.parametrize(
    ("values", "state", "word"),
    [
        (validation(0.3), "healthy", "1.100 would be chance"),
        (validation(0.3, (0.6, 0.02)), "dimensional collapse", "level 2"),
        (validation(None, (0.0, 0.0)), "dimensional collapse", "level 1"),
        (validation(1.09), "undecided", "does not tell subjects apart"),
        (validation(None), "undecided", "no validation loss"),
    ],
)
def test_verdicts_speak_of_rank_and_contrast_only(values, state, word):
    verdict = judge([values] * 20, {})
    said = " ".join((*verdict.why, *verdict.advice))
    assert verdict.state == state and word in said
    assert not any(w in said for w in ("L_c", "output", "mask", "Barlow", "nan"))


def test_a_run_claims_no_reconstruction(phantoms, cache, tmp_path, small_pretrain):
    config = small_pretrain(objective="contrastive", train__validation_share=0.4, train__steps=4)
    run = pretrain(phantoms, tmp_path / "run", config, cache=cache)
    assert not (run / "collapse_lines.json").exists() and not (run / "preview").exists()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    kinds = {e["type"] for e in events}
    assert "preview" not in kinds and "warning" not in kinds
    measured = [e for e in events if e["type"] == "metric" and e["split"] == "validation"]
    for event in measured:
        assert event["contrastive"] > 0 and event["chance"] == pytest.approx(math.log(3))
        assert len(event["rank_ratio"]) == 3 and "reconstruction" not in event
    assert "contrastive" in next(e for e in events if e["type"] == "metric" and e["split"] == "train")
    page = render(read_run(run))
    assert "Contrastive loss" in page and "Partners found" in page and "Effective rank" in page
    body = page[: page.index('id="cohort"')]
    for word in ("econstruct", "Output variance", "mask", "<i>L</i>"):
        assert word not in body, word


def test_validation_without_two_subjects_has_gauges_and_no_loss(small_pretrain):
    config = small_pretrain(objective="contrastive", preprocess__spacing=(1.0, 1.0, 1.0))
    watch = ContrastWatch(config, [Coordinates(s) for s in range(3)], [Coordinates(9)])
    values = watch.measure(ContrastModel(2, config).eval(), torch.device("cpu"))
    assert values["contrastive"] is None and values["chance"] is None and len(values["rank_ratio"]) == 3
    assert watch.units == 4


def test_its_cost_can_be_estimated(phantoms, tmp_path, cache, small_pretrain):
    config = small_pretrain(objective="contrastive", train__batch=4)
    estimate = estimate_pretraining(phantoms, config, out=tmp_path / "run", cache=cache)
    assert estimate.seconds > 0 and estimate.validations == 3 and not (tmp_path / "run").exists()
