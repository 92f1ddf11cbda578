"""Classification from the file of classes to scores: training in every mode, packages, commands."""

import csv
import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from recorder import Recorder

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.cohort.classes import check_classes, read_classes
from emim.cohort.scan import scan
from emim.config import FinetuneConfig, TrainConfig, override
from emim.errors import Cancelled, EmimError
from emim.evaluation.classification import evaluate_classes, read_predictions
from emim.events import Events
from emim.inference.classify import classify
from emim.inference.segment import segment
from emim.package.bundle import read_package
from emim.report.page import write_report
from emim.run_state import read_run
from emim.training.classes import nested_order
from emim.training.classification import class_weights
from emim.training.finetune import finetune
from emim.training.pretrain import pretrain
from emim.training.split import split_by_subject
from EMIMLib.models import ModelRegistry

SOLITARY, MULTIFOCAL = "solitary", "multifocal"
SMALL = {
    "task": "classification",
    "network.filters": 4,
    "network.blocks": (1, 1, 1),
    "train.crop": 16,
    "train.steps": 4,
    "train.validate_every": 2,
    "train.device": "cpu",
    "train.validation_share": 0.3,
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Eight subjects at 5 mm, four of each class."""
    from emim.phantom.generate import generate

    folder = tmp_path_factory.mktemp("classes") / "phantoms"
    return generate(folder, subjects=8, labelled=1, spacing=5.0, classes=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "cache"


@pytest.fixture(scope="module")
def found(heads):
    return scan(heads)


def config(heads, **settings):
    settings = {k.replace("__", "."): v for k, v in settings.items()}
    labels = {"classification.labels": str(heads / "classes.csv")}
    return override(FinetuneConfig(), {**SMALL, **labels, **settings})


@pytest.fixture(scope="module")
def model(heads, found, cache, tmp_path_factory):
    """A package of a run in mode full, in its run folder."""
    return finetune(found, tmp_path_factory.mktemp("runs") / "full", config=config(heads), cache=cache)


def truth(heads):
    with open(heads / "classes.csv", encoding="utf-8") as file:
        return {row["case"]: row["class"] for row in csv.DictReader(file)}


# ---- the file of classes ------------------------------------------------------------------------

COHORT = Cohort(("T1",), tuple(Case(f"s{i}-{j}", f"s{i}", {"T1": "x"}) for i in range(3) for j in range(2)))


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.csv", "case,class\ns0-0,1\ns0-1,\ns2-1,2\n"),
        ("a.csv", "\ufeffID; label ;age\ns0-0;1;50\ns2-1;2;60\n"),
        ("a.csv", "id,T1,label,class\ns0-0,t1.nii,seg.nii,1\ns2-1,t1.nii,seg.nii,2\n"),
        ("a.json", '{"s0-0": 1, "s2-1": "2"}'),
        ("a.json", '[{"case": "s0-0", "class": 1}, {"case": "s2-1", "class": 2}]'),
    ],
)
def test_forms_of_the_file_of_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_classes(tmp_path / name, COHORT) == {"s0-0": "1", "s2-1": "2"}


def test_classes_of_subjects_go_to_all_their_cases(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("subject\tclass\ns0\tb\ns1\ta\n")
    assert read_classes(file, COHORT) == {"s0-0": "b", "s0-1": "b", "s1-0": "a", "s1-1": "a"}
    file.write_text("case,class\ns0-0,b\ns1-0,a\ngone,a\n")
    assert read_classes(file, COHORT, left_out=["gone"]) == {"s0-0": "b", "s1-0": "a"}


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("a.csv", "case,class\ns0-0,a\nnobody,b\n", "nobody"),
        ("a.csv", "case,class\ns0-0,a\ns0-0,b\n", "two classes"),
        ("a.csv", "case,class\ns0-0,a\ns1-0,a\n", "only the class 'a'"),
        ("a.csv", "case,class\n", "columns"),
        ("a.csv", "patient,class\ns0-0,a\n", "columns"),
        ("a.csv", "case,class\n,a\n", "no case"),
        ("a.json", "{", "JSON"),
        ("a.json", "[1]", "form"),
        ("a.json", '{"s0-0": ["a"]}', "not a class"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_files_of_classes_that_are_refused(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(EmimError, match=said):
        read_classes(tmp_path / name, COHORT)


def test_order_of_classes():
    found = {"x": "10", "y": "9", "z": "benign"}
    assert check_classes((), found) == ("9", "10", "benign")
    assert check_classes(("benign", "9", "10"), found) == ("benign", "9", "10")
    with pytest.raises(EmimError, match="names"):
        check_classes(("9", "10"), found)
    with pytest.raises(EmimError, match="upper and lower"):
        check_classes((), {"x": "Benign", "y": "benign"})


# ---- splits and weights -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_splits_are_stratified_and_grouped(seed):
    cases = [Case(f"s{i}-{j}", f"s{i}", {"T1": "x"}) for i in range(20) for j in range(1 + i % 2)]
    classes = {c.id: "rare" if int(c.subject[1:]) < 4 else "usual" for c in cases}
    cohort = Cohort(("T1",), tuple(cases))
    split = split_by_subject(cohort, TrainConfig(seed=seed, validation_share=0.25), classes)
    subjects = {i.split("-")[0]: classes[i] for i in split.validation}
    assert Counter(subjects.values()) == {"rare": 1, "usual": 4}
    assert not {i.split("-")[0] for i in split.training} & set(subjects)


def test_label_fractions_are_nested_and_classes_take_turns():
    classes = {f"c{i}": "a" if i < 3 else "b" for i in range(12)}
    order = nested_order(sorted(classes), 0, classes)
    assert sorted(order) == sorted(classes) and order != nested_order(sorted(classes), 1, classes)
    assert Counter(classes[i] for i in order[:6]) == {"a": 3, "b": 3}


def test_class_weights_balance():
    weights = class_weights([0, 0, 0, 1], 2)
    assert torch.allclose(weights, torch.tensor([2 / 3, 2.0])), "each class has the same sum"


# ---- training -----------------------------------------------------------------------------------


def test_a_run_and_its_package(heads, model):
    run = model.parent
    card = read_package(model).card
    assert card.task == "classification" and card.classes == (MULTIFOCAL, SOLITARY) and not card.structures
    assert card.training["validation_auc"] is not None and card.training["mode"] == "full"
    state = read_run(run)
    assert state.state == "finished" and state.step == 4 and state.verdict["state"] in ("undecided",
        "better than guessing", "no better than guessing")  # fmt: skip
    assert json.loads((run / "classes.json").read_text())["labels"] == truth(heads)
    split = json.loads((run / "split.json").read_text())
    assert {truth(heads)[i] for i in split["validation"]} == {SOLITARY, MULTIFOCAL}
    page = write_report(run).read_text(encoding="utf-8")
    assert "Balanced accuracy" in page and f"predicted {SOLITARY}" in page
    bundle = json.loads((model / "configs" / "metadata.json").read_text())
    assert bundle["task"].startswith("Classification")
    assert bundle["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": MULTIFOCAL, "1": SOLITARY}


def test_events_of_a_run(model):
    events = [json.loads(line) for line in (model.parent / "events.jsonl").read_text().splitlines()]
    measured = [e for e in events if e["type"] == "metric" and e["split"] == "validation"]
    assert [e["step"] for e in measured] == [2, 4]
    for event in measured:
        assert set(event["recall_per_class"]) == {SOLITARY, MULTIFOCAL} and event["cases"] == 2
        assert np.sum(event["confusion"]) == 2
    assert events[-1]["type"] == "result" and events[-1]["validation_auc"] in (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    "network",
    [
        {"network.backbone": "vit", "network.patch": 8, "network.width": 24, "network.heads": 2},
        {"network.backbone": "swin", "network.filters": 16, "network.stages": (1, 1)},
    ],
    ids=["vit", "swin"],
)
def test_other_backbones(heads, found, cache, tmp_path, network):
    more = {"network.depth": 3} if network["network.backbone"] == "vit" else {}
    settings = override(config(heads, train__steps=2), {**network, **more})
    package = finetune(found, tmp_path / "run", config=settings, cache=cache)
    result = classify(package, {"T1": heads / "sub-001" / "sub-001_T1.nii.gz"})
    assert sum(result["probabilities"].values()) == pytest.approx(1)


def test_a_pretrained_encoder_that_learns_gets_the_scale_of_a_fresh_one(
    heads, found, cache, tmp_path, small_pretrain, seen_rates
):
    pretrained = pretrain(found, tmp_path / "pre", small_pretrain(train__steps=2), cache=cache)
    state = torch.load(pretrained / "checkpoints" / "last.pt", weights_only=True)
    for name, weight in state["model"].items():  # as a long pre-training leaves them
        if name.endswith("conv2.weight"):
            weight += 0.3 * weight.abs().mean()
    torch.save(state, pretrained / "checkpoints" / "last.pt")
    settings = config(heads, train__steps=2, transferred_rate=0.5)
    seen = seen_rates()
    for resume in (False, True):  # which knows no more of the weights than transfer.json
        with pytest.raises(Cancelled):
            finetune(found, tmp_path / "run", pretrained, settings, cache=cache, resume=resume)
    report = json.loads((tmp_path / "run" / "transfer.json").read_text())
    assert "scale of the weights" in dict(report["adapted"])
    rates = report["rates"]
    assert seen[0] == seen[1] and any("conv2" in name for name in rates)
    assert seen[0] == {n: 1.0 if n in report["new"] else 0.5 * rates.get(n, 1.0) for n in seen[0]}


@pytest.mark.parametrize("mode", ["linear", "knn"])
def test_probes_keep_the_encoder(heads, found, cache, tmp_path, small_pretrain, mode):
    pretrained = pretrain(found, tmp_path / "pre", small_pretrain(train__steps=2), cache=cache)
    settings = config(heads, classification__mode=mode, modality_dropout=0)
    package = finetune(found, tmp_path / "run", init=pretrained, config=settings, cache=cache)
    learned = torch.load(pretrained / "checkpoints" / "last.pt", weights_only=True)["model"]
    state = read_package(package).load_state()
    for name, value in state.items():
        if name.startswith(("encoder.", "tokens.")):
            assert torch.equal(value, learned[f"network.{name}"]), name
    if mode == "knn":
        assert read_package(package).card.classifier.bank == len(state["output.head.target"]) == 6
        assert read_run(package.parent).state == "finished"
        features = state["output.head.features"]
        assert torch.allclose(features.mean(0), torch.zeros(features.shape[1]), atol=1e-4)
    one = classify(package, found.cohort.cases[0].images)
    assert one["missing"] == [] and sum(one["probabilities"].values()) == pytest.approx(1)
    with pytest.raises(EmimError, match="needs T1ce, T2, FLAIR"):  # no modality was dropped in training
        classify(package, {"T1": heads / "sub-001" / "sub-001_T1.nii.gz"})


def test_a_stopped_run_goes_on_bit_by_bit(heads, found, cache, model, tmp_path):
    class StopAt2(Events):
        def progress(self, done, total, unit="step", text=""):
            if unit == "step" and done == 2:
                (tmp_path / "run" / "cancel").touch()

    with pytest.raises(Cancelled):
        finetune(found, tmp_path / "run", config=config(heads), cache=cache, events=StopAt2())
    (heads / "classes.csv").rename(heads / "moved.csv")  # the run knows its classes
    try:
        finetune(None, tmp_path / "run", resume=True, cache=cache)
    finally:
        (heads / "moved.csv").rename(heads / "classes.csv")
    last = [torch.load(f / "checkpoints/last.pt")["model"] for f in (tmp_path / "run", model.parent)]
    assert all(torch.equal(last[0][k], last[1][k]) for k in last[1])


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"classification.labels": None}, "which class"),
        ({"task": "regression"}, "task"),
        ({"task": "segmentation"}, "classification.labels"),
        ({"classification.mode": "magic"}, "mode"),
        ({"classification.pooling": "max"}, "pooling"),
        ({"classification.mode": "knn", "classification.pooling": "attention"}, "pooling"),
        ({"classification.neighbours": 0}, "neighbours"),
        ({"classification.classes": (SOLITARY, "x")}, "classes"),
        ({"labelled": 1}, "No training case"),
        ({"train.cases": ("sub-001",), "train.validation": ("sub-002",)}, "No training case"),
    ],
)
def test_settings_that_are_refused(heads, found, tmp_path, settings, said):
    changed = override(config(heads), settings) if "classification.labels" not in settings else None
    if changed is None:
        changed = dataclasses.replace(config(heads), classification=FinetuneConfig().classification)
    with pytest.raises(EmimError, match=said):
        finetune(found, tmp_path / "run", config=changed)
    assert not (tmp_path / "run").exists()


# ---- use ----------------------------------------------------------------------------------------


def test_a_cohort_is_classified_and_evaluated(heads, found, model, tmp_path):
    events = Recorder()
    results = classify(model, None, tmp_path / "p.csv", cohort=found, events=events)
    assert [c["inputs"] for c in events.cases] == [c.images for c in found.cohort.cases]
    assert [r["case"] for r in results] == [f"sub-{i:03d}" for i in range(1, 9)]
    one = classify(model, {m: p for m, p in found.cohort.cases[0].images.items()})
    assert one["probabilities"] == pytest.approx(results[0]["probabilities"], abs=1e-4)
    classes, rows = read_predictions(tmp_path / "p.csv")
    assert classes == (MULTIFOCAL, SOLITARY) and len(rows) == 8
    with pytest.raises(EmimError, match="exists"):
        classify(model, None, tmp_path / "p.csv", cohort=found)
    _, data = evaluate_classes(tmp_path / "p.csv", truth(heads), found.cohort, tmp_path / "s.json")
    right = np.mean([r["class"] == truth(heads)[r["case"]] for r in results])
    assert data["accuracy"] == right and data["majority_accuracy"] == 0.5
    assert json.loads((tmp_path / "s.json").read_text())["confusion"] == data["confusion"]
    assert (tmp_path / "s.png").stat().st_size > 5000 and "AUC" in (tmp_path / "s.txt").read_text()


def test_a_case_without_prediction_counts_as_wrong(found, heads, tmp_path):
    table = tmp_path / "p.csv"
    right = {SOLITARY: "0.9,0.1", MULTIFOCAL: "0.1,0.9"}
    lines = [f"{i},{i},,{right[c]}," for i, c in truth(heads).items()]
    head = f"case,subject,class,probability_{SOLITARY},probability_{MULTIFOCAL},error"
    table.write_text("\n".join([head, *lines]))
    assert evaluate_classes(table, truth(heads), found.cohort)[1]["accuracy"] == 1
    table.write_text("\n".join([head, *lines[1:], "sub-001,sub-001,,,,damaged"]))
    result, data = evaluate_classes(table, truth(heads), found.cohort)
    assert result.failed == ("sub-001",) and data["accuracy"] == 7 / 8
    table.write_text("\n".join([head, "sub-001,sub-001,,0.9,0.9,"]))
    with pytest.raises(EmimError, match="sum to 1"):
        evaluate_classes(table, truth(heads), found.cohort)
    with pytest.raises(EmimError, match="know no class"):
        table.write_text("case,probability_a,probability_b\nsub-001,0.5,0.5\n")
        evaluate_classes(table, truth(heads), found.cohort)


def test_each_model_for_its_own_task(heads, model, tmp_path):
    with pytest.raises(EmimError, match="emim classify"):
        segment(model, {"T1": heads / "sub-001" / "sub-001_T1.nii.gz"}, tmp_path / "x.nii.gz")
    registry = ModelRegistry(tmp_path / "models", task="segmentation")
    with pytest.raises(EmimError, match="tells cases apart"):
        registry.import_(model)
    with pytest.raises(EmimError, match="tells cases apart"):
        registry.find(str(model))
    both = ModelRegistry(tmp_path / "models")
    assert both.import_(model).problem is None and both.find("full").card.task == "classification"
    [listed] = registry.models()
    assert listed.name == "full" and "tells cases apart" in listed.problem.what
    for welcoming in (both, ModelRegistry(tmp_path / "models", task="classification")):
        assert welcoming.models()[0].problem is None


def test_commands(heads, model, cache, tmp_path, capsys):
    classes = str(heads / "classes.csv")
    shared = ["finetune", str(heads), "--init", "none", "--task", "classification", "--classes", classes]
    small = [f"--set={k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in SMALL.items()]
    assert main([*shared, *small, "--dry-run", "--mode", "knn", "--cache", str(cache), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["steps"] == 1 and told["seconds"] > 0
    assert main([*shared, "--structure", "A=1", "--out", str(tmp_path / "r")]) == 2
    table = str(tmp_path / "p.csv")
    use = ["classify", "--model", str(model.parent), "--cohort", str(heads), "--cases", "sub-001,sub-002"]
    assert main([*use, "--output", table, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["classified"] == 2 and told["cases"][0]["class"] in (SOLITARY, MULTIFOCAL)
    score = ["evaluate", str(heads), "--classes", classes, "--predictions", table]
    assert main([*score, "--cases", "sub-001,sub-002"]) == 0
    assert main(score) == 4, "six cases have no prediction"
    assert "6 failed" in capsys.readouterr().out
    assert main(["classify", "--model", str(model.parent)]) == 2
    assert main([*score, "--output", table, "--overwrite"]) == 2
    beside = tmp_path / "grades.txt"
    beside.write_text("case,class\nsub-001,solitary\n")
    mine = ["evaluate", str(heads), "--classes", str(beside), "--predictions", table, "--overwrite"]
    assert main([*mine, "--output", str(tmp_path / "grades.json")]) == 2, "the table is written there"
    assert beside.read_text().startswith("case,class")
    assert main([*use, "--split", table, "--output", table, "--overwrite"]) == 2
    assert "would overwrite what --" in capsys.readouterr().err


def test_naming_classes_is_asking_for_classification(heads, tmp_path, capsys):
    asked = ["finetune", str(heads), "--init", "none", "--out", str(tmp_path / "r"), "--mode", "magic"]
    assert main([*asked, "--classes", str(heads / "classes.csv")]) == 2
    assert "classification.mode" in capsys.readouterr().err
