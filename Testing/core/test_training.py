"""Pieces of training: splits, settings, sampling, the models, and both runs end to end."""

import dataclasses
import datetime
import json
import re
import shutil

import pytest
import torch

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.cohort.patterns import PATTERNS
from emim.cohort.scan import scan
from emim.config import (
    FinetuneConfig,
    PreprocessConfig,
    PretrainConfig,
    TrainConfig,
    from_dict,
    override,
    to_dict,
    with_preset,
)
from emim.errors import Cancelled, EmimError
from emim.evaluation.lineage import read_lineage
from emim.events import Events
from emim.masking.units import to_voxels
from emim.package.bundle import read_package
from emim.training.card import make_card
from emim.training.finetune import finetune, plan_finetuning
from emim.training.finetune_watch import FinetuneWatch
from emim.training.pretrain import pretrain
from emim.training.pretrain_model import PretrainModel, realised_ratios
from emim.training.pretrain_watch import PretrainWatch, cohort_collapse_lines
from emim.training.segmentation_loss import SegmentationLoss
from emim.training.split import read_split, split_by_subject
from emim.training.structures import (
    parse_structures,
)
from emim.volumes.cache import build_cache
from emim.volumes.cached_case import CachedCase


def cohort(count=10, sessions=2):
    cases = [
        Case(f"s{i}-{j}", f"s{i}", {"T1": f"/s{i}-{j}.nii"}, None)
        for i in range(count)
        for j in range(sessions)
    ]
    return Cohort(("T1",), tuple(cases))


# ---- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_subject_is_on_two_sides(seed):
    config = TrainConfig(seed=seed, exclude=("s0-0",), validation_share=0.3)
    split = split_by_subject(cohort(), config)
    assert split.excluded == ("s0-0", "s0-1"), "the other session of an excluded subject is out too"
    sides = [{i.split("-")[0] for i in part} for part in (split.training, split.validation, split.excluded)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert len(sides[1]) == 3 and sum(map(len, (split.training, split.validation))) == 18


def test_named_splits():
    split = split_by_subject(cohort(), TrainConfig(validation=("s1-0",), cases=("s2-0", "s3-1")))
    assert split.validation == ("s1-0",) and split.training == ("s2-0", "s3-1")
    assert "s1-1" not in split_by_subject(cohort(), TrainConfig(validation=("s1-0",))).training
    for wrong in (
        TrainConfig(validation=("s1-0",), cases=("s1-1",)),
        TrainConfig(validation=("s1-0",), exclude=("s1-1",)),
        TrainConfig(validation=("unknown",)),
        TrainConfig(exclude=tuple(f"s{i}-0" for i in range(10))),
    ):
        with pytest.raises(EmimError):
            split_by_subject(cohort(), wrong)


def test_split_files(tmp_path):
    file = tmp_path / "split.json"
    for encoding in ("utf-8", "utf-8-sig"):  # Windows' editors add a mark
        file.write_text('{"test": ["ä", "a", "ä"], "validation": ["b"]}', encoding=encoding)
        assert read_split(file) == {"exclude": ("ä", "a"), "validation": ("b",)}
    for text in ("[]", "{", '{"tests": []}'):
        file.write_text(text)
        with pytest.raises(EmimError, match="split file"):
            read_split(file)


# ---- settings -----------------------------------------------------------------------------------


def test_settings_go_to_json_and_back():
    structures, overlapping = parse_structures(["WT=1,2", "ET=2"])
    config = FinetuneConfig(structures=structures, overlapping=overlapping)
    assert from_dict(FinetuneConfig, json.loads(json.dumps(to_dict(config)))) == config
    config = with_preset(PretrainConfig(), "tiny")
    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_settings_by_name():
    config = override(PretrainConfig(), {"train.steps": "5e2", "network.blocks": "1,2,2", "mask.ratio": 0.6})
    assert (config.train.steps, config.network.blocks, config.mask.ratio) == (500, (1, 2, 2), 0.6)
    assert override(config, {"preprocess.spacing": "1,1,2"}).preprocess.spacing == (1.0, 1.0, 2.0)
    for name, value in (
        ("train.step", 5),
        ("train.steps", "many"),
        ("train.steps", 1.5),
        ("train", 5),
        ("preprocess.spacing", "1,1"),
        ("normalise_targets", "perhaps"),
    ):
        with pytest.raises(EmimError, match=name.split(".")[-1]):
            override(PretrainConfig(), {name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"mask.pattern": "stripes"},
        {"mask.ratio": 1.0},
        {"mask.unit": 7},
        {"train.crop": 50},
        {"regulariser.name": "magic"},
        {"regulariser.levels": (0, 9)},
        {"loss": "l3"},
        {"train.steps": 0},
        {"network.blocks": (1, 1)},
    ],
)
def test_impossible_settings_are_refused_before_any_work(settings, tmp_path):
    config = override(with_preset(PretrainConfig(), "tiny"), settings)
    with pytest.raises(EmimError, match=next(iter(settings)).split(".")[-1]):
        pretrain("/no/such/cohort", tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


# ---- the pre-training model ---------------------------------------------------------------------


def batch(config, modalities=3, samples=2):
    side = config.train.crop
    grid = side // config.mask.unit
    torch.manual_seed(0)
    target = torch.randn(samples, modalities, side, side, side)
    return {
        "input": target.clone(),
        "target": target,
        "foreground": torch.rand(samples, 1, side, side, side) > 0.2,
        "present": torch.tensor([[True, True, False]] * samples),
        "kinds": torch.randint(0, 4, (samples, modalities, grid, grid, grid)).to(torch.int8),
    }


def test_only_hidden_present_foreground_voxels_enter_the_loss(small_pretrain):
    config = small_pretrain(regulariser__name="none")
    torch.manual_seed(1)
    model = PretrainModel(3, config)
    data = batch(config)
    scored = model.reconstruct(data)["scored"]
    kinds = to_voxels(data["kinds"], config.mask.unit)
    assert torch.equal(scored, (kinds > 0) & data["foreground"] & data["present"][:, :, None, None, None])
    loss, values = model(data, 0)
    assert float(loss) == pytest.approx(float(values["reconstruction"]))
    altered = dict(data, target=torch.where(scored, data["target"], torch.tensor(1e6)))
    assert float(model(altered, 0)[0]) == pytest.approx(float(loss)), "other targets do not matter"
    hidden = (kinds > 0) | ~data["present"][:, :, None, None, None]
    altered = dict(data, input=torch.where(hidden, torch.tensor(1e6), data["input"]))
    assert float(model(altered, 0)[0]) == pytest.approx(float(loss)), "hidden input is never seen"


def test_pattern_none_scores_every_foreground_voxel(small_pretrain):
    config = small_pretrain(mask__pattern="none", regulariser__name="none")
    data = batch(config)
    data["kinds"] = torch.zeros_like(data["kinds"])
    scored = PretrainModel(3, config).reconstruct(data)["scored"]
    expected = data["foreground"] & data["present"][:, :, None, None, None]
    assert torch.equal(scored, expected)


def test_realised_ratios_count_present_modalities_only(small_pretrain):
    data = batch(small_pretrain())
    shares = realised_ratios(data["kinds"], data["present"])
    there = data["kinds"][:, :2]
    assert shares["mask_modal"] == pytest.approx(float((there == 1).float().mean()))
    assert shares["mask_ratio"] == pytest.approx(float((there > 0).float().mean()))


def test_regulariser_reaches_the_encoder_and_warms_up(small_pretrain):
    config = small_pretrain(train__steps=100, regulariser__warmup=0.1, regulariser__weight=2.0)
    model = PretrainModel(3, config)
    assert model.regulariser_weight(0) == pytest.approx(0.2) and model.regulariser_weight(50) == 2.0
    loss, values = model(batch(config), 50)
    assert float(loss) == pytest.approx(float(values["reconstruction"]) + 2 * float(values["regulariser"]))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# ---- loss and whole runs ------------------------------------------------------------------------


@pytest.mark.parametrize("overlapping", [True, False])
def test_segmentation_loss_rewards_the_right_answer(overlapping):
    torch.manual_seed(0)
    inner = torch.zeros(2, 1, 8, 8, 8, dtype=torch.bool)
    inner[..., 2:5] = True
    outer = torch.zeros_like(inner)
    outer[..., 2:7] = True
    label = torch.cat([outer, inner] if overlapping else [outer & ~inner, inner], 1)
    channels = label if overlapping else torch.cat([~label.any(1, keepdim=True), label], 1)
    right = channels.float() * 20 - 10
    loss = SegmentationLoss(overlapping)
    assert loss(right, label) < 0.01 < 1 < loss(-right, label)


def test_crops_are_not_mirrored_where_structures_are_named_by_side(phantoms, small_finetune):
    found, config = scan(phantoms), small_finetune()
    sided, overlapping = parse_structures(["left lesion=1,3", "right lesion=2"])
    sided = dataclasses.replace(config, structures=sided, overlapping=overlapping)
    wanted = override(sided, {"train.mirror": True})
    planned = [plan_finetuning(found, c)[0] for c in (config, sided, wanted)]
    assert [c.train.mirror for c in planned] == [True, False, True]
    split = plan_finetuning(found, sided)[2]
    assert [make_card(c, split, "model").mirrored for c in planned] == [True, False, True]


def test_what_could_not_be_written_as_a_model_is_refused_before_training(phantoms, small_finetune):
    config = small_finetune()
    reversed_ = dataclasses.replace(config, structures=config.structures[::-1])
    with pytest.raises(EmimError, match="No model could be written.*wrong order"):
        plan_finetuning(scan(phantoms), reversed_)


def test_pretraining_then_finetuning_then_package(phantoms, cache, tmp_path, small_pretrain, small_finetune):
    pre = pretrain(phantoms, tmp_path / "pre", small_pretrain(), cache=cache)
    for name in (
        "config.json",
        "environment.json",
        "cohort.json",
        "split.json",
        "collapse_lines.json",
        "events.jsonl",
        "report/report.html",
        "report/verdict.json",
        "report/preview.npz",
        "checkpoints/last.pt",
    ):
        assert (pre / name).is_file(), name
    model = finetune(phantoms, tmp_path / "fine", pre, small_finetune(), cache=cache)
    card = read_package(model).card
    assert [s.name for s in card.structures] == ["WT", "TC", "ET"] and card.overlapping
    assert card.preprocess.spacing is not None and set(card.optional) == {"T1", "T1ce", "T2", "FLAIR"}
    assert card.training["initialisation"] == "pre" and card.patterns["FLAIR"]
    assert datetime.date.fromisoformat(card.training["date"]) <= datetime.date.today()
    report = json.loads((tmp_path / "fine" / "transfer.json").read_text())
    assert report["loaded"] and report["new"]
    assert (tmp_path / "fine" / "report" / "report.html").is_file()
    again = finetune(phantoms, tmp_path / "again", model, small_finetune(train__steps=2), cache=cache)
    assert read_package(again).card.structures == card.structures
    lineage = read_lineage(again)
    assert [(run.name, run.command) for run in lineage.runs] == [
        ("again", "finetune"), ("fine", "finetune"), ("pre", "pretrain"),
    ] and not lineage.doubts  # fmt: skip
    for run, folder in zip(lineage.runs, (again.parent, model.parent, pre), strict=True):
        split = json.loads((folder / "split.json").read_text())
        assert {(c.id, c.part) for c in run.cases} == {
            (i, part) for part in ("training", "validation") for i in split[part]
        }
    shutil.rmtree(pre)  # what was recorded of it is not lost with it
    (model.parent / "split.json").write_text("{}")
    assert read_lineage(again) == lineage


def test_a_config_without_the_plan_of_the_weights_is_refused(
    phantoms, cache, tmp_path, small_pretrain, small_finetune
):
    pre = pretrain(phantoms, tmp_path / "pre", small_pretrain(train__steps=1), cache=cache)
    with pytest.raises(EmimError, match="not that of the weights"):
        finetune(phantoms, tmp_path / "fine", pre, small_finetune(network__filters=8), cache=cache)
    (pre / "checkpoints" / "last.pt").unlink()
    with pytest.raises(EmimError, match="no weights yet"):
        finetune(phantoms, tmp_path / "fine", pre, small_finetune(), cache=cache)
    assert not (tmp_path / "fine").exists()


def test_finetuning_tells_of_test_cases_that_the_weights_have_seen(
    phantoms, cache, tmp_path, small_pretrain, small_finetune
):
    pre = pretrain(phantoms, tmp_path / "pre", small_pretrain(train__steps=1), cache=cache)
    seen = json.loads((pre / "split.json").read_text())["training"]
    config = small_finetune(train__steps=1, train__exclude=(seen[0],))
    finetune(phantoms, tmp_path / "fine", pre, config, cache=cache)
    assert seen[0] in _leaks(tmp_path / "fine")
    # The fine-tuned weights have seen it as well, through those they began with.
    finetune(phantoms, tmp_path / "finer", tmp_path / "fine", config, cache=cache)
    assert seen[0] in _leaks(tmp_path / "finer")


def test_cases_held_out_are_known_by_their_images_and_those_validated_on_again_are_no_leak(
    phantoms, cache, tmp_path, small_pretrain, small_finetune
):
    config = small_pretrain(train__steps=1, train__validation=("sub-002",))
    pre = pretrain(phantoms, tmp_path / "pre", config, cache=cache)
    found = scan(phantoms)
    renamed = [{"id": f"x{row.id[4:]}", "images": row.images, "label": row.label} for row in found.rows]
    (tmp_path / "list.json").write_text(json.dumps(renamed), encoding="utf-8")

    def told(found, **options):
        config = small_finetune(init=str(pre), **options)
        return [what for what, _ in plan_finetuning(found, config)[3] if "have seen" in what]

    for name, cohort in (("sub-00", found), ("x00", scan(tmp_path / "list.json"))):
        (what,) = told(cohort, train__validation=(f"{name}2",), train__exclude=(f"{name}1",))
        assert f"{name}1" in what and f"{name}2" not in what
        # What a checkpoint may have been chosen with is not new to a test.
        (what,) = told(cohort, train__validation=(), train__exclude=(f"{name}2",))
        assert f"{name}2" in what


def _leaks(run) -> list[str]:
    """Cases held out that a run warned of, as its initial weights have seen them."""
    events = [json.loads(e) for e in (run / "events.jsonl").read_text().splitlines()]
    told = [e["what"] for e in events if e["type"] == "warning" and "have seen the subjects of" in e["what"]]
    return [i for what in told for i in re.findall(r"sub-\w+", what)]


def test_same_seed_same_weights_other_seed_other_weights(phantoms, cache, tmp_path, small_pretrain):
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = pretrain(
            phantoms, tmp_path / name, small_pretrain(train__seed=seed, train__steps=2), cache=cache
        )
        states.append(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_excluded_cases_are_never_read(phantoms, cache, tmp_path, small_pretrain, monkeypatch):
    from emim.volumes import cache as volumes

    built = []
    real = volumes.build_cache
    monkeypatch.setattr(volumes, "build_cache", lambda c, *a, **k: built.extend(c.cases) or real(c, *a, **k))
    pretrain(
        phantoms, tmp_path / "run", small_pretrain(train__exclude=("sub-002",), train__steps=1), cache=cache
    )
    assert built and "sub-002" not in {c.id for c in built}


def test_hybrid_masks_that_would_only_drop_modalities_are_told(
    phantoms, tmp_path, small_pretrain, seen_rates
):
    for name, ratio in (("dropped", 0.5), ("hybrid", 0.75)):
        seen_rates()
        with pytest.raises(Cancelled):
            config = small_pretrain(modalities=("T1", "T2"), mask__ratio=ratio)
            pretrain(phantoms, tmp_path / name, config, cache=tmp_path / "cache")
        events = (tmp_path / name / "events.jsonl").read_text()
        assert ("Each mask hides one of 2 modalities and nothing else" in events) == (name == "dropped")


def test_labelled_fractions_are_nested(phantoms, cache, tmp_path, small_finetune):
    chosen = []
    for count in (1, 2):
        config = small_finetune(labelled=count, train__steps=1, train__validation=("sub-001",))
        finetune(phantoms, tmp_path / str(count), None, config, cache=cache)
        chosen.append(set(json.loads((tmp_path / str(count) / "split.json").read_text())["training"]))
    assert len(chosen[0]) == 1 and len(chosen[1]) == 2 and chosen[0] < chosen[1]


def test_the_best_or_the_last_weights_become_the_model(
    phantoms, cache, tmp_path, small_finetune, monkeypatch
):
    real = FinetuneWatch.measure

    def worse_each_time(self, *given):
        values, shown = real(self, *given)
        return {**values, "dice": scores.pop()}, shown

    monkeypatch.setattr(FinetuneWatch, "measure", worse_each_time)
    for keep, step, dice in (("best", 1, 0.5), ("last", 2, 0.25)):
        scores = [0.25, 0.5]
        run = tmp_path / keep
        config = small_finetune(keep=keep, train__steps=2, train__validate_every=1)
        package = read_package(finetune(phantoms, run, None, config, cache=cache))
        assert (package.card.training["step"], package.card.training["validation_dice"]) == (step, dice)
        last = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
        state = package.load_state()
        assert all(torch.equal(state[k], last[k]) for k in last) == (keep == "last")
        said = {"best": "best at step 1; 0.250 at the last", "last": "at the last step 2; 0.500 at the best"}
        assert said[keep] in (run / "report" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(EmimError, match="best or last|keep cannot be"):
        finetune(phantoms, tmp_path / "run", None, small_finetune(keep="first"), cache=cache)


def test_finetuning_refuses_what_cannot_work(phantoms, cache, tmp_path, small_finetune):
    structures, overlapping = parse_structures(["lesion=9"])
    wrong = override(small_finetune(), {})
    wrong = from_dict(FinetuneConfig, {**to_dict(wrong), "structures": [to_dict(s) for s in structures]})
    with pytest.raises(EmimError, match="No label map"):
        finetune(phantoms, tmp_path / "run", None, wrong, cache=cache)
    with pytest.raises(EmimError, match="no such run"):
        finetune(phantoms, tmp_path / "run", tmp_path / "nothing", small_finetune(), cache=cache)
    with pytest.raises(EmimError, match="labelled cases are there|labelled cannot be"):
        finetune(phantoms, tmp_path / "run", None, small_finetune(labelled=99), cache=cache)
    assert not (tmp_path / "run").exists()


def test_the_model_says_what_its_maker_wants_it_to(phantoms, cache, tmp_path):
    structures = [{"name": "Œdème", "values": [2], "color": [1, 2, 3], "terminology": "a~b"}]
    (tmp_path / "structures.json").write_text(json.dumps(structures), encoding="utf-8")
    run = tmp_path / "run"
    words = ["--name", "Küche", "--description", "D.", "--intended-use", "Teaching.", "--licence", "CC0"]
    small = ["--device=cpu", "--set=network.filters=4", "--set=network.blocks=1,1,1", "--set=train.crop=16"]
    command = ["finetune", str(phantoms), "--init=none", "--out", str(run), "--cache", str(cache)]
    pattern = ["--pattern", "FLAIR=*_FLAIR"]
    given = ["--structures", str(tmp_path / "structures.json")]
    assert main([*command, *small, *words, *pattern, *given, "--steps=1"]) == 0
    card = read_package(run).card
    assert [card.name, card.description, card.intended_use, card.licence] == words[1::2]
    (structure,) = card.structures
    assert (structure.name, structure.color, structure.terminology) == ("Œdème", (1, 2, 3), "a~b")
    assert card.patterns["FLAIR"][0] == "*_FLAIR" and "dark fluid" in card.patterns["FLAIR"]
    assert card.patterns["T1"] == list(PATTERNS["T1"])
    assert main([*command, "--overwrite", "--structure=x=2", *given]) == 2
    assert main(["finetune", "--out", str(run), "--resume", "--name", "x"]) == 2


# ---- watching ------------------------------------------------------------------------------------


@pytest.fixture
def cases(phantoms, cache):
    return build_cache(scan(phantoms).cohort, PreprocessConfig(spacing=(5.0, 5.0, 5.0)), cache)


def test_validation_takes_few_crops_at_once_whatever_the_batch(cases, small_pretrain):
    """The batch may be that of many GPUs; one of them validates."""
    config = small_pretrain(train__batch=64)
    watch = PretrainWatch(config, cases[:2], cases[2:])
    model, seen, asked = PretrainModel(len(cases[0].modalities), config).eval(), [], []
    model.network.register_forward_pre_hook(lambda network, inputs: seen.append(len(inputs[0])))
    with torch.inference_mode():
        watch.measure(model, torch.device("cpu"), lambda: bool(asked.append(1)))
    assert seen and max(seen) == 2 and len(asked) == watch.units


def test_collapse_lines_are_of_people_not_of_examinations(cases, small_pretrain):
    config = small_pretrain()
    again = [dataclasses.replace(c, id=f"{c.id}-{n}") for c in cases for n in range(3)]
    once = cohort_collapse_lines(config, cases, Events())
    assert cohort_collapse_lines(config, again, Events()) == once


def test_collapse_lines_leave_out_what_a_modality_did_not_measure(cases, small_pretrain, monkeypatch):
    """A slab of one modality set to 0, as preparation does outside its field of view, hardly moves them."""
    config, whole = small_pretrain(), CachedCase.crop
    before = cohort_collapse_lines(config, cases, Events())

    def cut(self, start, size):
        read = whole(self, start, size)
        read.image[1, : size[0] // 2] = 0
        return read

    monkeypatch.setattr(CachedCase, "crop", cut)
    after = cohort_collapse_lines(config, cases, Events())
    assert after["L_a"] == pytest.approx(before["L_a"], rel=0.1)
    assert after["L_c"] == pytest.approx(before["L_c"], rel=0.1)


def test_a_case_that_a_gpu_cannot_hold_is_shown_in_part(cases, small_pretrain):
    config = small_pretrain()
    model, shapes = PretrainModel(len(cases[0].modalities), config).eval(), []
    reconstruct = model.reconstruct

    def on_a_small_gpu(batch):
        shapes.append(batch["input"].shape[2:])
        if max(shapes[-1]) > config.train.crop:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return reconstruct(batch)

    model.reconstruct = on_a_small_gpu
    with torch.inference_mode():
        shown = PretrainWatch(config, cases, cases).reconstruct(model, torch.device("cpu"))
    assert len(shapes) == 2 and shown.original.shape[1:] == (config.train.crop,) * 3
