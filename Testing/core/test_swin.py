"""The Swin transformer: windows, fused attention, equality with MONAI's, transfer."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from swin_monai import from_monai

from emim.config import NetworkConfig, PretrainConfig
from emim.errors import EmimError
from emim.masking.units import to_voxels
from emim.networks import swin_attention
from emim.networks.build import build_pretrainer, build_segmenter
from emim.networks.swin import SwinEncoder
from emim.networks.swin_attention import biased_attention
from emim.networks.swin_segmenter import SwinSegmenter
from emim.networks.swin_windows import cut, join, window_boxes
from emim.networks.transfer import transfer

NETWORK = NetworkConfig(backbone="swin", filters=16, stages=(2, 1))
DECODERS = ("linear", "light", "deep")
SHAPE = (16, 24, 16)


def network(decoder="light", modalities=3, config=NETWORK):
    torch.manual_seed(0)
    return build_pretrainer(modalities, PretrainConfig(network=config, decoder=decoder))


# ---- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "windows", "shifted"),
    [
        (56, [7] * 8, [3, *[7] * 7, 4]),
        (32, [7, 7, 6, 6, 6], [3, 7, 7, 6, 6, 3]),
        (16, [6, 5, 5], [3, 5, 5, 3]),
        (26, [7, 7, 6, 6], [3, 7, 7, 6, 3]),  # twice a prime
        (8, [4, 4], [2, 4, 2]),
        (7, [7], [7]),
        (1, [1], [1]),
    ],
)
def test_windows_are_few_and_even_and_shifted_by_half(side, windows, shifted):
    for wanted, half in ((windows, False), (shifted, True)):
        sizes = {}
        for boxes in (b for same in window_boxes((side, 1, 1), 7, half) for b in same):
            sizes |= {boxes.start[0] + i * boxes.size[0]: boxes.size[0] for i in range(boxes.count[0])}
        assert [size for _, size in sorted(sizes.items())] == wanted


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(6, 4, 9), (3, 12, 2), (5, 7, 11)])
def test_boxes_hold_every_token_once(grid, shifted):
    boxes = window_boxes(grid, 3, shifted)
    sizes = [{b.size for b in same} for same in boxes]
    assert all(len(s) == 1 for s in sizes) and len(set().union(*sizes)) == len(boxes)
    tokens = torch.arange(2.0 * grid[0] * grid[1] * grid[2]).view(2, *grid, 1).double().requires_grad_()
    parts = cut(tokens, boxes)
    assert torch.equal(torch.cat([p.flatten() for p in parts]).sort()[0], tokens.detach().flatten())
    joined = join(parts, boxes, grid)
    assert torch.equal(joined, tokens)
    (gradient,) = torch.autograd.grad((joined * tokens.detach()).sum(), tokens)
    assert torch.equal(gradient, tokens)


def test_tokens_of_a_box_are_neighbours_in_order():
    grid = torch.stack(torch.meshgrid(*(torch.arange(8) for _ in range(3)), indexing="ij"), -1)[None]
    boxes = window_boxes((8, 8, 8), 3, True)
    for part, same in zip(cut(grid, boxes), boxes, strict=True):
        corner = torch.stack(torch.meshgrid(*(torch.arange(n) for n in same[0].size), indexing="ij"), -1)
        assert torch.equal(part - part[:, :1], corner.view(1, -1, 3).expand_as(part))


# ---- attention ----------------------------------------------------------------------------------


def plain_attention(qkv, bias):
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return ((q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("at_once", [1, 2 * 20**2, 10 * 20**2, 10**9])
def test_fused_attention_has_the_values_and_gradients_of_plain_matrices(at_once, monkeypatch):
    monkeypatch.setattr(swin_attention, "SCORES_AT_ONCE", at_once)
    torch.manual_seed(0)
    qkv = (2 * torch.randn(5, 20, 3, 2, 8)).requires_grad_()
    bias = torch.randn(2, 20, 20, requires_grad=True)
    wanted, found = plain_attention(qkv, bias), biased_attention(qkv, bias)
    assert torch.allclose(wanted, found, atol=1e-5)
    upstream = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(wanted, (qkv, bias), upstream),
        torch.autograd.grad(found, (qkv, bias), upstream),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5 * float(a.abs().max()))
    with torch.inference_mode():
        assert torch.allclose(biased_attention(qkv, bias), wanted, atol=1e-5)


def test_training_takes_the_fused_kernel():
    qkv, bias = torch.randn(5, 20, 3, 2, 8, requires_grad=True), torch.randn(2, 20, 20, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        biased_attention(qkv, bias)
    assert any("flash_attention_for_cpu" in e.key for e in profile.key_averages())


def test_an_encoder_used_for_inference_first_can_be_trained():
    encoder = SwinEncoder(1, 16, (2,), window=3)
    x = torch.randn(1, 1, 20, 20, 20)
    with torch.inference_mode():
        before = encoder(x)[-1].clone()
    after = encoder(x)[-1]
    after.sum().backward()
    assert torch.allclose(before, after, atol=1e-5)


# ---- equality with MONAI ------------------------------------------------------------------------


@pytest.fixture
def monai_swin(monkeypatch):
    """MONAI's module, which needs einops only to move the channels."""
    module = pytest.importorskip("monai.networks.nets.swin_unetr")

    def rearrange(x, pattern):
        return x.movedim(1, -1) if pattern.endswith("c") else x.movedim(-1, 1)

    monkeypatch.setattr(module, "rearrange", rearrange)
    return module


@pytest.mark.parametrize("downsample", ["merging", "mergingv2"])
def test_weights_of_monai_give_its_pyramid_and_gradients(monai_swin, downsample):
    torch.manual_seed(0)
    theirs = monai_swin.SwinTransformer(
        3, 16, (2, 2, 2), (2, 2, 2), (2, 2, 2, 2), (1, 2, 4, 8), downsample=downsample
    ).double()
    ours = SwinEncoder(3, 16, (2, 2, 2, 2), window=2).double()

    def translate(state):
        state = from_monai({f"swinViT.{n}": value for n, value in state.items()}, downsample)
        return {n.removeprefix("encoder."): value for n, value in state.items()}

    for name, weight in theirs.named_parameters():
        if "bias" in name:  # MONAI begins with biases too small to matter
            torch.nn.init.normal_(weight, std=0.5)
    ours.load_state_dict(translate(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 32, 32, dtype=torch.double)  # many windows a side, down to one
    for a, b in zip(theirs(x), ours(x), strict=True):
        assert torch.allclose(a, b, atol=1e-10)
        upstream = torch.randn_like(a)
        a.backward(upstream, retain_graph=True)
        b.backward(upstream, retain_graph=True)
    wanted = translate({n: p.grad for n, p in theirs.named_parameters()})
    for name, weight in ours.named_parameters():
        assert torch.allclose(weight.grad, wanted[name], atol=1e-8 * float(wanted[name].abs().max())), name


def test_weights_of_monai_give_its_segmentation(monai_swin):
    torch.manual_seed(0)
    theirs = monai_swin.SwinUNETR(3, 2, feature_size=48, num_heads=(3, 6, 12, 24), window_size=2)
    ours = SwinSegmenter(3, 2, NetworkConfig(backbone="swin", filters=48))
    ours.encoder = SwinEncoder(3, 48, (2, 2, 2, 2), window=2)
    loaded = ours.load_state_dict(from_monai(theirs.state_dict()), strict=False)
    assert loaded.missing_keys == ["tokens.value"] and not loaded.unexpected_keys
    x = torch.randn(1, 3, 64, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(theirs(x), ours(x), atol=2e-5)


def test_building_it_does_not_import_monai():
    code = """
import sys
from emim.config import NetworkConfig
from emim.networks.build import build_segmenter

build_segmenter(2, 3, NetworkConfig(backbone="swin", filters=16))
assert "monai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_hidden_voxels_have_no_influence_and_every_weight_learns(decoder):
    net = network(decoder)
    x, hidden = torch.randn(2, 3, *SHAPE), torch.rand(2, 3, *SHAPE) > 0.5
    output, pyramid = net(x, hidden)
    assert output.shape == x.shape
    widths = NETWORK.widths
    assert [tuple(f.shape) for f in pyramid] == [
        (2, w, *(n // 2 ** (i + 1) for n in SHAPE)) for i, w in enumerate(widths)
    ]
    other, _ = net(torch.where(hidden, 1e3, x), hidden)
    assert torch.equal(output, other)
    assert all(torch.equal(a, b) for a, b in zip(net.encode(x, hidden), pyramid, strict=True))
    (output.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize("decoder", DECODERS)
def test_voxels_are_written_where_they_belong(decoder):
    """Trained on one sample, the network restores it: no block is transposed or moved."""
    torch.manual_seed(0)
    net = network(decoder, modalities=2)
    target = torch.randn(1, 2, 2, 4, 2)
    for axis in (2, 3, 4):
        target = target.repeat_interleave(4, axis)
    hidden = torch.zeros(1, 2, dtype=torch.bool)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        loss = (net(target, hidden)[0] - target).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.2 * target.var()


@pytest.mark.parametrize("tells", [lambda x: -x, lambda x: (x.square() - 1) / 2**0.5])
def test_it_learns_what_another_modality_tells_of_the_same_place(tells):
    """Values differ in each batch, one modality is hidden; no linear map of the voxels tells the square."""
    net = network(modalities=2)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    hidden = torch.zeros(4, 2, 16, 16, 16, dtype=torch.bool)
    hidden[:, 1] = True
    losses = []
    for _ in range(80):
        x = to_voxels(torch.randn(4, 1, 8, 8, 8), 2)
        x = torch.cat([x, tells(x)], 1)
        losses.append((net(x, hidden)[0] - x)[hidden].square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert torch.stack(losses[-10:]).mean() < 0.2


@pytest.mark.parametrize("settings", [{"filters": 24}, {"filters": 0}, {"stages": ()}, {"stages": (2, 0)}])
def test_impossible_sizes_are_refused(settings):
    config = NetworkConfig(**{"backbone": "swin", "filters": 16, **settings})
    with pytest.raises(EmimError, match=next(iter(settings))):
        network(config=config)
    with pytest.raises(EmimError, match=next(iter(settings))):
        build_segmenter(2, 2, config)


def test_a_missing_modality_is_the_token():
    net = build_segmenter(2, 3, NETWORK).eval()
    with torch.no_grad():
        net.tokens.value.fill_(0.5)
    x, present = torch.randn(1, 2, *SHAPE), torch.tensor([[True, False]])
    replaced = torch.cat([x[:, :1], torch.full_like(x[:, 1:], 0.5)], 1)
    with torch.inference_mode():
        logits = net(x, present)
        assert logits.shape == (1, 3, *SHAPE)
        assert torch.equal(logits, net(replaced)) and not torch.equal(logits, net(x))


def test_a_single_coarsest_voxel_gives_numbers():
    assert network()(torch.randn(1, 3, 8, 8, 8), torch.zeros(1, 3, dtype=torch.bool))[0].isfinite().all()


def test_bfloat16_and_channels_last_change_no_more_than_rounding():
    net = network("deep")
    x, hidden = torch.randn(1, 3, *SHAPE), torch.zeros(1, 3, dtype=torch.bool)
    plain, _ = net(x, hidden)
    last, _ = net(x.contiguous(memory_format=torch.channels_last_3d), hidden)
    assert torch.allclose(plain, last, atol=1e-4 * float(plain.detach().abs().max()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = net(x, hidden)
        rounded.float().square().mean().backward()
    assert (rounded - plain).norm() < 0.05 * plain.norm()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_it_can_be_compiled():
    net = network()
    x, hidden = torch.randn(1, 3, *SHAPE), torch.zeros(1, 3, dtype=torch.bool)
    output = torch.compile(net, backend="eager", fullgraph=True)(x, hidden)[0]
    assert torch.allclose(output, net(x, hidden)[0], atol=1e-5)


# ---- transfer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_encoder_and_tokens_go_on_into_fine_tuning_and_no_decoder(decoder):
    source, target = network(decoder), build_segmenter(3, 2, NETWORK)
    report = transfer(source.state_dict(), target, "abc", "abc", "run")
    x, nothing = torch.randn(1, 3, *SHAPE), torch.zeros(1, 3, dtype=torch.bool)
    for a, b in zip(source.encode(x, nothing), target.encoder(x), strict=True):
        assert torch.equal(a, b)
    assert {name.split(".")[0] for name in report.loaded} == {"encoder", "tokens"}
    assert {name.split(".")[0] for name in report.new} == {"decoder", "output"}
    assert {why for _, why in report.left_out} == {"made for pre-training only"}


def test_transfer_arranges_modalities_by_name():
    source, target = build_segmenter(3, 2, NETWORK), build_segmenter(3, 2, NETWORK)
    report = transfer(source.state_dict(), target, ("T1", "T2", "FLAIR"), ("FLAIR", "T1", "ADC"), "run")
    assert {n for n, _ in report.adapted} == set(target.modality_axes)
    for name in ("encoder.patch_embed.proj.weight", "decoder.levels.2.skip.conv3.weight"):
        old, new = source.state_dict()[name], target.state_dict()[name]
        assert torch.equal(new[:, 0], old[:, 2]) and torch.equal(new[:, 1], old[:, 0])
        assert torch.allclose(new[:, 2], old.mean(1))


def test_a_model_goes_on_with_its_own_output_layer():
    source, target = build_segmenter(3, 2, NETWORK), build_segmenter(3, 2, NETWORK)
    report = transfer(source.state_dict(), target, "abc", "abc", "model", same_structures=True)
    assert not report.new and not report.left_out
    assert "output.head.weight" in transfer(source.state_dict(), target, "abc", "abc", "model").new
