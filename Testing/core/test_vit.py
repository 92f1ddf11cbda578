"""The vision transformer: which voxel goes where, what must have no influence."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from emim.config import PRESETS, NetworkConfig, PretrainConfig, RegulariserConfig, override, with_preset
from emim.errors import EmimError
from emim.masking.units import from_units, to_units, to_voxels
from emim.networks.build import build_pretrainer, build_segmenter
from emim.networks.positions import Rotation, places, sine_positions
from emim.networks.token_index import TokenIndex
from emim.networks.transfer import transfer
from emim.networks.unetr_decoder import Upsample
from emim.networks.vit import VisionTransformer, mean_over_modalities
from emim.networks.vit_pretrainer import VitPretrainer
from emim.objectives.half_view import Half
from emim.objectives.regulariser import Regulariser
from emim.training.preflight import check_pretraining

NETWORK = NetworkConfig(backbone="vit", patch=4, width=24, depth=2, heads=2)
METHODS = [("mae", "light"), ("mae", "deep"), ("mim", "linear"), ("mim", "light"), ("mim", "deep")]
SHAPE = (8, 12, 8)  # 2 x 3 x 2 patches
GRID = (2, 3, 2)


def network(objective="mae", decoder="light", modalities=3):
    torch.manual_seed(0)
    config = PretrainConfig(network=NETWORK, objective=objective, decoder=decoder)
    return build_pretrainer(modalities, config).eval()


def masked_batch(samples=2, modalities=3):
    """A volume and what is hidden of it; samples hide different numbers of patches."""
    torch.manual_seed(1)
    x = torch.randn(samples, modalities, *SHAPE)
    hidden = torch.rand(samples, modalities, *GRID) < torch.linspace(0.4, 0.8, samples).view(-1, 1, 1, 1, 1)
    hidden[:, :, 0, 0, 0] = True  # one position that no modality shows
    hidden[:, 0, 1, 1, 1] = False
    assert len(set((~hidden).flatten(1).sum(1).tolist())) == samples
    return x, to_voxels(hidden, NETWORK.patch)


# ---- bookkeeping --------------------------------------------------------------------------------


def test_patches_go_apart_and_together():
    x = torch.randn(2, 3, *SHAPE)
    patches = to_units(x, 4)
    assert torch.equal(from_units(patches, 4, SHAPE), x)
    assert torch.equal(patches[1, 2, 7].view(4, 4, 4), x[1, 2, 4:8, 0:4, 4:8]), "patch 7 is (1, 0, 1)"


def test_the_index_finds_every_visible_token_once():
    visible = torch.rand(3, 2, 5) < 0.5
    visible[0] = True
    visible[2] = False
    index = TokenIndex.of(visible)
    tokens = torch.randn(int(visible.sum()), 4)
    assert index.sizes == visible.sum((0, 2)).tolist() and index.length == 10
    rows = index.pad(tokens)
    assert torch.equal(index.unpad(rows), tokens)
    assert index.keep.sum(1).tolist() == [10, int(visible[1].sum()), 1], "an empty row attends to its zero"
    grid = index.place(tokens, torch.full((3, 2, 5, 4), torch.nan))
    assert torch.equal(~grid.isnan().any(-1), visible)
    for t in range(len(tokens)):
        assert torch.equal(grid[index.sample[t], index.modality[t], index.patch[t]], tokens[t])
    assert TokenIndex.of(torch.ones(2, 2, 3, dtype=torch.bool)).keep is None


def test_a_token_is_one_patch_of_one_modality():
    encoder = VisionTransformer(3, NETWORK)
    x, hidden = masked_batch()
    visible = encoder.visible(x, hidden)
    assert torch.equal(visible, ~to_units(hidden, 4).any(-1))
    index = TokenIndex.of(visible)
    before = encoder.embed(x, index)
    for sample, modality, patch in [(0, 0, 10), (1, 2, 5), (1, 1, 11)]:
        z, y, x_ = np.unravel_index(patch, GRID)
        changed = x.clone()
        changed[sample, modality, 4 * z : 4 * z + 4, 4 * y : 4 * y + 4, 4 * x_ : 4 * x_ + 4] += 1
        moved = (encoder.embed(changed, index) != before).any(1)
        own = (index.sample == sample) & (index.modality == modality) & (index.patch == patch)
        assert torch.equal(moved, own) and bool(own.any()) == bool(visible[sample, modality, patch])


def test_the_embedding_is_what_a_linear_map_per_modality_gives():
    encoder = VisionTransformer(2, NETWORK)
    x = torch.randn(1, 2, *SHAPE)
    index = TokenIndex.of(encoder.visible(x, torch.zeros(1, 2, dtype=torch.bool)))
    tokens = index.place(encoder.embed(x, index), torch.zeros(1, 2, 12, 24))
    for m in range(2):
        conv = encoder.patch_weight[m].view(24, 1, 4, 4, 4)
        theirs = F.conv3d(x[:, m : m + 1], conv, encoder.modality[m], stride=4).flatten(2).transpose(1, 2)
        torch.testing.assert_close(tokens[:, m] - sine_positions(GRID, 24), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("objective", "decoder"), METHODS)
def test_hidden_voxels_have_no_influence(objective, decoder):
    net = network(objective, decoder)
    x, hidden = masked_batch()
    other = torch.where(hidden, torch.full_like(x, 1e6), x)
    first, second = net(x, hidden), net(other, hidden)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1][0], second[1][0])
    assert torch.equal(net.encode(x, hidden)[0], first[1][0])
    seen = torch.where(hidden, x, x + 1)
    assert not torch.allclose(net(seen, hidden)[0], first[0], atol=1e-3)


def test_hidden_tokens_do_not_enter_the_encoder(monkeypatch):
    """With mae the sequence is as long as the longest sample has visible tokens; with mim all of them."""
    x, hidden = masked_batch()
    counts = (~to_units(hidden, 4).any(-1)).sum((1, 2))
    for objective, length in (("mae", int(counts.max())), ("mim", 3 * 12)):
        net, seen = network(objective), []
        net.encoder.blocks[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        net(x, hidden)
        assert seen[0].shape == (2, length, 24)


@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_other_samples_and_their_padding_have_no_influence(objective):
    net = network(objective)
    x, hidden = masked_batch()
    together = net(x, hidden)
    for i in range(len(x)):
        alone = net(x[i : i + 1], hidden[i : i + 1])
        torch.testing.assert_close(alone[0][0], together[0][i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone[1][0][0], together[1][0][i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("objective", "decoder"), METHODS)
def test_the_reconstruction_of_a_patch_lands_there(objective, decoder):
    """The head is made to write a value known for each token, which must come out in its box."""
    net = network(objective, decoder)
    tokens = torch.arange(3 * 12.0)
    net.decoder.head.forward = lambda y: tokens.view(1, -1, 1).expand(len(y), -1, 64)
    x, hidden = masked_batch()
    reconstruction = net(x, hidden)[0]
    expected = to_voxels(tokens.view(3, *GRID), 4)
    assert torch.equal(reconstruction, expected.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_the_network_learns_which_patch_is_which(objective):
    """Each patch of each modality has a value of its own: only the right place gives the loss of 0."""
    net = network(objective).train()
    target = to_voxels(torch.randn(1, 3, *GRID), 4)
    _, hidden = masked_batch(samples=1)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(150):
        loss = (net(target, hidden)[0] - target)[hidden].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05


@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_positions_matter(objective, monkeypatch):
    net = network(objective)
    x, hidden = masked_batch(samples=1)
    swapped = x.clone()
    swapped[..., :4, 0:4, :], swapped[..., :4, 4:8, :] = x[..., :4, 4:8, :], x[..., :4, 0:4, :]
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    a, b = net.encode(x, nothing)[0], net.encode(swapped, nothing)[0]
    moved = b.clone()
    moved[:, :, 0, 0], moved[:, :, 0, 1] = b[:, :, 0, 1], b[:, :, 0, 0]
    assert not torch.allclose(a, moved, atol=1e-2), "features know where their patch is"
    without_positions(monkeypatch)
    a, b = net.encode(x, nothing)[0], net.encode(swapped, nothing)[0]
    moved = b.clone()
    moved[:, :, 0, 0], moved[:, :, 0, 1] = b[:, :, 0, 1], b[:, :, 0, 0]
    assert torch.allclose(a, moved, atol=1e-5), "and only from the position embeddings"


def without_positions(monkeypatch):
    zeros = lambda grid, width, device=None: torch.zeros(int(np.prod(grid)), width)  # noqa: E731
    monkeypatch.setattr("emim.networks.vit.sine_positions", zeros)
    monkeypatch.setattr("emim.networks.vit_pretrainer.sine_positions", zeros)
    monkeypatch.setattr(Rotation, "turn", lambda self, x: x)


def test_position_embeddings_differ_everywhere_and_keep_their_distances():
    small, large = sine_positions((2, 3, 4), 26), sine_positions((4, 5, 6), 26)
    assert len(torch.unique(small, dim=0)) == 24 and not small[:, 24:].any()
    inner = large.view(4, 5, 6, 26)[1:3, 1:4, 1:5].reshape(-1, 26)
    torch.testing.assert_close(small, inner)


def test_turned_queries_and_keys_know_their_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 14, dtype=torch.double)
    where = torch.tensor([[0.0, 1.5, -2.0], [1.0, 0.5, -2.0]], dtype=torch.double)

    def score(of, to):
        return (Rotation.at(of[None], 14).turn(q) * Rotation.at(to[None], 14).turn(k)).sum()

    shifted = where + torch.tensor([3.0, -1.0, 2.0])
    torch.testing.assert_close(score(*where), score(*shifted))
    torch.testing.assert_close(score(where[0], where[0]), (q * k).sum())
    assert abs(score(*where) - (q * k).sum()) > 1e-3
    turned = Rotation.at(where, 14).turn(q.expand(1, 2, 1, 14))
    assert torch.equal(turned[..., 12:], q.expand(1, 2, 1, 14)[..., 12:]), "two channels are left over"
    assert not torch.allclose(turned[:, 0], turned[:, 1], atol=1e-2)
    assert Rotation.at(where, 14).turn(q.bfloat16().expand(1, 2, 1, 14)).dtype == torch.bfloat16


def test_patches_have_other_rotations_where_they_have_other_places():
    """The tokens of a padded batch and those of the whole grid are told the same place."""
    encoder = VisionTransformer(2, NETWORK)
    x = torch.randn(2, 2, *SHAPE)
    visible = torch.rand(2, 2, 12) < 0.5
    index = TokenIndex.of(visible)
    everywhere, padded = encoder.place(x), encoder.place(x, index)
    for t, row in enumerate(index.unpad(padded.cos)):
        at = int(index.modality[t]) * 12 + int(index.patch[t])
        assert torch.equal(row, everywhere.cos[at])
    assert len(torch.unique(torch.cat([*everywhere[:2]], -1)[:12].flatten(1), dim=0)) == 12
    assert torch.equal(everywhere.sin[:12], everywhere.sin[12:]), "and all modalities alike"
    assert places(GRID)[0].tolist() == [-0.5, -1.0, -0.5]


def opposites(samples=8):
    """Two modalities, one the negative of the other, one of them hidden: only the same place tells."""
    values = torch.randn(samples, 1, 4, 4, 4)
    hidden = torch.zeros(samples, 2, 16, 16, 16, dtype=torch.bool)
    hidden[: samples // 2, 0] = hidden[samples // 2 :, 1] = True
    return to_voxels(torch.cat([values, -values], 1), 4), hidden


@pytest.mark.parametrize(("objective", "decoder"), [("mae", "light"), ("mim", "linear")])
@pytest.mark.parametrize("positions", [True, False])
def test_it_learns_to_look_at_the_same_place(objective, decoder, positions, monkeypatch):
    """Values differ in each batch, so that nothing can be learned by heart."""
    if not positions:
        without_positions(monkeypatch)
    torch.manual_seed(0)
    size = NetworkConfig(backbone="vit", patch=4, width=48, depth=2, heads=4)
    net = build_pretrainer(2, PretrainConfig(network=size, objective=objective, decoder=decoder))
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(120):
        x, hidden = opposites()
        loss = (net(x, hidden)[0] - x)[hidden].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2 if positions else loss > 0.8


def test_features_are_the_mean_of_what_is_visible():
    tokens = torch.randn(1, 2, 4, 3)
    visible = torch.tensor([[[True, True, False, False], [True, False, True, False]]])
    features = mean_over_modalities(tokens, visible, (1, 2, 2)).flatten(2)[0].T
    torch.testing.assert_close(features[0], tokens[0, :, 0].mean(0))
    torch.testing.assert_close(features[1], tokens[0, 0, 1])
    torch.testing.assert_close(features[2], tokens[0, 1, 2])
    torch.testing.assert_close(features[3], tokens[0][visible[0]].mean(0))
    nothing = mean_over_modalities(tokens, torch.zeros_like(visible), (1, 2, 2))
    assert torch.equal(nothing, torch.zeros(1, 3, 1, 2, 2))


def test_nothing_visible_gives_numbers():
    for objective in ("mae", "mim"):
        net = network(objective)
        x, hidden = masked_batch()
        hidden[1] = True
        reconstruction, features = net(x, hidden)
        assert reconstruction.isfinite().all() and features[0].isfinite().all()


def test_a_mask_of_modalities_is_that_of_their_voxels():
    net = network()
    x, _ = masked_batch()
    absent = torch.tensor([[False, True, False], [False, False, True]])
    whole = absent[:, :, None, None, None].expand_as(x)
    assert torch.equal(net.encode(x, absent)[0], net.encode(x, whole)[0])


@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_half_of_the_original_view_is_at_its_place_in_the_crop(objective):
    net = network(objective)
    x, _ = masked_batch()
    absent = torch.tensor([[False, True, False], [False, False, False]])
    for half in (Half(0, True), Half(2, False)):
        features = net.encode_half(x, absent, half)[0]
        beyond = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
        half.of(beyond).fill_(False)
        assert torch.equal(net.encode_half(torch.where(beyond, 1e6, x), absent, half)[0], features)
        hidden = beyond | absent[:, :, None, None, None]
        expected = network("mae").encode(x, hidden)[0]  # the encoders are the same
        torch.testing.assert_close(features, half.of(expected), rtol=1e-4, atol=1e-5)
        assert not features.requires_grad


@pytest.mark.parametrize(("objective", "decoder"), METHODS)
def test_every_weight_learns(objective, decoder):
    net = network(objective, decoder)
    x, hidden = masked_batch()
    reconstruction, features = net(x, hidden)
    (reconstruction.square().mean() + features[0].square().mean()).backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_regulariser_acts_on_the_only_level():
    regulariser = Regulariser(RegulariserConfig(width=8), NETWORK.widths)
    assert regulariser.levels == (0,)
    net = network()
    x, hidden = masked_batch()
    foreground = torch.ones(2, 1, *SHAPE, dtype=torch.bool)
    loss = regulariser(net.encode(x, hidden), net.encode(x, torch.zeros(2, 3, dtype=torch.bool)), foreground)
    loss.backward()
    assert net.encoder.patch_weight.grad.any()


# ---- segmentation network -----------------------------------------------------------------------


def test_upsampling_is_a_transposed_convolution():
    up = Upsample(6, 4)
    x = torch.randn(2, 6, 2, 3, 4)
    kernel = up.linear.weight.view(4, 2, 2, 2, 6).permute(4, 0, 1, 2, 3)
    torch.testing.assert_close(up(x), F.conv_transpose3d(x, kernel, stride=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_segmentation_without_a_modality_is_that_of_a_network_that_never_had_it(patch):
    torch.manual_seed(0)
    config = dataclasses.replace(NETWORK, patch=patch, depth=5)
    net = build_segmenter(3, 2, config).eval()
    x = torch.randn(2, 3, 16, 16, 32)
    present = torch.tensor([[True, False, True]] * 2)
    logits = net(x, present)
    assert logits.shape == (2, 2, 16, 16, 32) and torch.isfinite(logits).all()
    assert torch.equal(net(torch.where(present[:, :, None, None, None], x, 1e6), present), logits)
    smaller = build_segmenter(2, 2, config).eval()
    report = transfer(net.state_dict(), smaller, "abc", "ac", "package", same_structures=True)
    assert not report.new and not report.left_out
    torch.testing.assert_close(smaller(x[:, ::2]), logits, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(net(x), logits, atol=1e-2)


@pytest.mark.parametrize(("objective", "decoder"), [("mae", "light"), ("mim", "deep")])
def test_transfer_takes_the_encoder_with_its_norm(objective, decoder):
    source, target = network(objective, decoder), build_segmenter(3, 2, NETWORK).eval()
    report = transfer(source.state_dict(), target, "abc", "abc", "run")
    assert {n for n in report.loaded} == {n for n in target.state_dict() if n.startswith("encoder.")}
    assert "encoder.norm.weight" in report.loaded and all(n.startswith("unetr.") for n in report.new)
    assert {n.split(".")[0] for n, _ in report.left_out} <= {"decoder", "mask_token"}
    x = torch.randn(1, 3, *SHAPE)
    index = TokenIndex.of(torch.ones(1, 3, 12, dtype=torch.bool))
    states = [e.encode_visible(x, index)[-1] for e in (source.encoder, target.encoder)]
    assert torch.equal(*states)


def test_transfer_arranges_modalities_by_name():
    source, target = network(), build_segmenter(3, 2, NETWORK)
    transfer(source.state_dict(), target, ("T1", "T2", "FLAIR"), ("FLAIR", "T1", "ADC"), "run")
    for name in ("patch_weight", "modality"):
        old, new = getattr(source.encoder, name), getattr(target.encoder, name)
        assert torch.equal(new[0], old[2]) and torch.equal(new[1], old[0])
        torch.testing.assert_close(new[2], old.mean(0))
    with pytest.raises(EmimError, match="lack"):
        state = {k: v for k, v in source.state_dict().items() if "blocks.1" not in k}
        transfer(state, build_segmenter(3, 2, NETWORK), "abc", "abc", "run")


def test_building_it_does_not_import_monai():
    code = """
import sys
from emim.config import NetworkConfig
from emim.networks.build import build_segmenter

build_segmenter(2, 3, NetworkConfig(backbone="vit", patch=4, width=12, depth=2, heads=2))
assert "monai" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- settings -----------------------------------------------------------------------------------

VIT = {"network.backbone": "vit"}


@pytest.mark.parametrize(
    "settings",
    [
        {"network.backbone": "mlp"},
        {"network.patch": 12, **VIT},
        {"network.patch": 2, **VIT},
        {"network.width": 100, **VIT},
        {"network.depth": 2, **VIT},
        {"mask.unit": 12, **VIT},
        {"train.crop": 100, **VIT},
        {"regulariser.levels": (1,), **VIT},
        {"decoder": "linear", "objective": "mae", **VIT},
        {"decoder": "wide"},
        {"objective": "mae"},
        {"objective": "mae", "network.backbone": "swin", "network.filters": 48},
        {"network.filters": 24, "network.backbone": "swin"},
        {"network.stages": (2, 0), "network.backbone": "swin", "network.filters": 16},
        {"network.blocks": (1, 1)},
        {"network.filters": 0},
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings):
    with pytest.raises(EmimError, match=next(iter(settings)).split(".")[-1]):
        check_pretraining(override(PretrainConfig(), settings))


@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_the_defaults_go_together(objective):
    check_pretraining(override(PretrainConfig(), {**VIT, "objective": objective}))
    for preset in PRESETS:
        check_pretraining(override(with_preset(PretrainConfig(), preset), {**VIT, "objective": objective}))


def test_the_network_refuses_a_linear_decoder_for_mae():
    with pytest.raises(EmimError, match="linear decoder"):
        VitPretrainer(2, PretrainConfig(network=NETWORK, objective="mae", decoder="linear"))
