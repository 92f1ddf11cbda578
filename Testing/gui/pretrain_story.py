"""What the tests of EMIMPretrain's panel share: a panel, a cohort, fake workers, pictures."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "Testing" / "output" / "screenshots"
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


@pytest.fixture
def panel(host, tmp_path, monkeypatch):
    """The opened panel, with empty folders for runs and models."""
    from EMIMLib import settings

    monkeypatch.setenv("EMIM_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings.setModelsFolder(tmp_path / "modèles")
    settings.setRunsFolder(tmp_path / "essais")
    settings.setCacheFolder(tmp_path / "cache")
    settings.setDevice("cpu")
    return host.enter(host.loadModule(ROOT / "EMIMPretrain" / "EMIMPretrain.py"))


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory):
    """Eight synthetic heads on a coarse grid; the first four have labels."""
    out = tmp_path_factory.mktemp("phantom") / "têtes"
    arguments = ["--subjects", "8", "--labelled", "4", "--spacing", "5", "--seed", "5"]
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(out), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture
def table():
    """A scanned cohort with a missing image, an unusable case and a note; its files do not exist."""
    from EMIMPretrainLib.cohort_table import CohortTable

    return CohortTable.fromScan({"rows": scanned_rows(), "modalities": list(MODALITIES)}, "/data/cohort")


def scanned_rows():
    rows = []
    for n in range(1, 9):
        images = {m: f"/data/cohort/p{n}/p{n}_{m}.nii.gz" for m in MODALITIES}
        labelled = n <= 4
        rows.append(
            {
                "id": f"p{n}",
                "subject": f"p{n}",
                "usable": True,
                "problems": [],
                "notes": [],
                "images": images,
                "label": f"/data/cohort/p{n}/p{n}_seg.nii.gz" if labelled else None,
                "label_values": [1, 2] if labelled else [],
            }
        )
    del rows[4]["images"]["T2"]
    rows[5].update(usable=False, problems=["FLAIR: every voxel is 0"])
    rows[6].update(notes=["T1: the brightest values are cut off"])
    return rows


def stuck_where(host, task):
    """End the worker of a task and return its log, with the place where each of its threads was."""
    os.kill(task._job.worker.pid, signal.SIGABRT)  # workers run with Python's fault handler
    host.processEvents(10, until=lambda: not task.running)
    return f"stuck: {task.log}"


def show_table(panel, table):
    """Let the panel show a table as if its folder had been scanned."""
    panel.state.parameterNode.cohortFolder = table.source
    panel.state.table = table
    panel.update()


def fake_worker(tmp_path, monkeypatch, body):
    """Workers are this Python text from now on, which finds what they are given in ``arguments``."""
    script = tmp_path / "fake worker.py"
    given = "arguments = json.loads(os.environ.get('EMIM_ARGUMENTS', 'null')) or sys.argv[3:]"
    helpers = "def say(**event): print(json.dumps(event), flush=True)\n"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys, time\n{given}\n{helpers}{body}\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("EMIM_PYTHON", str(script))


def written_run(folder, command="pretrain", steps=40, done=20, ended=None):
    """The files of a run that somebody else has started, as the core writes them."""
    folder.mkdir(parents=True)
    config = {"version": 1, "command": command, "modalities": list(MODALITIES), "train": {"steps": steps}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lines = {"L_a": 1.0, "L_b": 1.0, "L_c": 0.7, "L_c_unseen": 0.8}
    (folder / "collapse_lines.json").write_text(json.dumps(lines), encoding="utf-8")
    write_events(folder, [{"type": "status", "text": "Loading torch."}, *training(done, steps)])
    if ended:
        write_events(folder, [ended])
    return folder


def training(done, steps):
    """Events of ``done`` steps whose validation gets better and better."""
    for step in range(0, done + 1, 5):
        loss = 1.2 - 0.8 * step / steps
        yield {"type": "metric", "step": step, "split": "train", "reconstruction": loss, "loss": loss}
        yield {
            "type": "metric",
            "step": step,
            "split": "validation",
            "reconstruction": loss,
            "output_variance": 0.4,
            "rank_ratio": [0.6, 0.5, 0.5, 0.4],
        }
        yield {"type": "progress", "done": step, "total": steps, "unit": "step", "seconds_left": 60.0}


def write_events(folder, events):
    """Append events to the file of a run."""
    with open(folder / "events.jsonl", "a", encoding="utf-8") as file:
        for number, event in enumerate(events):
            file.write(json.dumps({"v": 1, "time": 1_800_000_000.0 + number, **event}) + "\n")


def combo_texts(combo):
    return [combo.itemText(i) for i in range(combo.count)]


def table_texts(table):
    """The texts of a QTableWidget, row by row; None where there is no item."""
    return [
        [table.item(r, c).text() if table.item(r, c) else None for c in range(table.columnCount)]
        for r in range(table.rowCount)
    ]


def shot(host, widget, name, height):
    """Save a picture of the panel for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    host.processEvents(0.05)
    height = max(height, widget.parent.heightForWidth(450))  # the application scrolls, it does not squeeze
    host.grabPanel(widget, SHOTS / f"EMIMPretrain-{name}.png", (450, height))


def window_shot(host, name):
    """Save a picture of the panel and the views."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    host.processEvents(0.05)
    host.screenshot(os.fspath(SHOTS / f"EMIMPretrain-{name}.png"))
