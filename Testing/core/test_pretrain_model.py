"""The loss of a pre-training batch: decoders, views, and what a GPU must not be asked."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from emim.errors import EmimError
from emim.masking.units import from_units
from emim.networks.pretrainer import MaskedAutoencoder, Readout
from emim.networks.segmenter import Segmenter
from emim.networks.transfer import transfer
from emim.objectives.half_view import half_at
from emim.training.preflight import check_pretraining
from emim.training.pretrain_model import PretrainModel

DECODERS = ("linear", "light", "deep")
BLOCKS = (1, 1, 1, 1)


@pytest.fixture
def settings(small_pretrain):
    def make(**changes):
        return small_pretrain(network__blocks=BLOCKS, train__steps=1, train__warmup=0.0, **changes)

    return make


def make_batch(config, seed=0, batch=2, modalities=3):
    generator = torch.Generator().manual_seed(seed)
    side, grid = config.train.crop, (config.train.crop // config.mask.unit,) * 3
    x = torch.randn(batch, modalities, side, side, side, generator=generator)
    present = torch.ones(batch, modalities, dtype=torch.bool)
    present[0, -1] = False
    return {
        "input": x,
        "target": 0.9 * x,
        "foreground": torch.rand(batch, 1, side, side, side, generator=generator) > 0.2,
        "present": present,
        "kinds": torch.randint(0, 4, (batch, modalities, *grid), generator=generator).to(torch.int8),
    }


def test_what_a_modality_did_not_measure_is_not_scored(settings):
    """Its voxels are exactly 0 inside the foreground of the others: its field of view is smaller."""
    config = settings(regulariser__name="none", normalise_targets=True)
    model, data = PretrainModel(3, config), make_batch(config)
    data["target"][:, 1, :5] = 0
    with torch.inference_mode():
        result = model.reconstruct(data)
        whole = make_batch(config)
        before = model.reconstruct(whole)
    assert not result["scored"][:, 1, :5].any() and before["scored"][:, 1, :5].any()
    assert torch.equal(result["scored"][:, 1, 5:], before["scored"][:, 1, 5:])
    assert model.count_scored(data) == result["scored"].sum()
    unit = config.mask.unit
    cut = tuple(slice(n, n + unit) for n in (5 // unit * unit, 0, 0))  # its first planes are not measured
    kept = (data["foreground"][0, 0] & (data["target"][0, 1] != 0))[cut]
    values = result["target"][0, 1][cut][kept]
    assert abs(values.mean()) < 1e-4 and abs(values.var(unbiased=False) - 1) < 1e-3


# ---- decoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_learns_with_every_weight(settings, decoder):
    torch.manual_seed(0)
    config = settings(decoder=decoder, regulariser__name="none")
    model, data = PretrainModel(3, config), make_batch(settings())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss, _ = model(data, 0)
        optimiser.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("decoder", ["linear", "light", "deep"])
def test_encoder_and_tokens_go_on_into_fine_tuning_and_no_decoder(settings, decoder):
    torch.manual_seed(0)
    source, target = MaskedAutoencoder(2, settings(decoder=decoder)), Segmenter(2, 3, settings().network)
    report = transfer(source.state_dict(), target, ("a", "b"), ("a", "b"), "run")
    assert {".".join(n.split(".")[:2]) for n in report.loaded} == {"unet.encoder", "tokens.value"}
    assert not [n for n in report.new if "encoder" in n or "tokens" in n]
    assert {why for _, why in report.left_out} == {"made for pre-training only"}


def test_the_deep_decoder_is_the_segmentation_networks(settings):
    torch.manual_seed(0)
    source, target = MaskedAutoencoder(2, settings(decoder="deep")), Segmenter(2, 2, settings().network)
    names = target.state_dict().keys() | {"tokens.value"}
    state = {k if k in names else f"unet.{k}": v for k, v in source.state_dict().items()}
    missing = target.load_state_dict(state, strict=False).missing_keys
    assert sorted(missing) == ["unet.up_layers.2.head.bias", "unet.up_layers.2.head.weight"]
    x, hidden = torch.randn(1, 2, 16, 16, 16), torch.rand(1, 2, 16, 16, 16) > 0.5
    seen = []
    for head in (source.head, target.unet.up_layers[-1]["head"]):
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    source(x, hidden)
    target.unet(target.tokens(x, hidden))
    torch.testing.assert_close(*seen)


def test_a_readout_writes_blocks():
    torch.manual_seed(0)
    readout, x = Readout(5, 2, 4), torch.randn(1, 5, 2, 3, 1)
    y = readout(x)
    assert y.shape == (1, 2, 8, 12, 4)
    normed = torch.nn.functional.instance_norm(x).relu()
    values = torch.einsum("oc,czyx->zyxo", readout[2].weight[:, :, 0, 0, 0], normed[0]) + readout[2].bias
    blocks = values.reshape(6, 2, 64).transpose(0, 1)
    torch.testing.assert_close(y[0], from_units(blocks, 4, (8, 12, 4)), rtol=1e-4, atol=1e-5)


# ---- the second view ----------------------------------------------------------------------------


def test_halves_come_in_turn_and_only_where_they_fit():
    taken = [half_at(step, (16, 16, 16), 8) for step in range(12)]
    assert len(set(taken[:6])) == 6 and taken[:6] == taken[6:]
    assert half_at(0, (24, 32, 32), 8) is None and half_at(2, (24, 32, 32), 8) is not None


@pytest.mark.parametrize("step", range(6))
def test_the_half_view_compares_the_same_places(settings, step):
    """Without masks and normalisation both views are the same network on the same voxels."""
    config = settings(train__crop=32)
    model = PretrainModel(3, config)
    seen = {}
    model.regulariser.register_forward_pre_hook(
        lambda module, views: seen.update(masked=views[0], original=views[1], where=views[2])
    )
    encoded = []
    model.network.encode = lambda x, hidden: encoded.append(x) or [x, x[..., ::2, ::2, ::2]]
    data = make_batch(config)
    features = [data["input"], data["input"][..., ::2, ::2, ::2]]
    masked, original, where = model._views(data, features, step)
    assert encoded[0].numel() == data["input"].numel() // 2
    for a, b in zip(masked, original, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    half = half_at(step, (32, 32, 32), 8)
    assert torch.equal(where, half.of(data["foreground"]))


def test_the_half_view_is_the_whole_where_a_crop_cannot_be_halved(settings):
    values = []
    for view in ("half", "whole"):
        torch.manual_seed(0)
        config = settings(train__crop=24, regulariser__view=view)
        values.append(PretrainModel(3, config)(make_batch(config), 0)[1]["regulariser"])
    assert float(values[0]) == float(values[1]) > 0


@pytest.mark.parametrize("view", ["half", "whole"])
def test_gradient_flows_through_both_views(settings, view):
    config = settings(regulariser__view=view)
    model = PretrainModel(3, config)
    data = make_batch(config)
    grads = []
    for parts in ((True, True), (True, False), (False, True)):
        model.zero_grad()
        masked = model.reconstruct(data)["features"]
        masked, original, where = model._views(data, masked, 0)
        keep = [
            [f if flag else f.detach() for f in v] for v, flag in zip((masked, original), parts, strict=True)
        ]
        model.regulariser(*keep, where).backward()
        grads.append(model.network.encoder.layers[1]["downsample"].weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1] + grads[2], rtol=1e-3, atol=1e-6)
    assert grads[1].any() and grads[2].any()


def test_an_unknown_view_is_refused(settings):
    with pytest.raises(EmimError, match=r"regulariser\.view"):
        check_pretraining(settings(regulariser__view="third"))


# ---- written for a GPU --------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Fails where Python would have to wait for a value or a shape that only the device knows."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.waits, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            indices = [i for i in args[1] if i is not None]
            assert not any(i.dtype == torch.bool for i in indices), "a boolean index waits for the device"
        return func(*args, **(kwargs or {}))


VARIANTS = [
    {},
    {"regulariser__name": "vicreg"},
    {"regulariser__name": "uniformity"},
    {"loss": "l1", "regulariser__name": "none"},
    {"normalise_targets": True, "decoder": "linear"},
    {"mask__pattern": "none", "decoder": "deep"},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_step_never_waits_for_the_device(settings, changes):
    config = settings(**changes)
    model, data = PretrainModel(3, config), make_batch(config)
    with NoWaiting():
        loss, _ = model(data, 3)
        loss.backward()
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        bool(loss > 0)


def test_half_precision_leaves_losses_and_statistics_in_float32(settings):
    torch.manual_seed(0)
    # Not 2³ voxels at any level: of such PyTorch 2.13 leaves holes in the CPU's bfloat16 gradient.
    config = settings(train__crop=32, regulariser__view="whole")
    model, data = PretrainModel(3, config), make_batch(config)
    exact, values = model(data, 0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, half = model(data, 0)
    assert loss.dtype == half["regulariser"].dtype == half["reconstruction"].dtype == torch.float32
    assert float(half["reconstruction"]) == pytest.approx(float(values["reconstruction"]), rel=0.05)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_channels_last_memory_computes_the_same(settings):
    torch.manual_seed(0)
    config = settings()
    model, data = PretrainModel(3, config), make_batch(config)
    expected, _ = model(data, 1)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last_3d)
    data["input"] = data["input"].to(memory_format=torch.channels_last_3d)
    loss, _ = last(data, 1)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    loss.backward()
    expected.backward()
    for a, b in zip(last.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-3)


def test_the_loss_can_be_traced_as_one_graph(settings):
    torch.manual_seed(0)
    config = settings()
    model, data = PretrainModel(3, config), make_batch(config)
    expected, _ = model(data, 0)
    traced = torch.compile(lambda batch: model(batch, 0)[0], backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(data), expected, rtol=1e-5, atol=0)
