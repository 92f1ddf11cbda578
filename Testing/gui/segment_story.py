"""What the tests of EMIMSegment's panel share: a model, a case on four grids, a panel, fake workers."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "Testing" / "output" / "screenshots"
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


@pytest.fixture
def model_package(tmp_path_factory):
    """A package with a real network that marks what is bright in FLAIR and T1ce; FLAIR is required."""
    return _write_model(tmp_path_factory.getbasetemp() / "segment")


@functools.cache  # once for all test files, which a fixture that they import is not
def _write_model(folder):
    path = folder / "bright-lesions"
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("segment_model.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(path)], env=environment, check=True)
    return path


@pytest.fixture
def cohort_folder(tmp_path_factory):
    """The files of two synthetic heads with a tumour, every sequence on a grid of its own."""
    return _draw_heads(tmp_path_factory.getbasetemp() / "segment")


@functools.cache
def _draw_heads(folder):
    out = folder / "heads"
    arguments = ["--subjects", "2", "--labelled", "2", "--spacing", "4", "--own-grids", "--seed", "3"]
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(out), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture
def case_folder(cohort_folder):
    """The files of the first of them."""
    return cohort_folder / "sub-001"


@pytest.fixture
def panel(host, tmp_path, monkeypatch):
    """The opened panel without any model."""
    from EMIMLib import settings

    monkeypatch.setenv("EMIM_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings.setModelsFolder(tmp_path / "modèles")
    settings.setDevice("cpu")
    return host.enter(host.loadModule(ROOT / "EMIMSegment" / "EMIMSegment.py"))


@pytest.fixture
def ready(panel, host, model_package, case_folder):
    """The panel with the model chosen and the four sequences loaded and guessed."""
    panel.modelSection.importModel(str(model_package))
    load_case(host, case_folder)
    return panel


def load_case(host, folder, modalities=MODALITIES):
    """Load the sequences of a case; returns the nodes by modality."""
    import slicer

    nodes = {m: slicer.util.loadVolume(str(next(folder.glob(f"*_{m}.nii.gz")))) for m in modalities}
    host.processEvents(0.05)
    return nodes


def fake_worker(tmp_path, monkeypatch, body):
    """Workers are this Python text from now on, which finds what they are given in ``arguments``."""
    script = tmp_path / "fake worker.py"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys, time\n"
        f"arguments = json.loads(os.environ.get('EMIM_ARGUMENTS', 'null')) or sys.argv[3:]\n{body}\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("EMIM_PYTHON", str(script))


def apply_and_wait(host, widget, seconds=120):
    """Press Apply and wait until the run has ended."""
    widget.ui.applyButton.click()
    assert host.processEvents(seconds, until=lambda: widget.state.job is None), "still running"


def segment(host, widget):
    """Press Apply and wait for the result, which must come."""
    apply_and_wait(host, widget)
    run = widget.logic.run
    assert run.error is None, f"{run.error}\n{run.log}"


def data_nodes():
    """How many nodes of each kind the user sees, beside those of the inputs."""
    import slicer

    kinds = ("Segmentation", "Table", "ScalarVolume", "Model", "LinearTransform", "ColorTable", "Text")
    return {k: slicer.mrmlScene.GetNumberOfNodesByClass(f"vtkMRML{k}Node") for k in kinds}


def combo_texts(combo):
    return [combo.itemText(i) for i in range(combo.count)]


def shot(host, widget, name, height=1300):
    """Save a picture of the panel for people to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    host.processEvents(0.05)
    host.grabPanel(widget, SHOTS / f"EMIMSegment-{name}.png", (450, height))
