"""Fine-tuning with other modalities than the pre-training had: fewer, others, more, and incomplete cases."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from emim.cohort.scan import scan
from emim.errors import EmimError
from emim.evaluation.by_subset import evaluate_subsets
from emim.package.bundle import read_package
from emim.training.finetune import check_cohort, finetune, plan_finetuning
from emim.training.pretrain import pretrain
from emim.training.source import read_source

SEEN = ("T2", "T1")
BACKBONES = {
    "resunet": {},
    "vit": {"network.patch": 8, "network.width": 24, "network.depth": 3, "network.heads": 2},
    "swin": {"network.filters": 16, "network.stages": (1, 1)},
}
# For each backbone a tensor that belongs to the modalities, in pre-training and in segmentation.
BY_MODALITY = {
    "resunet": ("encoder.conv_init.weight", "unet.encoder.conv_init.weight", 1),
    "vit": ("encoder.patch_weight", "encoder.patch_weight", 0),
    "swin": ("encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.weight", 1),
}


@pytest.fixture(scope="module", params=BACKBONES)
def pretrained(request, phantoms, cache, tmp_path_factory):
    """A backbone's name and a run that has seen T2 and T1."""
    from emim.config import PretrainConfig, override, with_preset

    settings = {
        "network.backbone": request.param,
        "network.filters": 4,
        "network.blocks": (1, 1, 1),
        "train.crop": 16,
        "train.steps": 1,
        "train.device": "cpu",
        "regulariser.name": "none",
        "modalities": SEEN,
    }
    config = override(with_preset(PretrainConfig(), "tiny"), settings | BACKBONES[request.param])
    return request.param, pretrain(phantoms, tmp_path_factory.mktemp("run") / "run", config, cache=cache)


@pytest.mark.parametrize(
    "modalities", [("T1",), ("FLAIR", "T2"), ("T1", "T1ce", "T2", "FLAIR")], ids=["fewer", "other", "more"]
)
def test_any_modalities_of_which_one_was_seen(
    modalities, pretrained, phantoms, cache, tmp_path, small_finetune
):
    backbone, run = pretrained
    source = read_source(run)
    # At a rate of 0 the weights stay what was transferred.
    config = small_finetune(modalities=modalities, train__steps=1, transferred_rate=0.0)
    config = dataclasses.replace(config, network=source.network)
    model = finetune(phantoms, tmp_path / "tuned", run, config, cache=cache)
    package = read_package(model)
    assert package.card.modalities == modalities
    assert package.card.optional == (modalities if len(modalities) > 1 else ())

    theirs, ours, axis = BY_MODALITY[backbone]
    before, after = source.load_state()[theirs], package.load_state()[ours]
    given = [before.select(axis, SEEN.index(m)) if m in SEEN else before.mean(axis) for m in modalities]
    given = torch.stack(given, axis)
    scale = (after * given).sum() / (
        given**2
    ).sum()  # one for all: features are as large as in a fresh network
    assert 0.3 < scale < 3 and torch.allclose(after, scale * given, atol=1e-5)
    report = json.loads((tmp_path / "tuned/transfer.json").read_text(encoding="utf-8"))
    assert ours in [name for name, _ in report["adapted"]]

    if modalities == ("FLAIR", "T2"):
        found = scan(phantoms).cohort.select(["sub-001"])
        results = evaluate_subsets(package, found, "all", device="cpu", quality="fast")
        assert list(results.results) == [("FLAIR", "T2"), ("FLAIR",), ("T2",)] and not results.failed


def test_a_modality_that_was_asked_for_is_never_left_out_silently(
    pretrained, phantoms, cache, tmp_path, small_finetune
):
    backbone, run = pretrained
    if backbone != "resunet":
        pytest.skip("the same for all backbones")
    found = scan(phantoms)
    lacking = dataclasses.replace(found, cohort=found.cohort.with_modalities(("T1", "T1ce", "FLAIR")))
    used, _ = check_cohort(lacking, small_finetune(modalities=("T1", "flair")))
    assert used.modalities == ("T1", "FLAIR")
    for init in (None, str(run)):
        with pytest.raises(EmimError, match="has the modality 'PD'"):
            check_cohort(lacking, small_finetune(modalities=("T1", "pdw"), init=init))
    with pytest.raises(EmimError, match="has the modality 'T2'"):
        check_cohort(lacking, small_finetune(modalities=("T1", "T2w")))
    # The weights have seen T2, which this cohort lacks: that is said.
    config = small_finetune(modalities=SEEN, train__steps=1, init=str(run))
    planned, used, _, warnings = plan_finetuning(lacking, config)
    assert used.modalities == planned.modalities == ("T1",)
    assert [what for what, _ in warnings if "T2, which the cohort lacks" in what]
    with pytest.raises(EmimError, match="share no modality"):
        check_cohort(lacking, small_finetune(modalities=("T2",), init=str(run)))


def test_a_run_on_names_of_a_users_own_is_resumed(phantoms, cache, tmp_path, small_finetune):
    """So are runs of earlier versions, whose settings have the names as they were given."""
    found = scan(phantoms, patterns={"t1": "*_T1", "flair": "*_FLAIR"})
    run = tmp_path / "run"
    config = small_finetune(train__steps=1, modalities=("flair", "t1"))
    finetune(found, run, config=config, cache=cache)
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert settings["modalities"] == ["FLAIR", "T1"]
    settings["modalities"] = ["flair", "t1"]
    (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert read_package(finetune(None, run, resume=True, cache=cache)).card.modalities == ("FLAIR", "T1")


def test_labelled_cases_that_lack_modalities(phantoms, cache, tmp_path, small_finetune):
    found = scan(phantoms)
    some = [dataclasses.replace(c, images=dict(list(c.images.items())[i % 2 :: 2])) for i, c in
            enumerate(found.cohort.labelled())]  # fmt: skip
    lacking = dataclasses.replace(found, cohort=dataclasses.replace(found.cohort, cases=tuple(some)))
    config = small_finetune(train__steps=2, train__validate_every=2)
    card = read_package(finetune(lacking, tmp_path / "tuned", config=config, cache=cache)).card
    assert card.modalities == found.cohort.modalities == card.optional
