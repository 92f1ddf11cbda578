"""``emim evaluate --segment`` scores the model: no label is replaced, no correction passes for it."""

import dataclasses
import json

import pytest
import SimpleITK as sitk
from test_inference import CARD, CORE, LESION, affine_of, threshold_state, write_scan

from emim.cli import main
from emim.cohort.folder import MADE, find_in_folder
from emim.config import Structure
from emim.inference import batch
from emim.inference.done_cases import changed_results
from emim.package.bundle import write_package

GRID = affine_of((2.0, 2.0, 2.0), 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    lesion = Structure("Lesion", (1,), 1, (255, 200, 0))
    card = dataclasses.replace(CARD, overlapping=False, structures=(lesion,))
    return write_package(tmp_path_factory.mktemp("m") / "model", card, threshold_state(card, (0,)))


@pytest.fixture
def judge(model, tmp_path, capsys):
    """Two cases with labels in ``labels``; a call judges the model: exit code and what it said."""
    (tmp_path / "labels").mkdir()
    cases = []
    for name, radius in (("a", LESION), ("b", CORE)):
        image = write_scan(tmp_path / f"{name}.nii.gz", GRID, radius)
        label = tmp_path / "labels" / f"{name}.seg.nrrd"
        bright = sitk.Cast(sitk.ReadImage(str(image)) > 450, sitk.sitkUInt8)
        sitk.WriteImage(bright, str(label))
        cases.append({"id": name, "images": {"FLAIR": str(image)}, "label": str(label)})
    file = tmp_path / "list.json"
    file.write_text(json.dumps(cases), encoding="utf-8")

    def call(folder, *more):
        command = ["evaluate", str(file), "--model", str(model), "--device=cpu", "--quality=fast"]
        code = main([*command, "--segment", str(folder), "--output", str(tmp_path / "scores.json"), *more])
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


def corrected(file):
    """Saved by somebody who has drawn in it."""
    image = sitk.ReadImage(str(file))
    image[0, 0, 0] = 1
    sitk.WriteImage(image, str(file))
    return file.read_bytes()


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_labels_are_neither_replaced_nor_taken_for_results(judge, computed, tmp_path, more):
    labels = {f: f.read_bytes() for f in (tmp_path / "labels").iterdir()}
    code, told = judge(tmp_path / "labels", *more)
    assert code == 2 and "overwrite an input" in told and "a.seg.nrrd" in told
    assert {f: f.read_bytes() for f in (tmp_path / "labels").iterdir()} == labels and not computed


def test_results_that_have_become_labels_are_not_scored_by_themselves(judge, tmp_path):
    out, file = tmp_path / "out", tmp_path / "list.json"
    assert judge(out)[0] == 0
    cases = [{**c, "label": str(out / f"{c['id']}.seg.nrrd")} for c in json.loads(file.read_text())]
    file.write_text(json.dumps(cases), encoding="utf-8")
    code, told = judge(out, "--overwrite")
    assert code == 2 and "overwrite an input" in told
    assert judge(tmp_path / "new", "--overwrite")[0] == 0


def test_overwrite_is_of_the_scores_and_what_is_segmented_stays(judge, computed, tmp_path):
    out, scores = tmp_path / "out", tmp_path / "scores.json"
    assert judge(out)[0] == 0 and computed == ["a", "b"]
    first = scores.read_bytes()
    assert judge(out)[0] == 2
    scores.write_text("{}", encoding="utf-8")
    assert judge(out, "--overwrite")[0] == 0 and computed == ["a", "b"]
    assert scores.read_bytes() == first
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "b.seg.nrrd").write_text("another tool's")
    code, told = judge(foreign, "--overwrite")
    assert code == 2 and "exists already" in told and "overwrite" not in told.partition("hint")[2]
    assert (foreign / "b.seg.nrrd").read_text() == "another tool's"


def test_a_file_beside_the_results_is_no_prediction_of_a_case_that_failed(judge, tmp_path, monkeypatch):
    def fails(self, job, ready):
        raise RuntimeError("no")

    (tmp_path / "out").mkdir()
    label = sitk.ReadImage(str(tmp_path / "labels" / "a.seg.nrrd"))
    sitk.WriteImage(label, str(tmp_path / "out" / "a.nii.gz"))
    monkeypatch.setattr(batch.Worker, "run", fails)
    assert judge(tmp_path / "out")[0] == 4
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["failed"] == 2 and scores["cases"][0]["scores"][0]["dice"] == 0


def test_a_correction_is_not_scored_as_the_work_of_the_model(judge, computed, tmp_path):
    out = tmp_path / "out"
    assert judge(out)[0] == 0 and changed_results(out, "ab") == []
    drawn = corrected(out / "b.seg.nrrd")
    assert changed_results(out, "ab") == [out / "b.seg.nrrd"] and changed_results(out, "a") == []
    scores = (tmp_path / "scores.json").read_bytes()
    code, told = judge(out, "--overwrite")
    assert code == 2 and "changed since" in told and "b.seg.nrrd" in told and "another folder" in told
    assert (out / "b.seg.nrrd").read_bytes() == drawn and (tmp_path / "scores.json").read_bytes() == scores
    (out / "b.seg.nrrd").rename(tmp_path / "mine.seg.nrrd")  # as it is told to
    assert judge(out, "--overwrite")[0] == 0 and computed == ["a", "b", "b"]
    assert (tmp_path / "scores.json").read_bytes() == scores


def test_of_an_earlier_version_the_time_tells_of_a_correction(judge, tmp_path):
    out = tmp_path / "out"
    assert judge(out)[0] == 0
    log = out / ".segmented-0.jsonl"
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    for record in records:
        (record["result"] or {}).pop("checksum", None)
    log.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert changed_results(out, "ab") == []
    for record in records:
        record["time"] -= 3600 if record["case"] == "a" else 0
    log.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert changed_results(out, "ab") == [out / "a.seg.nrrd"]


def test_results_inside_a_cohort_are_no_labels_of_it(judge, tmp_path):
    for folder in (tmp_path / "out", tmp_path):
        assert judge(folder, "--overwrite")[0] == 0
        found = find_in_folder(tmp_path)
        ignored = dict(found.ignored)
        assert all(ignored[str(folder / f"{case}.seg.nrrd")] == MADE for case in "ab")
        assert str(tmp_path / "labels" / "a.seg.nrrd") in {f for case in found.cases for f in case.labels}
    assert judge(tmp_path, "--overwrite")[0] == 0
