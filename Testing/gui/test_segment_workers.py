"""EMIMSegment with workers that misbehave: whatever they do, the panel says so and can be used again."""

# ruff: noqa: F811  fixtures are imported

import logging
import os
import signal
import time

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from segment_story import (  # noqa: E402, F401
    apply_and_wait,
    case_folder,
    cohort_folder,
    data_nodes,
    fake_worker,
    load_case,
    model_package,
    panel,
    ready,
    shot,
)

from emim.evaluation import masks  # noqa: E402

HANG = "time.sleep(60)"
SAY = "print(json.dumps({'type': 'status', 'text': 'Nearly there'}), flush=True)\n"
IGNORE = "".join(f"import signal\nsignal.signal(signal.{s}, signal.SIG_IGN)\n" for s in ("SIGINT", "SIGTERM"))
REFUSE = "print(json.dumps({'type': 'error', 'what': 'It is too dark.', 'hint': 'Turn it on.'}))\nsys.exit(2)"

BAD_ENDS = {
    "crash": ("raise MemoryError('no room left')", "no room left"),
    "refusal": (REFUSE, "It is too dark."),
    "killed": (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "SIGKILL"),
    "silence": ("sys.exit(0)", "result"),
    "garbage": ("sys.stdout.buffer.write(bytes(range(256)) * 500)\nsys.exit(1)", "exit code 1"),
    "lies": (
        "print(json.dumps({'type': 'result', 'output': '/nowhere/x.seg.nrrd', 'volumes_ml': {}}))",
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_bad_end(ready, host, tmp_path, monkeypatch, caplog, name):
    body, words = BAD_ENDS[name]
    fake_worker(tmp_path, monkeypatch, body)
    before = data_nodes()
    caplog.set_level(logging.ERROR)
    apply_and_wait(host, ready, 20)

    assert words in caplog.text
    assert data_nodes() == before and ready.state.parameterNode.outputSegmentation is None
    assert ready.ui.applyButton.text == "Apply" and ready.ui.applyButton.enabled
    assert ready.runSection.job.pane.statusLabel.text
    if name == "crash":
        shot(host, ready, "failed")


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancel_within_three_seconds(ready, host, tmp_path, monkeypatch, stubborn):
    fake_worker(tmp_path, monkeypatch, (IGNORE if stubborn else "") + SAY + HANG)
    before = data_nodes()
    ui = ready.ui
    ui.applyButton.click()
    pane = ready.runSection.job.pane
    assert host.processEvents(10, until=lambda: "Nearly there" in pane.text)
    assert ui.applyButton.text == "Cancel" and ui.applyButton.enabled
    assert not ui.modelComboBox.enabled and not ready.inputsSection.rows[0].selector.enabled
    assert not ui.batchButton.enabled and "running" in ui.batchButton.toolTip
    shot(host, ready, "running")
    started = time.monotonic()
    ui.applyButton.click()
    assert not ui.applyButton.enabled
    assert host.processEvents(3, until=lambda: ready.state.job is None)
    assert time.monotonic() - started < 3
    assert pane.statusLabel.text == "Cancelled." and ui.applyButton.text == "Apply" and ui.applyButton.enabled
    assert data_nodes() == before


def test_cancel_at_once(ready, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, HANG)
    ready.ui.applyButton.click()
    ready.ui.applyButton.click()
    assert host.processEvents(3, until=lambda: ready.state.job is None)
    assert ready.ui.applyButton.enabled


def test_panel_stays_alive_while_the_worker_is_slow(ready, host, tmp_path, monkeypatch):
    progress = (
        "print(json.dumps({'type': 'progress', 'done': i, 'total': 20, 'seconds_left': 2}), flush=True)"
    )
    fake_worker(
        tmp_path, monkeypatch, f"for i in range(20):\n    {progress}\n    time.sleep(0.1)\nsys.exit(1)"
    )
    ready.ui.applyButton.click()
    slowest = 0.0
    while ready.state.job is not None:
        started = time.monotonic()
        slicer.app.processEvents()
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.01)
    assert slowest < 0.5


def test_scene_closed_while_it_runs(ready, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, SAY + HANG)
    ready.ui.applyButton.click()
    pane = ready.runSection.job.pane
    assert host.processEvents(10, until=lambda: "Nearly there" in pane.text)
    slicer.mrmlScene.Clear()
    assert host.processEvents(4, until=lambda: ready.state.job is None)
    assert "scene was closed" in pane.statusLabel.text
    left = data_nodes()
    assert (left["Segmentation"], left["Table"], left["ScalarVolume"]) == (0, 0, 0)
    assert ready.ui.applyButton.text == "Apply"


def test_panel_goes_away_while_it_runs(ready, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, SAY + HANG)
    ready.ui.applyButton.click()
    host.processEvents(10, until=lambda: "Nearly there" in ready.runSection.job.pane.text)
    slicer.modules.emimsegment.cleanup()
    assert host.processEvents(4, until=lambda: not ready.logic.run.running)


def test_other_module_while_it_runs(ready, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, f"time.sleep(0.5)\n{REFUSE}")
    ready.ui.applyButton.click()
    slicer.modules.emimsegment.exit()
    assert host.processEvents(10, until=lambda: ready.state.job is None)
    slicer.modules.emimsegment.enter()
    assert ready.ui.applyButton.text == "Apply" and ready.ui.applyButton.enabled


def test_missing_packages_are_said(ready, host, monkeypatch, caplog):
    from EMIMLib import EmimError, dependencies

    def ensure(parent=None):
        raise EmimError("Python packages that EMIM needs are not installed.", "monai")

    monkeypatch.setattr(dependencies, "ensure", ensure)
    ready.ui.applyButton.click()
    assert ready.state.job is None and "monai" in caplog.text
    assert ready.ui.applyButton.enabled


def test_killed_from_outside(ready, host, tmp_path, monkeypatch, caplog):
    fake_worker(
        tmp_path,
        monkeypatch,
        "print(json.dumps({'type': 'status', 'text': str(os.getpid())}), flush=True)\n" + HANG,
    )
    ready.ui.applyButton.click()
    label = ready.runSection.job.pane.statusLabel
    assert host.processEvents(10, until=lambda: label.text.isdigit())
    os.kill(int(label.text), signal.SIGKILL)
    assert host.processEvents(5, until=lambda: ready.state.job is None)
    assert "SIGKILL" in caplog.text and ready.ui.applyButton.enabled


@pytest.mark.parametrize(
    "before, words",
    [("", ("was killed", "memory ran out")), ("Fatal Python error: Segmentation fault", ("crashed",))],
)
def test_killed_below_slicers_launcher(ready, host, tmp_path, monkeypatch, caplog, before, words):
    """It passes on no signal: it says that it lost its program, and ends with 1."""
    line = "error: [python-real] exit abnormally - Report the problem."
    fake_worker(
        tmp_path, monkeypatch, f"print({before!r} + chr(10) + {line!r}, file=sys.stderr)\nsys.exit(1)"
    )
    ready.ui.applyButton.click()
    assert host.processEvents(10, until=lambda: ready.state.job is None)
    assert all(word in caplog.text for word in words) and "exit code 1" not in caplog.text


def test_batch_of_loaded_studies_says_what_failed(ready, host, cohort_folder, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, REFUSE)
    load_case(host, cohort_folder / "sub-002")
    ui = ready.ui
    ui.batchCollapsibleButton.collapsed = False
    ui.batchSceneRadioButton.click()
    assert "2 studies" in ui.batchHintLabel.text and not ui.batchFolderPathLineEdit.visible
    ui.batchButton.click()
    assert host.processEvents(20, until=lambda: ready.state.job is None)
    texts = [[ui.batchTable.item(r, c).text() for c in range(2)] for r in range(ui.batchTable.rowCount)]
    assert [name for name, _ in texts] == ["sub-001", "sub-002"]
    assert all("too dark" in text for _, text in texts)
    assert "Turn it on" in ui.batchTable.item(0, 1).toolTip()
    assert not ui.batchShowButton.enabled and "Choose a case" in ui.batchShowButton.toolTip
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    for row, name in enumerate(("sub-001_T1", "sub-002_T1")):
        ui.batchTable.selectRow(row)
        ui.batchShowButton.click()
        assert red.GetBackgroundVolumeID() == slicer.util.getNode(name).GetID()
    ui.applyButton.click()
    assert not ui.batchShowButton.enabled and "running" in ui.batchShowButton.toolTip
    assert host.processEvents(20, until=lambda: ready.state.job is None)
    assert ui.batchShowButton.enabled
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    slicer.mrmlScene.Clear()
    assert ui.batchTable.rowCount == 0 and not ui.batchTable.isVisibleTo(ready.parent)


def test_the_panel_tells_who_is_who_and_its_log_does_not(ready, host, tmp_path, monkeypatch):
    """Two studies of DICOM that are called the same on the screen are told apart by their codes."""
    fake_worker(tmp_path, monkeypatch, REFUSE)
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumes = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")][:2]
    patient = items.CreateSubjectItem(items.GetSceneItemID(), "Smith^Anna (4711)")
    for uid, volume in enumerate(volumes):
        item = items.CreateStudyItem(patient, "MRI head (20240131)")
        items.SetItemUID(item, "DICOM", f"1.2.840.{uid}")
        items.SetItemParent(items.GetItemByDataNode(volume), item)
    ui, title = ready.ui, "Smith^Anna (4711) / MRI head (20240131)"
    ui.batchCollapsibleButton.collapsed = False
    ui.batchSceneRadioButton.click()
    assert "not after the patient" in ui.batchOutputPathLineEdit.toolTip
    ui.batchButton.click()
    assert host.processEvents(20, until=lambda: ready.state.job is None)
    rows = [row for row in ready.logic.run.rows if row["title"] == title]
    cases = [row["case"] for row in rows]
    assert len(set(cases)) == 2 and all(f"{title} ({case})" in ui.batchHintLabel.text for case in cases)
    log = ready.batchSection.job.pane.text
    assert "Smith" not in log and all(case in log for case in cases)
    shown = [n for n in range(ui.batchTable.rowCount) if ui.batchTable.item(n, 0).text() == title]
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    for number, row in zip(shown, rows, strict=True):
        assert ui.batchTable.item(number, 0).toolTip() == row["case"]
        ui.batchTable.selectRow(number)
        ui.batchShowButton.click()
        assert ui.batchShownLabel.text == f"{title} ({row['case']}) is shown."
        assert red.GetBackgroundVolumeID() in row["nodes"].values()
    shot(host, ready, "batch-dicom", 1500)


def test_the_format_of_a_batch_is_kept_and_says_what_is_lost(
    ready, host, cohort_folder, tmp_path, monkeypatch
):
    seen, ui = tmp_path / "seen.txt", ready.ui
    tell = f"print(arguments[arguments.index('--extension') + 1], file=open({str(seen)!r}, 'a'))\n"
    fake_worker(tmp_path, monkeypatch, tell + REFUSE)
    monkeypatch.setattr(masks, "partly_overlapping", lambda structures: structures[:2])
    ui.batchCollapsibleButton.collapsed = False
    ui.batchSceneRadioButton.click()
    assert "overlap" not in ui.batchHintLabel.text  # nothing is written
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    assert ui.batchHintLabel.text.startswith("1 study: sub-001. Where Lesion and Enhancing overlap")
    ui.batchFolderRadioButton.click()
    ui.batchFolderPathLineEdit.currentPath = str(cohort_folder)
    assert "Where Lesion and Enhancing overlap" in ui.batchHintLabel.text
    for index in (0, 1):
        ui.batchFormatComboBox.setCurrentIndex(index)
        ui.batchButton.click()
        assert host.processEvents(20, until=lambda: ready.state.job is None)
    assert seen.read_text().split() == [".nii.gz", ".seg.nrrd"]
    assert "overlap" not in ui.batchHintLabel.text
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert ui.batchFormatComboBox.currentIndex == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    host.processEvents(0.1)
    assert ui.batchFormatComboBox.currentIndex == 1


def test_batch_of_loaded_studies_has_the_grid_that_was_chosen(
    ready, host, cohort_folder, tmp_path, monkeypatch
):
    seen = tmp_path / "seen.txt"
    tell = f"print(arguments[arguments.index('--reference') + 1], file=open({str(seen)!r}, 'a'))\n"
    fake_worker(tmp_path, monkeypatch, tell + REFUSE)
    load_case(host, cohort_folder / "sub-002", ("T1", "FLAIR"))
    ui = ready.ui
    ui.batchCollapsibleButton.collapsed = False
    ui.batchFolderPathLineEdit.currentPath = str(cohort_folder)
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    assert "grid" not in ui.batchHintLabel.text
    ui.referenceComboBox.setCurrentIndex(2)
    assert ready.state.reference() == "T2"
    assert "grid chosen above does not count here" in ui.batchHintLabel.text
    ui.batchSceneRadioButton.click()
    assert "Another sequence than T2 gives the grid of sub-002." in ui.batchHintLabel.text
    ui.batchButton.click()
    assert host.processEvents(20, until=lambda: ready.state.job is None)
    assert seen.read_text().split() == ["T2", "T1"]
