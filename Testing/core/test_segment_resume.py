"""A cohort's segmentation that was stopped, killed or extended goes on, and nothing is lost or mixed up."""

import dataclasses
import json

import pytest
from recorder import Recorder
from test_inference import CARD, CORE, LESION, affine_of, threshold_state, write_scan

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.cohort.scan import CaseRow, Scan
from emim.errors import Cancelled, EmimError
from emim.inference import batch
from emim.inference.outputs import file_checksum
from emim.inference.segment import segment
from emim.package.bundle import write_package

GRID = affine_of((2.0, 2.0, 2.0), 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("m") / "model", CARD, threshold_state(CARD, (0, 1)))


@pytest.fixture
def cohort(tmp_path):
    """Three cases with one image each."""
    cases = []
    for name, sphere in (("a", LESION), ("b", CORE), ("c é", LESION)):
        file = write_scan(tmp_path / f"{name}.nii.gz", GRID, sphere)
        cases.append(Case(name, name, {"FLAIR": str(file)}))
    return Cohort(("FLAIR",), tuple(cases))


def go(model, cohort, out, **options):
    return segment(model, None, out, cohort=cohort, device="cpu", overlay=False, **options)


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def values(results):
    return [(r["case"], r["volumes_ml"], r["measurements"]) for r in results]


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_stopped_or_killed_goes_on(model, cohort, computed, tmp_path, monkeypatch, killed):
    out = tmp_path / "out"
    whole = go(model, cohort, tmp_path / "whole")
    computed.clear()
    write, files = batch.Worker._write, []

    def half(self, outputs, *given):
        files.append(outputs.label.name)
        if files[-1] == "b.nii.gz":
            outputs.label.write_bytes(b"half a file")
            raise KeyboardInterrupt
        write(self, outputs, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch.Worker, "_write", half)
        if killed:  # no time for a summary
            patch.setattr(batch, "_write_summary", lambda *a: None)
        go(model, cohort, out)
    assert (out / "summary.json").exists() != killed
    if killed:
        with open(out / ".segmented-0.jsonl", "a") as file:
            file.write('\n{"time": 1')
    first = (out / "a.nii.gz").stat().st_mtime_ns
    with pytest.raises(EmimError, match="exists already") as refused:
        go(model, cohort, out)
    assert refused.value.hint.startswith("Resume")
    computed.clear()
    with pytest.raises(Cancelled):  # resumed, and cancelled before anything was done
        go(model, cohort, out, resume=True, should_stop=lambda: True)
    computed.clear()
    events = Recorder()
    results = go(model, cohort, out, resume=True, events=events)
    assert computed == ["b", "c é"] and (out / "a.nii.gz").stat().st_mtime_ns == first
    assert "1 of 3 cases are done already." in events.statuses
    assert events.cases == results and results[0]["inputs"] == cohort.cases[0].images
    assert values(results) == values(whole)
    assert [r["output"] for r in results] == [str(out / f"{name}.nii.gz") for name in ("a", "b", "c é")]
    for name in ("b.nii.gz", "c é_measurements.csv", "measurements.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    computed.clear()
    assert values(go(model, cohort, out, resume=True)) == values(whole) and computed == []


def test_new_and_failed_cases_are_done_and_the_others_stay_in_the_tables(model, cohort, computed, tmp_path):
    a, b, c = cohort.cases
    good = tmp_path / "b.nii.gz"
    whole = good.read_bytes()
    good.write_bytes(whole[:-1000])
    out = tmp_path / "out"
    results = go(model, Cohort(("FLAIR",), (a, b)), out)
    assert ["error" in r for r in results] == [False, True]
    good.write_bytes(whole)
    computed.clear()
    results = go(model, Cohort(("FLAIR",), (c,)), out, resume=True)
    assert computed == ["c é"] and [r["case"] for r in results] == ["c é"]
    assert [r["case"] for r in summary(out)["cases"]] == ["a", "c é"]
    go(model, cohort, out, resume=True)
    assert computed == ["c é", "b"] and summary(out)["failed"] == 0
    (out / "c é.nii.gz").unlink()  # to have it done again
    go(model, cohort, out, resume=True)
    assert computed == ["c é", "b", "c é"]
    rows = [CaseRow("a", "a", {}, None, problems=["gone bad"])]
    results = go(model, Scan("here", Cohort(("FLAIR",), (b,)), rows), out, resume=True)
    assert [("error" in r, r["case"]) for r in results] == [(True, "a"), (False, "b")]
    assert [r["case"] for r in summary(out)["cases"]] == ["a", "b", "c é"]


def test_a_batch_of_which_nothing_succeeded_goes_on(model, cohort, computed, tmp_path, monkeypatch):
    def full(self, outputs, *given):
        outputs.table.parent.mkdir(parents=True, exist_ok=True)
        outputs.table.write_text("half")
        raise EmimError("The disk is full.")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(batch.Worker, "_write", full)
        assert all("error" in r for r in go(model, cohort, out))
    drawn = out / "b.nii.gz"
    drawn.write_text("by hand")
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out, resume=True)
    assert drawn.read_text() == "by hand"
    drawn.unlink()
    computed.clear()
    assert not any("error" in r for r in go(model, cohort, out, resume=True))
    assert computed == ["a", "b", "c é"] and summary(out)["failed"] == 0


def test_logs_of_several_processes_count_and_the_latest_line_of_a_case(model, cohort, computed, tmp_path):
    out = tmp_path / "out"
    go(model, cohort, out)
    log = out / ".segmented-0.jsonl"
    begun, done = log.read_text().split("\n")[1:4], log.read_text().split("\n")[4:]
    log.write_text("\n".join([done[0], *begun]))
    (out / ".segmented-1.jsonl").write_text("\n".join(done[1:]))
    computed.clear()
    go(model, cohort, out, resume=True)
    assert computed == []
    with pytest.raises(Cancelled):  # what is being replaced is not done any more
        go(model, cohort, out, overwrite=True, should_stop=lambda: len(computed) == 2)
    computed.clear()
    go(model, cohort, out, resume=True)
    assert computed == ["b", "c é"]


def test_results_of_another_kind_are_left_alone(model, cohort, tmp_path):
    out = tmp_path / "out"
    go(model, cohort, out)
    before = {f: f.read_bytes() for f in out.iterdir()}
    card = dataclasses.replace(CARD, name="other")
    other = write_package(tmp_path / "other", card, threshold_state(card, (1, 0)))
    for given, options in (
        (other, {}), (model, {"quality": "fast"}), (model, {"probabilities": True}),
        (model, {"extension": ".seg.nrrd"}),
    ):  # fmt: skip
        with pytest.raises(EmimError, match="another model or of other settings"):
            go(given, cohort, out, resume=True, **options)
    elsewhere = str(write_scan(tmp_path / "elsewhere.nii.gz", GRID, CORE))
    with pytest.raises(EmimError, match="case a are not those"):  # another cohort with the same names
        go(model, Cohort(("FLAIR",), (Case("a", "a", {"FLAIR": elsewhere}),)), out, resume=True)
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out)
    (out / ".segmented-0.jsonl").unlink()  # whose results these are is not known now
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out, resume=True)
    before.pop(out / ".segmented-0.jsonl")
    assert {f: f.read_bytes() for f in out.iterdir()} == before


def test_what_goes_with_a_segmentation_may_be_gone(model, cohort, computed, tmp_path):
    """Somebody who deletes pictures and tables has not taken back the segmentations."""
    out = tmp_path / "out"
    first = segment(model, None, out, cohort=cohort, device="cpu", overlay=True)
    for file in (*out.glob("*_overlay.png"), out / "a_measurements.csv"):
        file.unlink()
    computed.clear()
    again = segment(model, None, out, cohort=cohort, device="cpu", overlay=True, resume=True)
    assert computed == [] and values(again) == values(first)
    assert again[0]["table"] is None and again[1]["table"] and {r["overlay"] for r in again} == {None}


def test_a_correction_is_told_from_what_was_written(model, cohort, computed, tmp_path):
    """The checksum stays that of the segmentation that was measured."""
    out = tmp_path / "results"
    first = go(model, cohort, out)
    label = out / "a.nii.gz"
    assert file_checksum(label) == first[0]["checksum"]
    label.write_bytes((out / "b.nii.gz").read_bytes())
    again = go(model, cohort, out, resume=True)
    assert [r["checksum"] for r in again] == [r["checksum"] for r in first]
    assert [
        file_checksum(out / f"{c}.nii.gz") == r["checksum"] for c, r in zip("ab", again, strict=False)
    ] == [
        False,
        True,
    ]


def test_files_of_the_user_are_not_replaced(model, cohort, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "measurements.csv").write_text("mine")
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out, resume=True)
    assert (out / "measurements.csv").read_text() == "mine"


def test_labels_of_the_cohort_are_not_replaced(model, cohort, computed, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    label = out / "b.nii.gz"
    label.write_text("drawn by hand")
    cases = tuple(dataclasses.replace(c, label=str(label) if c.id == "a" else None) for c in cohort.cases)
    with pytest.raises(EmimError, match="overwrite an input"):
        go(model, Cohort(("FLAIR",), cases), out, overwrite=True)
    assert label.read_text() == "drawn by hand" and computed == []


def test_a_corrected_segmentation_is_kept(model, cohort, computed, tmp_path):
    out = tmp_path / "out"
    go(model, cohort, out)
    (out / "b.nii.gz").write_text("corrected")
    computed.clear()
    go(model, cohort, out, resume=True)
    assert computed == [] and (out / "b.nii.gz").read_text() == "corrected"


def test_the_first_process_tells_of_the_cases_of_the_others(model, cohort, tmp_path, monkeypatch):
    other = {"case": "z", "inputs": {}, "error": {"what": "It failed.", "where": None, "hint": None}}
    monkeypatch.setattr(batch, "gather", lambda done: [done, [other]])
    events = Recorder()
    results = go(model, cohort, tmp_path / "out", events=events)
    assert events.cases == results and [r["case"] for r in results] == ["a", "b", "c é", "z"]


def test_other_settings_may_follow_where_nothing_was_done(model, cohort, computed, tmp_path):
    with pytest.raises(Cancelled):
        go(model, cohort, tmp_path / "out", should_stop=lambda: True)
    computed.clear()
    go(model, cohort, tmp_path / "out", resume=True, quality="fast")
    assert computed == ["a", "b", "c é"]


def test_what_cannot_be_resumed_is_refused(model, cohort, tmp_path, capsys):
    with pytest.raises(EmimError, match="cannot be resumed"):
        go(model, cohort, tmp_path / "out", resume=True, overwrite=True)
    image = cohort.cases[0].images["FLAIR"]
    command = ["segment", "--model", str(model), "--device=cpu", "--resume"]
    assert main([*command, "--input", f"FLAIR={image}", "--output", str(tmp_path / "x.nii.gz")]) == 2
    assert "goes with a cohort" in capsys.readouterr().err
