"""A cohort's segmentation that was stopped, killed or extended goes on, and nothing is lost or mixed up."""

import dataclasses
import json

import pytest
from recorder import Recorder
from test_inference import CARD, CORE, LESION, affine_of, threshold_state, write_scan

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.errors import Cancelled, EmimError
from emim.inference import batch
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


@pytest.fixture
def computed(monkeypatch):
    """The cases that the network was asked for, as they come."""
    cases, run = [], batch.Worker.run

    def counted(self, job, ready):
        cases.append(job.case)
        return run(self, job, ready)

    monkeypatch.setattr(batch.Worker, "run", counted)
    return cases


def go(model, cohort, out, **options):
    return segment(model, None, out, cohort=cohort, device="cpu", overlay=False, **options)


def stop_in_second(computed):
    return lambda: len(computed) == 2


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def plain(results):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in results]


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_stopped_or_killed_goes_on(model, cohort, computed, tmp_path, monkeypatch, killed):
    whole = go(model, cohort, tmp_path / "out", overwrite=True)
    tables = {f.name: f.read_bytes() for f in (tmp_path / "out").glob("*.csv")}
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    computed.clear()
    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        if killed:  # no time for a summary
            patch.setattr(batch, "_write_summary", lambda *a: None)
        go(model, cohort, tmp_path / "out", should_stop=stop_in_second(computed))
    log = tmp_path / "out" / ".segmented-0.jsonl"
    assert log.exists() == killed and (tmp_path / "out" / "summary.json").exists() != killed
    if killed:
        (tmp_path / "out" / "b.nii.gz").write_bytes(b"half a file")
        with open(log, "a") as file:
            file.write('{"made_with": "')
    first = (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns
    computed.clear()
    events = Recorder()
    results = go(model, cohort, tmp_path / "out", resume=True, events=events)
    assert computed == ["b", "c é"] and (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns == first
    assert "1 of 3 cases are done already." in events.statuses
    assert plain(results) == plain(whole) and not log.exists()
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").glob("*.csv")} == tables
    computed.clear()
    assert plain(go(model, cohort, tmp_path / "out", resume=True)) == plain(whole) and computed == []


def test_new_changed_and_failed_cases_are_done_and_the_others_stay(model, cohort, computed, tmp_path):
    a, b, c = cohort.cases
    whole, good = (tmp_path / "b.nii.gz").read_bytes(), tmp_path / "b.nii.gz"
    good.write_bytes(whole[:-1000])
    out = tmp_path / "out"
    results = go(model, Cohort(("FLAIR",), (a, b)), out)
    assert ["error" in r for r in results] == [False, True]
    computed.clear()
    good.write_bytes(whole)
    write_scan(tmp_path / "a.nii.gz", GRID, CORE)
    go(model, cohort, out, resume=True)
    assert computed == ["a", "b", "c é"] and summary(out)["failed"] == 0
    computed.clear()
    results = go(model, Cohort(("FLAIR",), (c,)), out, resume=True)
    assert computed == [] and [r["case"] for r in results] == ["c é"]
    assert [r["case"] for r in summary(out)["cases"]] == ["a", "b", "c é"]
    assert set(summary(out)["inputs"]) == {"a", "b", "c é"}
    (out / "c é_measurements.csv").unlink()
    go(model, cohort, out, resume=True)
    assert computed == ["c é"]


def test_results_of_another_kind_are_left_alone(model, cohort, tmp_path):
    out = tmp_path / "out"
    go(model, cohort, out)
    before = {f: f.read_bytes() for f in out.iterdir()}
    card = dataclasses.replace(CARD, name="other")
    other = write_package(tmp_path / "other", card, threshold_state(card, (1, 0)))
    for given, options in ((other, {}), (model, {"quality": "fast"}), (model, {"probabilities": True})):
        with pytest.raises(EmimError, match="another model or of other settings"):
            go(given, cohort, out, resume=True, **options)
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out)
    (out / "summary.json").write_text("{")
    with pytest.raises(EmimError, match="summary is damaged"):
        go(model, cohort, out, resume=True)
    (out / "summary.json").unlink()  # whose results these are is not known now
    with pytest.raises(EmimError, match="exists already"):
        go(model, cohort, out, resume=True)
    before.pop(out / "summary.json")
    assert {f: f.read_bytes() for f in out.iterdir()} == before


def test_what_cannot_be_resumed_is_refused(model, cohort, tmp_path, capsys):
    with pytest.raises(EmimError, match="cannot be resumed"):
        go(model, cohort, tmp_path / "out", resume=True, overwrite=True)
    image = cohort.cases[0].images["FLAIR"]
    command = ["segment", "--model", str(model), "--device=cpu", "--resume"]
    assert main([*command, "--input", f"FLAIR={image}", "--output", str(tmp_path / "x.nii.gz")]) == 2
    assert "goes with a cohort" in capsys.readouterr().err
