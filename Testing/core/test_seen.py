"""A model is judged on cases that are new to it: those its training has seen are known again and left out."""

import csv
import dataclasses
import json
import shutil

import pytest
import SimpleITK as sitk

from emim.cli import main
from emim.cohort.scan import scan
from emim.evaluation.by_subset import SubsetEvaluation
from emim.evaluation.lineage import read_lineage
from emim.evaluation.scores import Score
from emim.evaluation.seen import Seen, cases_seen
from emim.evaluation.segmentation import CaseScores, Evaluation
from emim.training.finetune import finetune
from emim.training.pretrain import pretrain

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


def written_run(folder, found, command="finetune", init=None, training=(), validation=()):
    """A run folder as far as it tells what was seen."""
    folder.mkdir(parents=True)
    split = {"training": training, "validation": validation, "excluded": []}
    config = {"command": command, "init": None if init is None else str(init)}
    for name, data in (("config", config), ("split", split), ("cohort", found.to_dict())):
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def found(phantoms):
    return scan(phantoms)


@pytest.fixture
def run(found, tmp_path):
    """Pre-trained on 3 and 5, fine-tuned on 1, validated on 2."""
    before = written_run(tmp_path / "before", found, "pretrain", training=["sub-003", "sub-005"])
    return written_run(
        tmp_path / "run", found, init=before, training=["sub-001"], validation=["sub-002"]
    )  # fmt: skip


def test_training_validation_and_pretraining_are_told_apart(found, run):
    seen = cases_seen(run, found, {f"sub-00{n}" for n in range(1, 5)})
    assert seen.learned == {"sub-001": "training of run", "sub-002": "validation of run"}
    assert seen.pretrained == ("sub-003",) and not seen.doubts
    assert cases_seen(run / "model", found, {"sub-004"}) == type(seen)()


def test_weights_that_were_fine_tuned_before_have_learned_too(found, run, tmp_path):
    again = written_run(tmp_path / "again", found, init=run / "model", training=["sub-004"])
    seen = cases_seen(again, found, [row.id for row in found.rows])
    assert seen.learned["sub-001"] == "training of run" and seen.learned["sub-004"] == "training of again"
    assert seen.pretrained == ("sub-003", "sub-005")


def test_an_image_is_known_again_under_another_name_and_type_and_tells_of_its_subject(
    phantoms, run, tmp_path
):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rows = []
    for case, subject, of in (("a", "x", 1), ("b", "x", 4), ("c", "sub-001", 6)):
        row = {"id": case, "subject": subject}
        for m in ("T1", "FLAIR"):
            image = sitk.ReadImage(str(phantoms / f"sub-00{of}" / f"sub-00{of}_{m}.nii.gz"))
            row[m] = f"{case}_{m}.mha"
            sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(folder / row[m]))
        rows.append(row)
    with open(folder / "list.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "subject", "T1", "FLAIR"])
        writer.writeheader()
        writer.writerows(rows)
    seen = cases_seen(run, scan(folder / "list.csv"), "abc")
    assert seen.learned["a"] == "training of run as sub-001"
    assert seen.learned["b"].startswith("same subject as a: ")
    assert set(seen.learned) == {"a", "b"} and len(seen.doubts) == 1
    assert "c" in seen.doubts[0] and "other people" in seen.doubts[0]


def test_an_image_put_in_the_place_of_a_seen_one_is_no_new_case(phantoms, run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(phantoms, moved)
    run = written_run(tmp_path / "there", scan(moved), training=["sub-001"])
    for m in MODALITIES:
        shutil.copy(moved / f"sub-006/sub-006_{m}.nii.gz", moved / f"sub-001/sub-001_{m}.nii.gz")
    shutil.rmtree(moved / "sub-006")
    assert set(cases_seen(run, scan(moved), ["sub-001"]).learned) == {"sub-001"}


def test_what_is_not_known_is_told(found, run, tmp_path):
    package = tmp_path / "installed"
    package.mkdir()
    seen = cases_seen(package, found, ["sub-001"])
    assert not seen.learned and "not recorded" in seen.doubts[0]
    after = written_run(tmp_path / "after", found, init=package, training=["sub-001"])
    seen = cases_seen(after, found, ["sub-001"])
    assert seen.learned and "installed" in seen.doubts[0]
    (after / "split.json").write_text("{", encoding="utf-8")
    assert any("cannot be read" in d for d in cases_seen(after, found, ["sub-001"]).doubts)
    record = json.loads((run / "cohort.json").read_text(encoding="utf-8"))
    for facts in (f for case in record["cases"] for f in case["files"].values()):
        facts["digest"] = "of an earlier kind"
    (run / "cohort.json").write_text(json.dumps(record), encoding="utf-8")
    seen = cases_seen(run, found, ["sub-001"])
    assert seen.learned and "no record of its voxels" in seen.doubts[0]  # by the path


def test_an_ancestor_that_was_replaced_is_remembered_or_doubted(found, phantoms, tmp_path):
    first = written_run(tmp_path / "first", found, training=["sub-001"])
    second = written_run(tmp_path / "second", found, init=first, training=["sub-002"])
    kept = {"lineage": read_lineage(first).to_dict()}
    shutil.rmtree(first)
    first = written_run(tmp_path / "first", found, training=["sub-003"])
    for run, started in ((first, 200), (second, 100)):
        (run / "events.jsonl").write_text(json.dumps({"type": "status", "time": started}) + "\n")
    seen = cases_seen(second, found, ["sub-001", "sub-003"])
    assert len(seen.doubts) == 1 and str(first) in seen.doubts[0] and "begun later" in seen.doubts[0]
    for damaged in ("{", "[]", '{"lineage": {"runs": [{"name": "first"}], "doubts": []}}'):
        (second / "transfer.json").write_text(damaged, encoding="utf-8")
        assert cases_seen(second, found, ["sub-001", "sub-003"]) == seen
    (second / "transfer.json").write_text(json.dumps(kept), encoding="utf-8")
    seen = cases_seen(second, found, ["sub-001", "sub-003"])
    assert seen.learned == {"sub-001": "training of first"} and not seen.doubts
    shutil.rmtree(first)
    assert cases_seen(second, found, ["sub-001", "sub-003"]) == seen


def test_a_resumed_run_has_seen_what_had_changed_too(phantoms, found, small_pretrain, cache, tmp_path):
    config = small_pretrain(train__steps=1, train__validation=("sub-002",))
    run = pretrain(found, tmp_path / "run", config, cache=cache)
    others = tmp_path / "others"
    shutil.copytree(phantoms, others)
    for m in MODALITIES:
        file = str(others / "sub-001" / f"sub-001_{m}.nii.gz")
        sitk.WriteImage(sitk.ReadImage(file) * 2 + 1, file)
    pretrain(scan(others), run, resume=True, cache=cache)
    record = (run / "cohort.json").read_text(encoding="utf-8")
    pretrain(scan(others), run, resume=True, cache=cache)
    assert (run / "cohort.json").read_text(encoding="utf-8") == record
    renamed = tmp_path / "renamed"
    shutil.copytree(others / "sub-001", renamed / "sub-x01")
    for file in (renamed / "sub-x01").iterdir():
        file.rename(file.with_name(file.name.replace("sub-001", "sub-x01")))
    assert cases_seen(run, scan(renamed), ["sub-x01"]).pretrained == ("sub-x01",)
    assert "sub-001" in cases_seen(run, found, ["sub-001"]).pretrained
    pretrain(None, run, resume=True, cache=cache)  # its own record is a datalist still


def test_scores_of_subsets_tell_of_what_is_not_new(found, tmp_path):
    score = Score("WT", 0.5, 1.0, 1.0, 1.0, None)
    cases = (CaseScores("sub-001", "label", None, None, (score,)),)
    seen = Seen({"sub-001": "training of run", "sub-002": "training of run"}, ("sub-003",), ("Who knows?",))
    results = {("T1",): Evaluation(("WT",), cases)}
    result = SubsetEvaluation("m", ("T1",), results, ("sub-002",), seen.of(["sub-001"]))
    assert result.to_dict()["seen"] == {
        "learned": {"sub-001": "training of run"}, "pretrained": (), "doubts": ("Who knows?",)
    }  # fmt: skip
    for text in (result.table(), result.markdown()):
        assert "Not new to the model" in text and "sub-001" in text and "Who knows?" in text
        assert "not new to the model: sub-002" not in text and "sub-003" not in text
    assert "seen" not in SubsetEvaluation("m", ("T1",), results, ()).to_dict()


def test_a_ring_of_runs_comes_to_an_end(found, tmp_path):
    one = written_run(tmp_path / "one", found, init=tmp_path / "two", training=["sub-001"])
    written_run(tmp_path / "two", found, init=one, training=["sub-002"])
    assert set(cases_seen(one, found, ["sub-001", "sub-002"]).learned) == {"sub-001", "sub-002"}


def test_a_model_is_segmented_with_and_scored_on_what_is_new_to_it(
    phantoms, found, small_pretrain, small_finetune, cache, tmp_path, capsys
):
    split = {"train__exclude": ("sub-004",), "train__validation": ("sub-001",)}
    before = pretrain(found, tmp_path / "before", small_pretrain(train__steps=2), cache=cache)
    config = small_finetune(train__steps=2, train__validate_every=2, **split)
    config = dataclasses.replace(config, modalities=MODALITIES)
    run = finetune(found, tmp_path / "run", init=before, config=config, cache=cache).parent
    out = tmp_path / "judged"
    command = ["evaluate", str(phantoms), "--model", str(run), "--device", "cpu", "--json"]
    scores = ["--output", str(out / "scores.json")]
    assert main([*command, "--segment", str(out), *scores]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = events[-1]
    assert [c["id"] for c in result["cases"]] == ["sub-004"] and set(result["images"]) == {"sub-004"}
    assert set(result["seen"]["learned"]) == {"sub-001", "sub-002", "sub-003"}
    assert result["seen"]["pretrained"] == ["sub-004"]
    assert any("Left out" in e["what"] for e in events if e["type"] == "warning")
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["seen"] == result["seen"]
    assert "Left out, as they are not new" in (out / "scores.txt").read_text(encoding="utf-8")
    assert (out / "sub-004.seg.nrrd").is_file() and not (out / "sub-005.seg.nrrd").exists()

    # What is there is neither replaced nor computed in vain.
    written = (out / "sub-004.seg.nrrd").stat().st_mtime_ns
    assert main([*command, "--segment", str(out), *scores]) == 2
    assert "exists already" in capsys.readouterr().out
    assert main([*command, "--segment", str(out), "--output", str(out / "again.json")]) == 0
    assert (out / "sub-004.seg.nrrd").stat().st_mtime_ns == written

    # The predictions of cases that it has seen are scored as told to, but not in silence.
    capsys.readouterr()
    assert main([*command, "--predictions", str(out)]) == 4  # the others have none
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("Not new to the model" in e["what"] for e in events if e["type"] == "warning")
    assert len(events[-1]["cases"]) == 4 and len(events[-1]["seen"]["learned"]) == 3

    subsets = tmp_path / "subsets.json"
    assert main([*command, "--subsets", "T1", "--untrained", "--quality=fast", "--output", str(subsets)]) == 0
    told = json.loads(subsets.read_text(encoding="utf-8"))["seen"]
    assert told["learned"] == result["seen"]["learned"]
    assert "Not new to the model" in subsets.with_suffix(".txt").read_text(encoding="utf-8")
    capsys.readouterr()

    assert main([*command, "--segment", str(tmp_path / "none"), "--cases", "sub-001,sub-002"]) == 2
    assert "no labelled case that is new" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
