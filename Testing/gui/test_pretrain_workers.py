"""EMIMPretrain's panel with workers that crash, talk nonsense, hang, or answer as asked."""

# ruff: noqa: F811  fixtures are imported

import json
import time

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from pretrain_story import (  # noqa: E402, F401
    MODALITIES,
    fake_worker,
    panel,
    scanned_rows,
    shot,
    show_table,
    table,
    table_texts,
    training,
)

FOUND = {"cases": 8, "modalities": list(MODALITIES), "rows": scanned_rows()}
SCAN = f"""
with open(os.path.join(arguments[arguments.index("--out") + 1], "cohort.json"), "w") as file:
    json.dump({{"cases": {scanned_rows()!r}}}, file)
say(type="result", **{FOUND!r})
"""
ESTIMATE = {
    "type": "result",
    "seconds": 7200.0,
    "seconds_preprocess": 300.0,
    "seconds_per_step": 4.6,
    "steps": 1500,
    "memory_bytes": 2 * 2**30,
    "memory_total_bytes": 16 * 2**30,
    "disk_bytes": 2**30,
    "disk_free_bytes": 100 * 2**30,
    "device": "cpu",
    "cases": 7,
    "preset": "tiny",
}
# A training command that writes what the core writes, and holds the lock of its run folder.
TRAIN = """
from filelock import FileLock
from pathlib import Path
out = Path(arguments[arguments.index("--out") + 1])
out.mkdir(parents=True)
lock = FileLock(out / ".lock")
lock.acquire()
config = {"version": 1, "command": arguments[0], "modalities": ["T1"], "train": {"steps": 100}}
(out / "config.json").write_text(json.dumps(config))
events = open(out / "events.jsonl", "a", buffering=1)
def tell(**event):
    line = json.dumps({"v": 1, "time": time.time(), **event})
    print(line, flush=True)
    print(line, file=events)
tell(type="status", text="Training.")
for step in range(1, 4):
    tell(type="progress", done=step, total=100, unit="step", text="loss 1.0", rate=1.0, seconds_left=97.0)
"""


def idle(panel):
    return lambda: panel.state.task is None


def ended(panel):
    return lambda: panel.state.monitor is not None and not panel.state.monitor.running


def choose_folder(panel):
    panel.state.parameterNode.cohortFolder = "/data/cohort"


def test_scan_survives_garbage_and_bytes_that_are_no_text(panel, host, tmp_path, monkeypatch):
    noise = "sys.stdout.buffer.write(b'\\xff\\xfe garbage\\n{broken\\n'); print('[1, 2]'); print('{}')"
    fake_worker(tmp_path, monkeypatch, f"{noise}\n{SCAN}")
    choose_folder(panel)
    panel.ui.scanButton.click()
    assert panel.ui.scanButton.text == "Cancel"
    assert host.processEvents(20, until=idle(panel))
    assert panel.ui.scanButton.text == "Scan" and panel.ui.scanButton.enabled
    assert len(panel.state.table.rows) == 8
    assert panel.ui.cohortTable.rowCount == 8


def test_scan_that_crashes_says_so_and_the_panel_goes_on(panel, host, tmp_path, monkeypatch, caplog):
    fake_worker(tmp_path, monkeypatch, "import signal; os.kill(os.getpid(), signal.SIGKILL)")
    choose_folder(panel)
    panel.ui.scanButton.click()
    assert host.processEvents(20, until=idle(panel))
    assert panel.ui.cohortStatusLabel.text.startswith("Failed:")
    assert panel.state.table is None and panel.ui.scanButton.enabled
    assert any(record.levelname == "ERROR" for record in caplog.records)
    fake_worker(tmp_path, monkeypatch, SCAN)
    panel.ui.scanButton.click()
    assert host.processEvents(20, until=idle(panel))
    assert panel.state.table is not None and panel.ui.cohortStatusLabel.text == ""


def test_hanging_scan_is_cancelled_within_three_seconds(panel, host, tmp_path, monkeypatch):
    fake_worker(
        tmp_path, monkeypatch, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    )
    choose_folder(panel)
    panel.ui.scanButton.click()
    host.processEvents(0.5)
    assert not panel.ui.practiceButton.enabled and "wait" in panel.ui.practiceButton.toolTip
    start = time.monotonic()
    panel.ui.scanButton.click()
    assert not panel.ui.scanButton.enabled
    assert host.processEvents(5, until=idle(panel))
    assert time.monotonic() - start < 3
    assert panel.ui.cohortStatusLabel.text == "Cancelled." and panel.ui.scanButton.enabled


def test_scene_closed_while_scanning(panel, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "time.sleep(1)\n" + SCAN)
    choose_folder(panel)
    panel.ui.scanButton.click()
    host.processEvents(0.2)
    slicer.mrmlScene.Clear()
    assert host.processEvents(20, until=idle(panel))
    assert panel.state.table is None  # the new scene knows nothing of that folder
    assert panel.state.parameterNode.cohortFolder == ""


def test_panel_closed_while_scanning_takes_the_worker_along(panel, host, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "time.sleep(600)")
    choose_folder(panel)
    panel.ui.scanButton.click()
    host.processEvents(0.3)
    slicer.util.mainWindow().moduleSelector().leave()
    slicer.modules.emimpretrain.cleanup()
    host.processEvents(2.5)  # the fixture no_leftover_processes looks for the worker


def test_missing_packages_are_named_and_nothing_starts(panel, host, table, monkeypatch, caplog):
    from EMIMLib import dependencies

    monkeypatch.setattr(dependencies, "missing", lambda: [dependencies.Requirement("monai", ">=1.5", None)])
    show_table(panel, table)
    panel.ui.scanButton.click()
    panel.ui.startPretrainButton.click()
    assert "monai" in caplog.text
    assert panel.state.task is None and panel.state.monitor is None
    assert panel.ui.runsTable.rowCount == 0


@pytest.mark.parametrize("memory, mark", [(2, "✓"), (40, "✕")])
def test_estimate_says_whether_it_fits(panel, host, table, tmp_path, monkeypatch, memory, mark):
    answer = json.dumps({**ESTIMATE, "memory_bytes": memory * 2**30})
    fake_worker(tmp_path, monkeypatch, f"assert '--dry-run' in arguments, arguments\nprint({answer!r})")
    show_table(panel, table)
    panel.ui.estimateButton.click()
    assert host.processEvents(20, until=idle(panel))
    text = panel.ui.estimateLabel.text
    assert mark in text and "2 h" in text and "GiB" in text
    shot(host, panel, f"estimate-{'fits' if mark == '✓' else 'too-large'}", 1100)
    panel.ui.stepsSpinBox.value = 20
    assert panel.ui.estimateLabel.text == ""  # it was about other settings


def test_estimate_of_fine_tuning_is_about_structures_and_start(panel, host, table, tmp_path, monkeypatch):
    checks = "assert arguments[0] == 'finetune' and '--structures' in arguments and '--dry-run' in arguments"
    fake_worker(tmp_path, monkeypatch, f"{checks}, arguments\nsay(**{ESTIMATE!r})")
    show_table(panel, table)
    panel.ui.structuresFromCohortButton.click()
    panel.state.parameterNode.init = "scratch"
    panel.ui.modelNameLineEdit.text = "Modell"
    panel.ui.finetuneEstimateButton.click()
    assert host.processEvents(20, until=idle(panel))
    assert "✓" in panel.ui.finetuneEstimateLabel.text
    panel.ui.structuresTable.item(0, 1).setText("1, 2")
    assert panel.ui.finetuneEstimateLabel.text == ""


def test_training_that_crashes_is_explained_and_can_be_started_again(
    panel, host, table, tmp_path, monkeypatch, caplog
):
    fake_worker(tmp_path, monkeypatch, TRAIN + "raise MemoryError('no room for the batch')")
    show_table(panel, table)
    panel.ui.startPretrainButton.click()
    assert panel.state.monitor is not None
    assert host.processEvents(20, until=ended(panel))
    host.processEvents(0.6)
    assert "no room for the batch" in caplog.text
    assert (
        "failed" in table_texts(panel.ui.runsTable)[0][3] or "paused" in table_texts(panel.ui.runsTable)[0][3]
    )
    assert panel.ui.startPretrainButton.enabled and panel.ui.resumeButton.enabled


def test_training_refused_before_it_begins_shows_the_reason(
    panel, host, table, tmp_path, monkeypatch, caplog
):
    refusal = {"type": "error", "what": "The disk is full.", "where": "/data", "hint": "Free some space."}
    fake_worker(tmp_path, monkeypatch, f"say(**{refusal!r})\nsys.exit(2)")
    show_table(panel, table)
    panel.ui.startPretrainButton.click()
    assert host.processEvents(20, until=ended(panel))
    host.processEvents(0.6)
    assert "The disk is full." in caplog.text and "Free some space." in caplog.text
    assert "The disk is full." in panel.watch._pane.statusLabel.text
    assert panel.ui.startPretrainButton.enabled


def test_hanging_training_is_cancelled_within_three_seconds(panel, host, table, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, TRAIN + "time.sleep(600)")
    show_table(panel, table)
    panel.ui.runNameLineEdit.text = "hängt"
    panel.ui.startPretrainButton.click()
    assert host.processEvents(20, until=lambda: panel.state.monitor.phase == "running")
    assert host.processEvents(5, until=lambda: "Step 3 of 100" in panel.watch._pane.statusLabel.text)
    assert not panel.ui.startPretrainButton.enabled and "is training" in panel.ui.startPretrainButton.toolTip
    assert panel.ui.pauseButton.enabled
    start = time.monotonic()
    panel.ui.cancelButton.click()
    assert not panel.ui.cancelButton.enabled
    assert host.processEvents(5, until=ended(panel))
    assert time.monotonic() - start < 3
    host.processEvents(0.6)
    assert panel.ui.startPretrainButton.enabled and panel.ui.resumeButton.enabled


def test_training_goes_on_when_the_panel_closes_and_is_found_again(panel, host, table, tmp_path, monkeypatch):
    fake_worker(
        tmp_path,
        monkeypatch,
        TRAIN
        + "while not (out / 'cancel').exists(): time.sleep(0.05)\n"
        + "tell(type='status', text='Stopped.')\nsys.exit(3)",
    )
    show_table(panel, table)
    panel.ui.startPretrainButton.click()
    assert host.processEvents(20, until=lambda: panel.state.monitor.phase == "running")
    folder = panel.state.monitor.folder
    slicer.util.mainWindow().moduleSelector().leave()
    slicer.modules.emimpretrain.cleanup()
    slicer.mrmlScene.Clear()
    host.processEvents(0.5)
    again = host.enter(slicer.modules.emimpretrain)
    assert again.state.monitor.folder == folder and again.state.monitor.running
    again.ui.pauseButton.click()
    assert host.processEvents(10, until=ended(again))
    host.processEvents(0.6)
    assert "paused" in table_texts(again.ui.runsTable)[0][3]
