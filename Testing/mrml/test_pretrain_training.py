"""Scanning, pre-training, fine-tuning and installing, by the real worker on tiny synthetic heads."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from EMIMPretrainLib import run_monitor  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402

from emim.phantom.generate import generate  # noqa: E402
from EMIMLib import Cancelled, EmimError, settings  # noqa: E402

TINY = {
    "preset": "tiny",
    "device": "cpu",
    "network.filters": 4,
    "train.crop": 32,
    "train.batch": 1,
    "train.steps": 6,
    "train.validate_every": 3,
}
LONG = TINY | {"train.steps": 10_000, "train.validate_every": 5_000, "train.checkpoint_every": 1.0}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Four synthetic subjects with an umlaut in their path; three have labels."""
    folder = tmp_path_factory.mktemp("köpfe") / "cohort"
    generate(folder, 4, seed=1, labelled=3, spacing=5.0)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def logic(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings.setRunsFolder(tmp_path / "runs")
    settings.setModelsFolder(tmp_path / "models")
    settings.setCacheFolder(cache)
    logic = EMIMPretrainLogic()
    yield logic
    for monitor in list(logic._monitors.values()):
        monitor.cancel()
        wait_for_end(monitor)
    logic.close()


@pytest.fixture
def cohort(logic, heads):
    return logic.scan(heads, waitForCompletion=True).table


def wait_for_end(monitor):
    try:
        monitor.waitForFinished(timeout=60)
    except (EmimError, Cancelled) as error:
        return error
    return None


def wait_for_step(host, monitor, step):
    reached = host.processEvents(60, until=lambda: monitor.state is not None and monitor.state.step >= step)
    assert reached, monitor.log


# ---- cohort


def test_scan_gives_the_table(logic, heads, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(heads, folder)
    (folder / "sub-002" / "sub-002_T1.nii.gz").unlink()
    broken = folder / "sub-003" / "sub-003_FLAIR.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    shutil.copy(folder / "sub-001" / "sub-001_T2.nii.gz", folder / "sub-001" / "sub-001_T2w.nii.gz")
    events = []
    table = logic.scan(folder, waitForCompletion=True, onEvent=events.append).table
    assert "progress" in {e["type"] for e in events}
    assert table.modalities == ["T1", "T1ce", "T2", "FLAIR"]
    assert [r.id for r in table.rows] == ["sub-001", "sub-002", "sub-003", "sub-004"]
    states = {r.id: {m: c.state for m, c in r.cells.items()} for r in table.rows}
    assert states["sub-001"] == {"T1": "ok", "T1ce": "ok", "T2": "problem", "FLAIR": "ok"}
    assert states["sub-002"] == {"T1": "missing", "T1ce": "ok", "T2": "ok", "FLAIR": "ok"}
    assert states["sub-003"] == {"T1": "ok", "T1ce": "ok", "T2": "ok", "FLAIR": "problem"}
    assert table.row("sub-001").cells["T2"].text == "2 files"
    assert "sub-001_T2w.nii.gz" in table.row("sub-001").cells["T2"].explanation
    assert "FLAIR" in table.row("sub-003").tooltip
    assert [r.id for r in table.usedRows] == ["sub-002", "sub-004"]
    assert [r.id for r in table.labelledRows] == ["sub-002"]
    assert [s["values"] for s in logic.structuresFromCohort(table)] == [[v] for v in table.labelValues] != []
    assert "Cases used: 2 of 4" in table.summary


def test_problems_between_files_colour_both(logic, heads, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(heads, folder)
    shutil.copy(folder / "sub-001" / "sub-001_T1.nii.gz", folder / "sub-001" / "sub-001_T2.nii.gz")
    row = logic.scan(folder, waitForCompletion=True).table.row("sub-001")
    assert {m: c.state for m, c in row.cells.items()} == {
        "T1": "problem", "T1ce": "ok", "T2": "problem", "FLAIR": "ok",
    }  # fmt: skip
    assert "copy" in row.cells["T1"].explanation


def test_a_cohort_without_any_usable_case_is_still_a_table(logic, heads, tmp_path):
    shutil.copytree(heads / "sub-001", tmp_path / "cohort" / "sub-001")
    for file in (tmp_path / "cohort" / "sub-001").iterdir():
        file.write_bytes(b"no image")
    table = logic.scan(tmp_path / "cohort", waitForCompletion=True).table
    assert [r.usable for r in table.rows] == [False]
    assert table.usedRows == [] and "0 of 1" in table.summary


def test_scan_with_the_users_patterns(logic, heads):
    table = logic.scan(heads, patterns={"contrast": ["*_T1ce"]}, waitForCompletion=True).table
    assert sorted(table.modalities) == ["FLAIR", "T1", "T2", "contrast"]
    assert table.row("sub-001").cells["contrast"].path.endswith("sub-001_T1ce.nii.gz")


def test_scan_of_nothing_says_what_to_do(logic, tmp_path):
    with pytest.raises(EmimError, match="holds no image"):
        logic.scan(tmp_path, waitForCompletion=True)
    finished = []
    run = logic.scan(tmp_path / "absent", onFinished=finished.append)
    with pytest.raises(EmimError, match="no such folder"):
        run.waitForFinished()
    assert finished == [run] and run.table is None and run.error.hint


def test_scan_is_cancelled(logic, heads, host):
    finished = []
    run = logic.scan(heads, onFinished=finished.append)
    run.cancel()
    assert host.processEvents(4, until=lambda: finished == [run])
    assert (run.cancelled, run.error, run.table) == (True, None, None)


def test_name_patterns_are_tried_at_once(logic, heads):
    patterns = logic.parsePatterns("T1ce = *_gd*\n\nT1ce=*_km*\nADC=re:apparent")
    assert patterns == {"T1ce": ["*_gd*", "*_km*"], "ADC": ["re:apparent"]}
    names = ["a_gd.nii.gz", "a_km.nii", "apparent.mha", "a_t2.nii", "a_seg.nii.gz", "thing.nii"]
    assert [m for _n, m in logic.matchPreview(names, patterns)] == [
        "T1ce", "T1ce", "ADC", "T2", "label", None,
    ]  # fmt: skip
    for bad in ("T1ce", "=x", "T1=re:("):
        with pytest.raises(EmimError):
            logic.parsePatterns(bad)
    assert "sub-001_T1.nii.gz" in logic.namesIn(heads)
    assert len(logic.namesIn(heads, limit=3)) == 3


def test_excluded_cases_are_kept_in_the_scene(logic, cohort, heads):
    node = logic.getParameterNode()
    cohort.row("sub-002").included = False
    logic.rememberExcluded(node, cohort)
    again = logic.scan(heads, waitForCompletion=True).table
    logic.applyExcluded(node, again)
    assert [r.id for r in again.usedRows] == ["sub-001", "sub-003", "sub-004"]
    with pytest.raises(EmimError, match="no case 'sub-9'"):
        again.row("sub-9")


def test_a_practice_cohort_is_made(logic, tmp_path):
    folder = logic.makePracticeCohort(subjects=2, spacing=5.0, waitForCompletion=True).folder
    assert folder == logic.practiceFolder() == tmp_path / "practice-cohort"
    assert len(logic.namesIn(folder)) > 4
    logic.makePracticeCohort(subjects=2, spacing=5.0, waitForCompletion=True)  # replaces the earlier one
    with pytest.raises(EmimError):
        logic.makePracticeCohort(tmp_path, waitForCompletion=True)  # holds other things


# ---- settings and estimate


def test_settings_come_from_the_parameter_node(logic):
    node = logic.getParameterNode()
    node.maskRatio, node.crop = 0.6, 64
    found = logic.pretrainSettings(node)
    assert found["mask.ratio"] == 0.6 and found["train.crop"] == 64
    assert "train.steps" not in found  # the preset decides
    assert logic.settingsProblem(found) == ""
    node.maskUnit = 12
    assert "multiple of the block size" in logic.settingsProblem(logic.pretrainSettings(node))
    assert "12" in logic.settingsProblem({"preset": "tiny", "train.crop": 12, "mask.unit": 4})


def test_estimate_is_measured(logic, cohort):
    estimate = logic.estimate(cohort, TINY | {"train.steps": 1000}, waitForCompletion=True).estimate
    assert estimate.seconds >= 900 * estimate.secondsPerStep > 0
    assert estimate.memoryBytes and estimate.diskFreeBytes
    assert "steps: 1000" in estimate.text and "GiB" in estimate.text
    assert logic.runs() == []  # it leaves no run


# ---- runs


def test_pretraining_from_the_table_to_the_verdict(logic, cohort):
    cohort.row("sub-004").included = False
    run = logic.startPretraining(cohort, settings=TINY, name="erster lauf", waitForCompletion=True)
    assert (run.phase, run.state.step, run.name) == ("finished", 6, "erster lauf")
    assert "Reading" not in run.log  # the scan has read the files
    cases = json.loads((run.folder / "cohort.json").read_text(encoding="utf-8"))["cases"]
    assert [c["id"] for c in cases] == ["sub-001", "sub-002", "sub-003"]
    charts = logic.showCharts(run)
    names = [charts["loss"].GetNthPlotSeriesNode(n).GetName() for n in range(6)]
    assert "validation" in names and any(n.startswith("L_c_unseen") for n in names)
    assert logic.verdict(run).title
    nodes = logic.showPreview(run, "FLAIR")
    assert set(nodes) == {"original", "masked", "reconstructed"}
    image = slicer.util.loadVolume(cohort.row("sub-001").cells["FLAIR"].path, {"show": False})
    assert centres_agree(nodes["original"], image)
    assert [r.name for r in logic.runs()] == ["erster lauf"]
    with pytest.raises(EmimError, match="something of this name"):
        logic.startPretraining(cohort, settings=TINY, name="erster lauf")


def centres_agree(first, second):
    """Whether two images of a head lie at the same place in space, to a few voxels."""
    boxes = []
    for node in (first, second):
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        boxes.append([(a + b) / 2 for a, b in zip(bounds[::2], bounds[1::2], strict=True)])
    return max(abs(a - b) for a, b in zip(*boxes, strict=True)) < 15


def test_pause_and_resume(logic, cohort, host):
    run = logic.startPretraining(cohort, settings=LONG)
    wait_for_step(host, run, 2)
    logic.pause(run)
    assert run.phase == "pausing"
    assert isinstance(wait_for_end(run), Cancelled)
    assert (run.phase, run.error, run.canResume) == ("paused", None, True)
    step = run.state.step
    again = logic.resume(run.folder)
    wait_for_step(host, again, step + 2)
    steps = [m["step"] for m in again.metrics.training]
    assert steps == sorted(set(steps)) and again.error is None


def test_cancel_takes_seconds_at_any_stage(logic, cohort, host):
    for step in (None, 3):
        run = logic.startPretraining(cohort, settings=LONG, name=f"stage {step}")
        if step:
            wait_for_step(host, run, step)
        began = time.monotonic()
        logic.cancel(run)
        assert isinstance(wait_for_end(run), Cancelled)
        assert time.monotonic() - began < 3.0
        # Within its two seconds a quick machine gets as far as a run folder.
        assert run.phase == "paused" if step else run.phase in ("cancelled", "waiting", "paused")
        assert run.canResume == (run.phase != "cancelled")
    assert "last saved" in run.phaseText


def test_cancelled_between_its_folder_and_its_first_step(logic, cohort, host, tmp_path, monkeypatch):
    monkeypatch.setattr(run_monitor, "GRACE", 0.0)
    run = logic.startPretraining(cohort, settings=LONG)
    assert host.processEvents(60, until=(run.folder / "config.json").is_file)
    logic.cancel(run)
    assert isinstance(wait_for_end(run), Cancelled)
    assert run.phase in ("waiting", "paused") and run.canResume and run.error is None
    again = logic.resume(run.folder)
    wait_for_step(host, again, 2)
    begun = tmp_path / "begun"  # as left by a kill before the first event
    begun.mkdir()
    shutil.copy(run.folder / "config.json", begun)
    watched = run_monitor.RunMonitor(begun)
    watched.start()
    assert watched.phase == "waiting" and isinstance(wait_for_end(watched), Cancelled)


def test_a_run_survives_is_attached_again_and_killed_if_it_hangs(logic, cohort, host):
    first = logic.startPretraining(cohort, settings=LONG)
    wait_for_step(host, first, 2)
    process = first._job.worker.pid
    logic.close()  # as when Slicer ends
    other = EMIMPretrainLogic()
    found = other.runs()[0]
    assert found.state == "running"
    again = other.attach(found.folder)
    wait_for_step(host, again, found.step + 2)
    assert again.running and not again.startedHere
    with pytest.raises(EmimError, match="Another process is training"):
        other.resume(found.folder)
    if hasattr(signal, "SIGSTOP"):
        os.kill(process, signal.SIGSTOP)
    began = time.monotonic()
    other.cancel(again)
    assert isinstance(wait_for_end(again), Cancelled)
    assert time.monotonic() - began < 3.5
    assert again.phase == "paused" and again.canResume
    other.close()


def test_a_run_from_a_shell_is_watched_and_paused(logic, heads, cache, tmp_path, host):
    folder = tmp_path / "runs" / "from a shell"
    arguments = [f"{n}={v}" for n, v in LONG.items() if n not in ("preset", "device")]
    command = [sys.executable, "-m", "emim", "pretrain", str(heads), "--out", str(folder), "--preset", "tiny"]
    command += ["--cache", str(cache), *(part for a in arguments for part in ("--set", a))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert host.processEvents(60, until=lambda: [r.state for r in logic.runs()] == ["running"])
        run = logic.attach(folder)
        wait_for_step(host, run, 2)
        logic.pause(run)
        assert process.wait(30) == 3
    finally:
        process.kill()
        process.wait()
    assert host.processEvents(5, until=lambda: run.phase == "paused")


def test_a_killed_worker_says_so_and_can_be_resumed(logic, cohort, host):
    run = logic.startPretraining(cohort, settings=LONG)
    wait_for_step(host, run, 3)
    os.kill(run._job.worker.pid, signal.SIGKILL)
    error = wait_for_end(run)
    assert "SIGKILL" in error.what and error.hint
    assert run.phase == "failed" and run.canResume and "resumed" in run.phaseText
    again = logic.resume(run.folder)
    wait_for_step(host, again, 1)
    assert again.error is None


def test_what_the_core_refuses_is_told(logic, cohort, tmp_path):
    with pytest.raises(EmimError, match="mask.unit"):
        logic.startPretraining(cohort, settings=TINY | {"mask.unit": 9}, waitForCompletion=True)
    for row in cohort.rows:
        row.included = False
    with pytest.raises(EmimError, match="No case of the cohort is used"):
        logic.startPretraining(cohort, settings=TINY)


def test_fine_tuning_from_drawn_labels_to_the_installed_model(logic, cohort, heads):
    before = logic.startPretraining(cohort, settings=TINY, waitForCompletion=True)
    row = cohort.row("sub-004")
    assert row.label.state == "missing"
    volume = logic.loadCase(row, ["FLAIR"])[0]
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    mask = (slicer.util.arrayFromVolume(volume) > 0).astype("uint8")
    identifier = segmentation.GetSegmentation().AddEmptySegment("", "Läsion")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
    values = cohort.labelValues
    terminology = "Segmentation category~SCT^49755003^Abnormal~SCT^52988006^Lesion~^^~~^^~^^"
    structures = [{"name": "Läsion", "values": values, "color": [10, 20, 30], "terminology": terminology}]
    file = logic.exportLabels(segmentation, volume, row, structures, cohort)
    run = logic.startFinetuning(
        cohort, before.folder, structures, settings=TINY, name="Läsionen", description="Findet Läsionen.",
        intendedUse="Nur zum Testen.", licence="CC0", waitForCompletion=True,
    )  # fmt: skip
    cases = json.loads((run.folder / "cohort.json").read_text(encoding="utf-8"))["cases"]
    assert {c["id"]: c["label"] for c in cases}["sub-004"] == str(file)
    assert run.state.init == str(before.folder) and run.canInstall
    assert logic.verdict(run).colour in ("red", "amber", "green")
    assert set(logic.showCharts(run)) == {"loss", "dice"}
    assert set(logic.showPreview(run)) == {"image", "reference", "prediction"}
    assert not logic.isInstalled(run)
    model = logic.installModel(run)
    assert logic.isInstalled(run)
    assert [m.name for m in logic.registry.models()] == ["Läsionen"]
    card = model.card
    assert (card.description, card.intended_use, card.licence) == (
        "Findet Läsionen.",
        "Nur zum Testen.",
        "CC0",
    )
    structure = card.structures[0]
    assert (structure.name, structure.color, structure.terminology) == ("Läsion", (10, 20, 30), terminology)
    with pytest.raises(EmimError, match="installed already"):
        logic.installModel(run)
    assert logic.installModel(run, overwrite=True).name == "Läsionen"
    again = logic.startFinetuning(cohort, "scratch", structures, settings=TINY, name="Läsionen")
    assert again.name == "Läsionen-2"  # another run towards the same model
    assert str(model.path) in [path for _text, path in logic.inits()]
    assert not any(p.name.startswith("Läs") for p in heads.rglob("*"))
