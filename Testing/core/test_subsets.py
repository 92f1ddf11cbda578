"""Evaluation with subsets of the modalities, with a network that looks at one modality for each structure."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from recorder import Recorder

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.cohort.scan import scan
from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.errors import Cancelled, EmimError
from emim.evaluation import by_subset
from emim.evaluation.by_subset import evaluate_subsets
from emim.evaluation.segmentation import evaluate
from emim.evaluation.subsets import check_trained, distinct, marks, parse_subsets
from emim.events import Events
from emim.inference.predict import predict_case
from emim.inference.segment import segment
from emim.networks.build import build_segmenter
from emim.networks.segmenter import Segmenter
from emim.package.bundle import read_package, write_package
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.preprocess import PreparedCase

SHAPE = (20, 22, 24)  # (Z, Y, X)
FOUR = ("T1", "T1ce", "T2", "FLAIR")
CARD = ModelCard(
    name="threshold",
    modalities=("FLAIR", "T1ce"),
    optional=("FLAIR", "T1ce"),
    structures=(Structure("Lesion", (1, 2), 2, (255, 200, 0)), Structure("Core", (1,), 1, (255, 0, 0))),
    overlapping=True,
    preprocess=PreprocessConfig(spacing=(2.0, 2.0, 2.0)),
    network=NetworkConfig(filters=2, blocks=(1, 1)),
    crop=16,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The lesion is what is bright in FLAIR, the core what is bright in T1ce."""
    state = {k: torch.zeros_like(v) for k, v in Segmenter(2, 2, CARD.network).state_dict().items()}
    first, last = "unet.encoder.conv_init.weight", "unet.up_layers.0.head"
    for m in range(2):
        state[first][m, m, 1, 1, 1] = 1
        state[f"{last}.weight"][m, m], state[f"{last}.bias"][m] = 20, -30
    return write_package(tmp_path_factory.mktemp("m") / "model", CARD, state)


@pytest.fixture
def cohort(tmp_path):
    """Two complete cases, one without T1ce, one unlabelled."""
    rng = np.random.default_rng(0)
    cases = []
    for number, at in enumerate((6, 8, 7)):
        label = np.zeros(SHAPE, np.int16)
        label[at : at + 6, 7:13, 8:14] = 2
        label[at + 1 : at + 5, 8:12, 9:13] = 1
        head = np.zeros(SHAPE, bool)
        head[2:-2, 2:-2, 2:-2] = True
        images = {}
        for name, bright in (("FLAIR", label > 0), ("T1ce", label == 1)):
            voxels = np.where(bright, 600, 200) + rng.normal(0, 10, SHAPE)
            images[name] = save(tmp_path / f"c{number}_{name}.nii.gz", np.where(head, voxels, 0))
        if number == 2:
            del images["T1ce"]
        cases.append(
            Case(f"c{number}", f"c{number}", images, save(tmp_path / f"c{number}_seg.nii.gz", label))
        )
    return Cohort(("T1ce", "FLAIR"), (*cases, Case("none", "none", dict(cases[0].images))))


def save(path, array):
    image = sitk.GetImageFromArray(array.astype(np.int16))
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, str(path))
    return str(path)


def test_names_of_subsets():
    every = parse_subsets("all", FOUR)
    assert len(every) == len(set(every)) == 15
    assert every[0] == FOUR and every[1] == ("T1", "T1ce", "T2") and every[-1] == ("FLAIR",)
    fewer = parse_subsets("leave-one-out", FOUR)
    assert fewer[0] == FOUR and [set(FOUR) - set(s) for s in fewer[1:]] == [{m} for m in FOUR]
    assert parse_subsets("leave-one-out", ("T1",)) == [("T1",)]
    assert parse_subsets("flair + t1, T2", FOUR) == [("T1", "FLAIR"), ("T2",)]
    assert parse_subsets("t1+C,T1", ("T1+C", "T1")) == [("T1+C",), ("T1",)]
    assert distinct([("T1+C", "t2"), ["T2"]], ("T2", "T1+C")) == [("T2", "T1+C"), ("T2",)]
    with pytest.raises(EmimError, match="names no modality"):
        distinct([()], FOUR)
    assert marks(("T1", "T2"), FOUR) == ["●", "○", "●", "○"]
    with pytest.raises(EmimError, match="no modality 'PD'"):
        parse_subsets("T1+PD", FOUR)
    with pytest.raises(EmimError, match="twice"):
        parse_subsets("T1+T2,T2+T1", FOUR)
    with pytest.raises(EmimError, match="no modality ''"):
        parse_subsets("T1,", FOUR)


def test_a_model_is_not_asked_for_what_it_never_learned():
    card = dataclasses.replace(CARD, optional=("T1ce",))
    check_trained([("FLAIR", "T1ce"), ("FLAIR",)], card)
    with pytest.raises(EmimError, match="without FLAIR"):
        check_trained([("FLAIR", "T1ce"), ("T1ce",)], card)


def test_every_subset_is_scored_on_the_same_cases(model, cohort, tmp_path):
    events = Recorder()
    result = evaluate_subsets(model, cohort, output=tmp_path / "out/scores.json", device="cpu", events=events)
    assert list(result.results) == [("FLAIR", "T1ce"), ("FLAIR",), ("T1ce",)]
    assert result.left_out == ("c2",) and any("c2" in w for w in events.warnings) and not result.failed
    dice = {
        subset: [[s.dice for s in case.scores] for case in scored.cases]
        for subset, scored in result.results.items()
    }
    # The structure whose modality is missing is not found, but a lesion is never less than its core.
    core = 2 * 64 / (64 + 216)
    assert dice["FLAIR", "T1ce"] == [[1, 1], [1, 1]]
    assert dice["FLAIR",] == [[1, 0], [1, 0]]
    assert np.array(dice["T1ce",]) == pytest.approx(np.array([[core, 1], [core, 1]]))

    data = json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    assert [s["modalities"] for s in data["subsets"]] == [["FLAIR", "T1ce"], ["FLAIR"], ["T1ce"]]
    assert data["subsets"][1]["mean_dice"] == 0.5 and data["left_out"] == ["c2"]
    assert data["subsets"][2]["cases"][1]["scores"][0]["dice"] == pytest.approx(core)
    assert data["mean_dice"] == pytest.approx((1 + 0.5 + (1 + core) / 2) / 3)
    text = (tmp_path / "out/scores.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines()]
    assert rows[3][:5] == ["●", "○", "1.000", "0.000", "0.500"] and rows[4][:2] == ["○", "●"]
    assert text == result.table() and "c2" in text
    markdown = (tmp_path / "out/scores.md").read_text(encoding="utf-8").splitlines()
    assert markdown[3].startswith("| ● | ○ | 1.000 | 0.000 | 0.500 |")
    assert len({line.count("|") for line in markdown[:6]}) == 1
    with pytest.raises(EmimError, match="exists already"):
        evaluate_subsets(model, cohort, output=tmp_path / "out/scores.json", device="cpu")


def test_all_modalities_score_as_segment_and_evaluate_do(model, cohort, tmp_path):
    case = cohort.cases[0]
    segment(model, case.images, tmp_path / "seg/c0.nii.gz", device="cpu", overlay=False)
    apart = evaluate({"c0": case.label}, tmp_path / "seg", CARD.structures).cases[0].scores
    whole = Cohort(cohort.modalities, (case,))
    together = evaluate_subsets(model, whole, "flair+t1ce", device="cpu").results["FLAIR", "T1ce"]
    assert together.cases[0].scores == apart


def test_a_case_is_prepared_once_and_fewer_subsets_use_more_cases(model, cohort, monkeypatch):
    from emim.evaluation import by_subset

    prepared, real = [], by_subset.prepare_case
    monkeypatch.setattr(by_subset, "prepare_case", lambda case, *a: prepared.append(case) or real(case, *a))
    evaluate_subsets(model, cohort, "all", device="cpu")
    assert [c.id for c in prepared] == ["c0", "c1"] and all(c.label is None for c in prepared)
    result = evaluate_subsets(model, cohort, [("FLAIR",)], device="cpu")
    assert len(result.results["FLAIR",].cases) == 3 and not result.left_out


def test_a_case_that_cannot_be_read_is_a_failure_of_every_subset(model, cohort, tmp_path):
    (tmp_path / "c1_T1ce.nii.gz").write_bytes(b"no image")
    result = evaluate_subsets(model, cohort, device="cpu", events=Recorder())
    assert result.failed == ("c1",) and "Failed: c1" in result.table()
    for scored in result.results.values():
        assert [s.dice for s in scored.cases[1].scores] == [0, 0] and scored.cases[1].error


def test_a_case_that_the_scan_finds_unusable_is_a_failure_too(model, cohort, tmp_path):
    (tmp_path / "c1_T1ce.nii.gz").write_bytes(b"no image")
    cohort.without(["none"]).save(tmp_path / "list.json")  # a copy of c0
    found = scan(tmp_path / "list.json")
    assert "c1" not in {c.id for c in found.cohort.cases}
    result = evaluate_subsets(model, found, [("FLAIR",)], device="cpu", events=Recorder())
    scored = result.results["FLAIR",]
    assert result.failed == ("c1",) and {c.id for c in scored.cases} == {"c0", "c1", "c2"}
    assert "Left out by the scan: T1ce" in scored.failed[0].error


def test_any_failure_of_a_case_leaves_the_others(model, cohort, tmp_path, monkeypatch):
    def predict(network, case, *rest):
        if "c0" in rest[-1]:
            raise RuntimeError("out of memory")
        return predict_case(network, case, *rest)

    monkeypatch.setattr("emim.inference.predict.predict_case", predict)
    events = Recorder()
    result = evaluate_subsets(model, cohort, device="cpu", events=events)
    assert result.failed == ("c0",) and result.results["FLAIR",].cases[1].scores[0].dice == 1
    assert any("out of memory" in w for w in events.warnings)


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_done_outlives_a_stop(model, cohort, tmp_path, monkeypatch, killed):
    output, unfinished = tmp_path / "scores.json", tmp_path / "scores.unfinished.json"
    seen = []
    events = Events()
    events.status = seen.append
    if killed:  # without a word: what was written by then is what remains
        monkeypatch.setattr(by_subset, "SAVE_EVERY", 0)
    stop = unfinished.exists if killed else lambda: any("c1" in text for text in seen)
    with pytest.raises(Cancelled):
        evaluate_subsets(model, cohort, output=output, device="cpu", events=events, should_stop=stop)
    data = json.loads(unfinished.read_text(encoding="utf-8"))
    assert [[c["id"] for c in s["cases"]] for s in data["subsets"]] == [["c0"]] * 3
    assert not output.exists(), "a study would take it for done"
    evaluate_subsets(model, cohort, output=output, device="cpu")
    assert output.exists() and not unfinished.exists()


def test_a_label_map_of_structures_that_overlap_partly_is_warned_of(model, cohort, tmp_path, capsys):
    partly = (Structure("A", (1, 2), 1, (0, 0, 0)), Structure("B", (2, 3), 2, (0, 0, 0)))
    card = dataclasses.replace(CARD, structures=partly)
    other = write_package(tmp_path / "partly", card, read_package(model).load_state())
    inputs = [f"--input={m}={file}" for m, file in cohort.cases[0].images.items()]
    for number, (network, name, warned) in enumerate(
        [(other, "seg.nii.gz", True), (other, "seg.seg.nrrd", False), (model, "seg.nii.gz", False)]
    ):
        output = str(tmp_path / f"{number}" / name)
        assert main(["segment", f"--model={network}", *inputs, f"--output={output}", "--device=cpu"]) == 0
        assert ("cannot hold both 'A' and 'B'" in capsys.readouterr().err) == warned


def test_bad_input(model, cohort, tmp_path):
    with pytest.raises(EmimError, match="no modality 'T2'"):
        evaluate_subsets(model, cohort, "T2", device="cpu")
    with pytest.raises(EmimError, match="No labelled case has all of FLAIR, T1ce"):
        evaluate_subsets(model, cohort.select(["c2"]), device="cpu")
    with pytest.raises(EmimError, match="no reference labels"):
        evaluate_subsets(model, cohort.select(["none"]), device="cpu")
    with pytest.raises(EmimError, match=r"\.json"):
        evaluate_subsets(model, cohort, output=tmp_path / "scores.txt", device="cpu")
    with pytest.raises(EmimError, match="not those of the model"):
        evaluate_subsets(model, cohort, structures=CARD.structures[:1], device="cpu")
    with pytest.raises(Cancelled):
        evaluate_subsets(model, cohort, device="cpu", should_stop=lambda: True)
    (tmp_path / "c1_seg.nii.gz").write_bytes(b"no image")
    with pytest.raises(EmimError, match="c1_seg"):
        evaluate_subsets(model, cohort, device="cpu")


def test_a_model_that_needs_all_is_scored_only_when_asked(cohort, model, tmp_path):
    package = read_package(model)
    strict = dataclasses.replace(package, card=dataclasses.replace(package.card, optional=()))
    with pytest.raises(EmimError, match="without FLAIR, T1ce"):
        evaluate_subsets(strict, cohort, device="cpu")
    assert len(evaluate_subsets(strict, cohort, device="cpu", untrained=True).results) == 3
    other = dataclasses.replace(package, card=dataclasses.replace(package.card, task="classification"))
    with pytest.raises(EmimError, match="does not segment"):
        evaluate_subsets(other, cohort, device="cpu")


@pytest.mark.parametrize("backbone", ["resunet", "vit", "swin"])
def test_voxels_of_an_absent_modality_do_not_matter(backbone):
    network = NetworkConfig(
        backbone=backbone, filters=16 if backbone == "swin" else 4, blocks=(1, 1), stages=(1, 1), patch=8,
        width=24, depth=2, heads=2,
    )  # fmt: skip
    card = dataclasses.replace(CARD, network=network)
    torch.manual_seed(0)
    built = build_segmenter(2, 2, network)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    other = image.copy()
    other[1] = rng.normal(size=SHAPE) * 3 + 1
    grid = Grid.of(sitk.Image(*SHAPE[::-1], sitk.sitkUInt8))

    def predicted(voxels, present):
        case = PreparedCase(voxels, np.array(present), np.ones(SHAPE, bool), None, grid, "")
        return predict_case(built, case, card, torch.device("cpu"))

    assert np.array_equal(predicted(image, [True, False]), predicted(other, [True, False]))
    assert not np.array_equal(predicted(image, [True, True]), predicted(other, [True, True]))


def test_command_line(model, cohort, tmp_path, capsys):
    datalist = tmp_path / "list.csv"
    rows = [f"{c.id},{c.images['FLAIR']},{c.images['T1ce']},{c.label}" for c in cohort.cases[:2]]
    datalist.write_text("\n".join(["id,FLAIR,T1ce,label", *rows]), encoding="utf-8")
    command = ["evaluate", str(datalist), "--device", "cpu"]
    assert main([*command, "--model", str(model), "--subsets", "leave-one-out"]) == 0
    assert "○     ●" in capsys.readouterr().out
    for arguments, said in (
        ([], "What is to be evaluated"),
        (["--subsets", "all", "--predictions", str(tmp_path)], "What is to be evaluated"),
        (["--subsets", "all"], "--model"),
        (["--subsets", "T9", "--model", str(model)], "T9"),
    ):
        assert main([*command, *arguments]) == 2
        assert said in capsys.readouterr().err
