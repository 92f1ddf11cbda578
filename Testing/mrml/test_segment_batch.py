"""Many cases unattended: a folder of files, and examinations in the scene."""

import slicerhost

slicerhost.start()

import json  # noqa: E402
import re  # noqa: E402

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from EMIMSegmentLib import export_result, study_batch  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from segment_scene import (  # noqa: E402
    LESION_RADIUS,
    dicom_study,
    distance,
    fake_worker,
    grid,
    head,
    mask,
    node_ids,
    positions,
    told_of,
)

from EMIMLib import Cancelled, EmimError  # noqa: E402
from EMIMLib.models import ModelRegistry  # noqa: E402

AT = positions(grid(), (26, 26, 26))
LESION_ML = (distance(AT) < LESION_RADIUS).sum() * 0.027


def cells(table, column):
    names = [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    return [table.GetCellText(row, names.index(column)) for row in range(table.GetNumberOfRows())]


def test_a_folder_with_a_bad_case(tmp_path, threshold_model):
    for case, radius in (("fall-01", LESION_RADIUS), ("fall-02 ü", 8.0)):
        folder = tmp_path / "cohort" / case
        folder.mkdir(parents=True)
        slicer.util.saveNode(head("FLAIR", bright=radius), str(folder / "flair.nii.gz"), {})
    bad = tmp_path / "cohort" / "fall-03"
    bad.mkdir()
    (bad / "flair.nii.gz").write_bytes(b"no image")
    slicer.mrmlScene.Clear(False)
    logic, events, seen = EMIMSegmentLogic(), [], []
    out = tmp_path / "results"

    def follow(event):
        events.append(event)
        seen.append([row["case"] for row in logic.run.rows])

    run = logic.batch(tmp_path / "cohort", str(threshold_model), out, device="cpu", onEvent=follow)
    assert ["fall-03"] in seen and ["fall-01", "fall-03"] in seen, "rows come one by one"
    assert run.state == "finished" and run.failed == ["fall-03"] and "2 of 3" in run.summary
    rows = {row["case"]: row for row in run.rows}
    assert rows["fall-01"]["volumes_ml"]["Lésion"] == pytest.approx(LESION_ML)
    assert rows["fall-01"]["error"] is None and rows["fall-03"]["error"] and rows["fall-03"]["output"] is None
    label = nibabel.load(rows["fall-02 ü"]["output"]).get_fdata()
    assert np.array_equal(label.transpose(2, 1, 0) == 2, distance(AT) < 8.0)
    assert cells(run.table, "Result") == ["done", "done", "failed"]
    assert float(cells(run.table, "Lésion [mL]")[0]) == pytest.approx(LESION_ML, abs=1e-3)
    assert cells(run.table, "Message")[2]
    assert "progress" in {e["type"] for e in events}
    shown = logic.showCase(rows["fall-02 ü"], threshold_model)
    flair = slicer.util.getNode("fall-02 ü FLAIR")
    assert np.array_equal(mask(shown.segmentation, "Lésion", flair), distance(AT) < 8.0)
    assert logic.missingModalities(shown.segmentation) == ["T1"]

    written = (out / "fall-01.nii.gz").stat().st_mtime_ns
    slicer.util.saveNode(head("FLAIR", bright=7.0), str(bad / "flair.nii.gz"), {})
    again = logic.batch(tmp_path / "cohort", str(threshold_model), out, device="cpu")
    assert again.failed == [] and (out / "fall-01.nii.gz").stat().st_mtime_ns == written
    assert again.rows[0] == rows["fall-01"] and cells(again.table, "Result") == ["done"] * 3

    before = node_ids()
    with pytest.raises(EmimError, match="other settings"):
        logic.batch(tmp_path / "cohort", str(threshold_model), out, device="cpu", quality="fast")
    with pytest.raises(EmimError, match="No folder for the results"):
        logic.batch(tmp_path / "cohort", str(threshold_model))
    assert node_ids() == before


def test_loaded_examinations(tmp_path, threshold_model):
    head("pat01_flair"), head("pat02_flair"), head("pat03_t1")
    logic, events = EMIMSegmentLogic(), []
    card = ModelRegistry().find(str(threshold_model)).card
    studies = logic.loadedStudies(card)
    assert [(s.name, s.missing) for s in studies] == [("pat01", ()), ("pat02", ()), ("pat03", ("FLAIR",))]
    out = tmp_path / "results"
    run = logic.batch(studies, str(threshold_model), out, device="cpu", onEvent=events.append)
    assert [row["case"] for row in run.rows] == ["pat01", "pat02", "pat03"] and run.failed == ["pat03"]
    assert "needs FLAIR" in run.rows[2]["error"]
    for row, name in zip(run.rows[:2], ("pat01_flair", "pat02_flair"), strict=True):
        node = slicer.mrmlScene.GetNodeByID(row["segmentation"])
        assert node.GetName() == f"{name} segmentation" and not node.GetDisplayNode().GetVisibility()
        assert np.array_equal(mask(node, "Lésion", slicer.util.getNode(name)), distance(AT) < LESION_RADIUS)
        assert nibabel.load(out / f"{row['case']}.nii.gz").shape == (26, 26, 26)
    assert cells(run.table, "Result") == ["done", "done", "failed"]
    assert any("2 of 3" in e.get("text", "") for e in events) and {e["case"] for e in events} == {
        "pat01",
        "pat02",
        "pat03",
    }
    with pytest.raises(EmimError, match="results in the folder already"):
        logic.batch(studies, str(threshold_model), out, device="cpu")

    # Once more: the same nodes are used again.
    before = node_ids()
    again = logic.batch(studies[:1], str(threshold_model), out, device="cpu", overwrite=True)
    assert again.rows[0]["segmentation"] == run.rows[0]["segmentation"]
    assert node_ids() == before


def two_dicom_studies(*dates):
    """Studies of one patient, in the order of the dates, and a volume of a file."""
    for date in dates:
        dicom_study(f"1.2.840.{date}", head("5: t2_flair"), date=date)
    head("pat07_flair")


def test_results_of_dicom_studies_are_not_named_after_the_patient(tmp_path, threshold_model):
    two_dicom_studies("20240131", "20250131")
    logic, events, out = EMIMSegmentLogic(), [], tmp_path / "results"
    card = ModelRegistry().find(str(threshold_model)).card

    def go():
        options = {"device": "cpu", "extension": ".seg.nrrd", "onEvent": events.append}
        return logic.batch(logic.loadedStudies(card), str(threshold_model), out, **options)

    run = go()
    cases = [row["case"] for row in run.rows]
    titles = [row["title"] for row in run.rows]
    assert titles[0] == "Smith^Anna (4711) / MRI head (20240131)" and "20250131" in titles[1]
    assert run.failed == [] and cases[2] == titles[2] == "pat07" and len(set(cases)) == 3
    assert all(re.fullmatch("case-[0-9a-f]{8}", case) for case in cases[:2])

    assert sorted(p.name for p in out.rglob("*")) == sorted(f"{case}.seg.nrrd" for case in cases)
    for file in out.iterdir():
        assert told_of(file.read_bytes().split(b"\n\n")[0].decode()) == []
    assert told_of(json.dumps(events) + run.log + run.summary) == []
    assert cells(run.table, "Case") == cases and cells(run.table, "Study") == titles
    for row in run.rows:
        shown = logic.showCase(row, str(threshold_model)).segmentation
        assert shown.GetID() == row["segmentation"] and shown.GetAttribute(study_batch.CASE) == row["case"]
        assert told_of("".join(shown.GetAttribute(name) or "" for name in shown.GetAttributeNames())) == []

    # Loaded again another day, in another order: what is there is known.
    slicer.mrmlScene.Clear()
    two_dicom_studies("20250131", "20240131")
    with pytest.raises(EmimError, match="results in the folder already"):
        go()
    again = {study.name: study.title for study in logic.loadedStudies(card)}
    assert again == dict(zip(cases, titles, strict=True))


def test_studies_that_nothing_tells_apart_get_names_of_their_own(tmp_path, monkeypatch, threshold_model):
    """Such as those that somebody has made by hand in the Data module, without a UID."""
    fake_worker(tmp_path, monkeypatch, "sys.exit(2)")
    logic = EMIMSegmentLogic()
    for _i in range(2):
        dicom_study("", head("flair"))
    studies = logic.loadedStudies(ModelRegistry().find(str(threshold_model)).card)
    assert studies[0].name == studies[1].name and studies[0].inputs != studies[1].inputs
    run = logic.batch(studies, str(threshold_model), tmp_path, device="cpu")
    assert [row["title"] for row in run.rows] == ["Smith^Anna (4711) / MRI head (20240131)"] * 2
    assert [row["case"] for row in run.rows] == [studies[0].name, f"{studies[0].name} (2)"]


def test_earlier_results_stay_unless_they_are_to_be_replaced(threshold_model):
    """They may have been corrected by hand, or be those of another patient whose volumes were named alike."""
    logic, volume = EMIMSegmentLogic(), head("flair")
    first = logic.batch([{"FLAIR": volume}], str(threshold_model), device="cpu").rows[0]["segmentation"]
    again = logic.batch([{"FLAIR": volume}], str(threshold_model), device="cpu")
    assert again.rows[0]["segmentation"] != first and slicer.mrmlScene.GetNodeByID(first) is not None
    slicer.mrmlScene.RemoveNode(volume)
    other = head("flair")
    next_patient = logic.batch([{"FLAIR": other}], str(threshold_model), device="cpu", overwrite=True)
    assert next_patient.rows[0]["segmentation"] not in (first, again.rows[0]["segmentation"])


def test_corrected_segmentations_are_not_replaced(threshold_model):
    logic, volume = EMIMSegmentLogic(), head("flair")

    def go():
        run = logic.batch([{"FLAIR": volume}], str(threshold_model), device="cpu", overwrite=True)
        return slicer.mrmlScene.GetNodeByID(run.rows[0]["segmentation"]), run.summary

    corrected, summary = go()
    assert "Corrected" not in summary
    corrected.GetSegmentation().AddEmptySegment("drawn", "drawn")
    new, summary = go()
    assert new is not corrected and corrected.GetSegmentation().GetSegment("drawn") is not None
    assert f"Corrected by hand, so not replaced: {corrected.GetName()}." in summary
    assert go()[0] is new, "beside a corrected one, the other is still replaced"


def test_what_nobody_foresaw_fails_one_case_only(threshold_model, monkeypatch):
    original, calls = study_batch.measurementsOf, []

    def first_breaks(result):
        calls.append(result)
        if len(calls) == 1:
            raise TypeError("no array")
        return original(result)

    monkeypatch.setattr(study_batch, "measurementsOf", first_breaks)
    run = EMIMSegmentLogic().batch(
        [{"FLAIR": head("a")}, {"FLAIR": head("b")}], str(threshold_model), device="cpu"
    )
    assert run.failed == ["a"] and "TypeError: no array" in run.rows[0]["error"] and run.state == "finished"


def test_files_of_cases_are_told_apart_on_every_system(tmp_path, threshold_model, monkeypatch):
    def warns(*arguments, onWarning):
        onWarning("One is hidden.")
        return export_result.exportResult(*arguments, onWarning=onWarning)

    monkeypatch.setattr(study_batch, "exportResult", warns)
    out, events = tmp_path / "results", []
    studies = [{"FLAIR": head(name)} for name in ("a/b", "a:b", "A/B")]
    run = EMIMSegmentLogic().batch(
        studies, str(threshold_model), out, device="cpu", extension=".seg.nrrd", onEvent=events.append
    )
    files = [row["output"].casefold() for row in run.rows]
    assert run.failed == [] and len(set(files)) == len(list(out.glob("*.seg.nrrd"))) == 3
    told = [(e["what"], e["where"]) for e in events if e["type"] == "warning"]
    assert told == [("One is hidden.", row["case"]) for row in run.rows]


def test_closing_the_scene_leaves_a_batch_of_files_alone(host, tmp_path, monkeypatch, threshold_model):
    fake_worker(tmp_path, monkeypatch, "time.sleep(60)")
    logic = EMIMSegmentLogic()
    run = logic.batch(
        tmp_path, str(threshold_model), tmp_path / "results", device="cpu", waitForCompletion=False
    )
    host.processEvents(0.5)
    slicer.mrmlScene.Clear(False)
    host.processEvents(0.5)
    assert run.running and not run.sceneClosed
    logic.cancel()
    with pytest.raises(Cancelled):
        run.wait()


def test_failures_in_the_worker_are_rows(tmp_path, monkeypatch, threshold_model):
    fake_worker(
        tmp_path,
        monkeypatch,
        "print(json.dumps({'type': 'error', 'what': 'Out of memory.', 'hint': 'h'})); sys.exit(2)",
    )
    inputs = [{"FLAIR": head("a")}, {"FLAIR": head("a")}]
    before = node_ids()
    run = EMIMSegmentLogic().batch(inputs, str(threshold_model), device="cpu")
    assert [(r["case"], r["error"], r["hint"]) for r in run.rows] == [
        ("a", "Out of memory.", "h"),
        ("a (2)", "Out of memory.", "h"),
    ]
    assert node_ids() - before == {run.table.GetID()}


@pytest.mark.parametrize("close", [False, True])
def test_cancel_and_scene_closed(host, tmp_path, monkeypatch, threshold_model, close):
    fake_worker(tmp_path, monkeypatch, "time.sleep(60)")
    logic, ends = EMIMSegmentLogic(), []
    run = logic.batch(
        [{"FLAIR": head("a")}, {"FLAIR": head("b")}],
        str(threshold_model),
        device="cpu",
        waitForCompletion=False,
        onFinished=lambda run: ends.append((run.state, run.rows)),
    )
    host.processEvents(0.5)
    assert run.running
    slicer.mrmlScene.Clear(False) if close else logic.cancel()
    after = node_ids()
    with pytest.raises(Cancelled):
        run.wait()
    assert ends == [("cancelled", [])] and run.sceneClosed == close and node_ids() == after


def test_nothing_to_do(threshold_model):
    with pytest.raises(EmimError, match="no examination"):
        EMIMSegmentLogic().batch([], str(threshold_model), device="cpu")
    with pytest.raises(EmimError, match="this format"):
        EMIMSegmentLogic().batch([{"FLAIR": head("a")}], str(threshold_model), extension="nii.gz")


def test_patterns_of_the_model_reach_the_scan(tmp_path, monkeypatch, threshold_model):
    seen = tmp_path / "seen.json"
    fake_worker(tmp_path, monkeypatch, f"json.dump(arguments, open({str(seen)!r}, 'w')); sys.exit(1)")
    with pytest.raises(EmimError):
        EMIMSegmentLogic().batch(
            tmp_path,
            str(threshold_model),
            tmp_path / "out",
            device="cpu",
            extension=".seg.nrrd",
            overwrite=True,
        )
    arguments = json.loads(seen.read_text())
    patterns = [arguments[i + 1] for i, a in enumerate(arguments) if a == "--pattern"]
    assert patterns == ["T1=t1", "FLAIR=flair"] and "--overwrite" in arguments
    assert arguments[arguments.index("--extension") + 1] == ".seg.nrrd"
