"""Pre-trained weights in a network to fine-tune: what is taken, to which scale, at which rate."""

import copy
import json

import pytest
import torch

from emim.config import (
    NetworkConfig,
    PretrainConfig,
)
from emim.errors import Cancelled, EmimError
from emim.networks.pretrainer import MaskedAutoencoder
from emim.networks.rescale import match_fresh_scale, rates_by_size
from emim.networks.segmenter import Segmenter
from emim.networks.transfer import transfer
from emim.training.finetune import _with_content, finetune
from emim.training.pretrain import pretrain

NETWORK = NetworkConfig(filters=4, blocks=(1, 1, 1, 1))


def pretrained(modalities=2, network=NETWORK):
    torch.manual_seed(3)
    net = MaskedAutoencoder(modalities, PretrainConfig(network=network))
    with torch.no_grad():
        net.tokens.value.copy_(torch.arange(1.0, modalities + 1))
    return net


def test_transfer_takes_encoder_and_tokens():
    source, target = pretrained(), Segmenter(2, 3, NETWORK)
    report = transfer(source.state_dict(), target, ("T1", "T2"), ("T1", "T2"), "run")
    x = torch.randn(1, 2, 16, 16, 16)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    ours = target.unet.encoder(target.tokens(x, nothing))
    for a, b in zip(source.encode(x, nothing), ours, strict=True):
        assert torch.allclose(a, b)
    assert target.tokens.value.tolist() == [1, 2]
    assert not any("up_layers" in n for n in report.loaded)
    assert {n.split(".")[0] for n, _ in report.left_out} == {"head", "fine_head", "up_layers"}
    everything = {*report.loaded, *report.new}
    assert everything == set(target.state_dict())
    assert "new, at random" in report.text()


@pytest.mark.parametrize("growth", [1.0, 30.0])
def test_transferred_weights_get_the_scale_of_fresh_ones_and_compute_the_same(growth):
    source = pretrained()
    with torch.no_grad():
        for name, weight in source.named_parameters():
            if "conv" in name:
                weight *= growth
    torch.manual_seed(0)
    target = Segmenter(2, 3, NETWORK).eval()
    fresh = copy.deepcopy(target)
    x, present = torch.randn(2, 2, 32, 32, 32), torch.ones(2, 2, dtype=torch.bool)
    transfer(source.state_dict(), target, ("T1", "T2"), ("T1", "T2"), "run")
    before, logits = target.unet.encoder(x), target(x, present)
    factors = match_fresh_scale(target, fresh, x, present)
    after = target.unet.encoder(x)
    for a, b, factor in zip(before, after, factors, strict=True):
        assert torch.allclose(a * factor, b, atol=2e-3 * float(b.abs().max())), "the same but for the scale"
    wanted = [float(level.std()) for level in fresh.pyramid(x, present)]
    assert [float(level.std()) for level in after] == pytest.approx(wanted, rel=0.01)
    conv1 = target.unet.encoder.layers[2]["blocks"][0].conv1.weight
    assert float(conv1.norm()) == pytest.approx(
        float(fresh.unet.encoder.layers[2]["blocks"][0].conv1.weight.norm()), rel=1e-4
    )
    assert 0.4 < target(x, present).std() / fresh(x, present).std() < 2.5
    if growth > 1:
        assert logits.std() > 5 * fresh(x, present).std(), "without it the logits start far too large"


def test_crops_of_nothing_but_air_leave_the_scale():
    torch.manual_seed(0)
    fresh, target = Segmenter(2, 3, NETWORK).eval(), Segmenter(2, 3, NETWORK).eval()
    before = copy.deepcopy(target.unet.encoder.conv_init.weight)
    empty, present = torch.zeros(1, 2, 32, 32, 32), torch.ones(1, 2, dtype=torch.bool)
    factors = match_fresh_scale(target, fresh, empty, present)
    assert factors[0] == 1.0 and all(0 < f < float("inf") for f in factors)
    assert torch.equal(target.unet.encoder.conv_init.weight, before)


def test_the_scale_is_measured_on_crops_that_show_something():
    class Steps:
        def samples(self, step, few):
            image = torch.zeros(1, 2, 4, 4, 4)
            image[:, 0] = step > 0  # of a modality that is left out at step 1
            return {"input": image, "present": torch.tensor([[step != 1, True]])}

    assert _with_content(Steps(), range(1))["present"].all()
    assert _with_content(Steps(), range(1))["input"].any()


def test_rates_in_proportion_to_size():
    torch.manual_seed(0)
    fresh = Segmenter(2, 3, NETWORK)
    learned = copy.deepcopy(fresh)
    small, grown = "unet.encoder.conv_init.weight", "unet.encoder.layers.0.blocks.0.conv1.weight"
    with torch.no_grad():
        learned.get_parameter(small).mul_(0.06)
        learned.get_parameter(grown).mul_(5)
        learned.get_parameter("unet.encoder.layers.0.blocks.0.norm1.weight").mul_(0.1)
    named = [name for name, _ in learned.named_parameters()]
    assert rates_by_size(learned, fresh, [*named, "scale of the weights"]) == {small: 2**-4}


def test_all_that_was_transferred_learns_at_the_chosen_rate(
    phantoms, cache, tmp_path, small_pretrain, small_finetune, seen_rates
):
    pre = pretrain(phantoms, tmp_path / "pre", small_pretrain(train__steps=2), cache=cache)
    seen = seen_rates()
    config = small_finetune(transferred_rate=0.5)
    for resume in (False, True):  # which knows no more of the weights than transfer.json
        with pytest.raises(Cancelled):
            finetune(phantoms, tmp_path / "fine", pre, config, cache=cache, resume=resume)
    report = json.loads((tmp_path / "fine" / "transfer.json").read_text())
    assert report["rates"] == {} and seen[0] == seen[1]
    assert seen[0] == {name: 1.0 if name in report["new"] else 0.5 for name in seen[0]}


def test_transfer_arranges_modalities_by_name():
    source, target = pretrained(3), Segmenter(3, 2, NETWORK)
    report = transfer(source.state_dict(), target, ("T1", "T2", "FLAIR"), ("FLAIR", "T1", "ADC"), "run")
    old, new = source.encoder.conv_init.weight, target.unet.encoder.conv_init.weight
    assert torch.equal(new[:, 0], old[:, 2]) and torch.equal(new[:, 1], old[:, 0])
    assert torch.allclose(new[:, 2], old.mean(1))
    assert target.tokens.value.tolist() == [3, 1, 2]
    assert {n for n, _ in report.adapted} == set(target.modality_axes)
    report.rates = {"a": 0.5, "b": 2.0**-4}
    assert "2 tensors, at 1/16 of the rate or more" in report.text()


def test_a_mismatch_is_refused_and_changes_nothing():
    target = Segmenter(2, 3, NetworkConfig(filters=6, blocks=(1, 1, 1, 1)))
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(EmimError, match="do not fit"):
        transfer(pretrained().state_dict(), target, ("T1", "T2"), ("T1", "T2"), "run")
    deeper = Segmenter(2, 3, NetworkConfig(filters=4, blocks=(2, 1, 1, 1)))
    with pytest.raises(EmimError, match="lack"):
        transfer(pretrained().state_dict(), deeper, ("T1", "T2"), ("T1", "T2"), "run")
    with pytest.raises(EmimError, match="share no modality"):
        transfer(pretrained().state_dict(), Segmenter(2, 3, NETWORK), ("T1", "T2"), ("CT", "PET"), "run")
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())
