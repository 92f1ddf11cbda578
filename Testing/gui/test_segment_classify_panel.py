"""EMIMSegment's panel with a model that classifies, by the real worker."""

# ruff: noqa: F811  fixtures are imported

import csv
import functools
import os
import shutil
import subprocess
import sys

import pytest
import slicerhost

slicerhost.start()
import qt  # noqa: E402
import slicer  # noqa: E402
from segment_story import (  # noqa: E402, F401
    MODALITIES,
    ROOT,
    apply_and_wait,
    case_folder,
    cohort_folder,
    combo_texts,
    data_nodes,
    fake_worker,
    load_case,
    model_package,
    panel,
    shot,
)

SEGMENTATION_ONLY = (
    "qualityComboBox", "outputSelector", "surfaceCheckBox", "probabilitiesCheckBox", "segmentsTable",
)  # fmt: skip


@pytest.fixture
def class_package(tmp_path_factory):
    return _write_class_model(tmp_path_factory.getbasetemp() / "classify")


@functools.cache
def _write_class_model(folder):
    folder.mkdir(exist_ok=True)
    script = ROOT / "Testing" / "mrml" / "class_model.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder / "types"), *MODALITIES]
    subprocess.run(command, env=environment, check=True)
    return folder / "types"


@pytest.fixture
def both(panel, host, model_package, class_package, case_folder):
    """The panel with a model of each task, that of classification chosen, and a case loaded."""
    panel.modelSection.importModel(str(model_package))
    panel.modelSection.importModel(str(class_package))
    load_case(host, case_folder)
    return panel


def choose(widget, name):
    combo = widget.ui.modelComboBox
    combo.setCurrentIndex(next(i for i, text in enumerate(combo_texts(combo)) if text.startswith(name)))


def visible(widget, names=SEGMENTATION_ONLY):
    return [name for name in names if getattr(widget.ui, name).isVisibleTo(widget.parent)]


def table_rows(table):
    return [[table.item(r, c).text() for c in range(table.columnCount)] for r in range(table.rowCount)]


def test_models_are_marked_and_the_panel_follows_their_task(both, host):
    ui = both.ui
    assert combo_texts(ui.modelComboBox) == ["bright lesions (segmentation)", "Lésion type (classification)"]
    card = ui.modelCardLabel.text
    assert "Tells apart" in card and "other &lt;type&gt;" in card and "Finds" not in card
    assert "balanced accuracy 0.75, AUC 0.82 (95 % interval 0.61 to 0.97) in 8 validation cases" in card
    assert visible(both) == [] and ui.runCollapsibleButton.text == "Classify"
    assert ui.applyButton.enabled and "class" in ui.applyButton.toolTip
    assert "each class" in ui.resultLabel.text
    ui.batchSceneRadioButton.click()
    assert ui.batchButton.enabled and ui.batchHintLabel.text == "1 study: sub-001"
    choose(both, "bright")
    assert visible(both) == list(SEGMENTATION_ONLY[:-1]) and ui.runCollapsibleButton.text == "Segment"
    assert ui.applyButton.toolTip == "Segment the inputs." and "Finds" in ui.modelCardLabel.text
    assert ui.batchButton.enabled and "segmentation" in ui.resultLabel.text


def test_apply_shows_the_classes_and_another_case_gets_a_new_table(both, host, cohort_folder):
    ui = both.ui
    apply_and_wait(host, both)
    run = both.logic.run
    assert run.error is None, f"{run.error}\n{run.log}"
    ranked = sorted(run.probabilities, key=run.probabilities.get, reverse=True)
    shown = table_rows(ui.classesTable)
    assert shown == [[name, f"{round(run.probabilities[name], 4):.1%}"] for name in ranked]
    bold = [[ui.classesTable.item(r, c).font().bold() for c in range(2)] for r in range(3)]
    assert bold == [[True, True], [False, False], [False, False]]
    assert ui.classesTable.isVisibleTo(both.parent) and visible(both) == []
    assert "not a diagnosis" in ui.classesNoteLabel.text
    table = both.state.parameterNode.outputTable
    assert table is run.table and table.GetName() == "Lésion type: sub-001_T1"
    assert "Apply replaces" in ui.applyHintLabel.text
    assert "Classified in" in both.runSection.job.pane.statusLabel.text
    assert data_nodes()["Table"] == 1 and data_nodes()["Segmentation"] == 0
    ui.copyClassesButton.click()
    assert qt.QApplication.clipboard().text().splitlines()[1] == "\t".join(shown[0])
    shot(host, both, "classified")

    choose(both, "bright")
    assert not ui.classesTable.isVisibleTo(both.parent)
    choose(both, "Lésion")
    assert ui.classesTable.isVisibleTo(both.parent)

    other = load_case(host, cohort_folder / "sub-002")
    for modality, volume in other.items():
        both.state.parameterNode.setInputNode(modality, volume)
    assert both.state.parameterNode.outputTable is None
    assert "appears here" in ui.resultLabel.text and ui.applyHintLabel.text == ""
    assert slicer.mrmlScene.GetNodeByID(table.GetID()) is table  # the earlier result stays


def test_a_folder_of_cases_becomes_a_table_that_names_the_broken_case(both, host, cohort_folder, tmp_path):
    cases = tmp_path / "cases"
    shutil.copytree(cohort_folder, cases)
    (cases / "sub-002" / "sub-002_FLAIR.nii.gz").unlink()
    ui = both.ui
    ui.batchCollapsibleButton.collapsed = False
    assert ui.batchButton.text == "Classify all cases"
    ui.batchFolderPathLineEdit.currentPath = str(cases)
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    ui.batchButton.click()
    assert host.processEvents(120, until=lambda: both.state.job is None)
    run = both.logic.run
    shown = dict(table_rows(ui.batchTable))
    assert set(shown) == {"sub-001", "sub-002"}
    share = run.rows[0]["probabilities"]["last type"]
    assert shown["sub-001"] == f"last type {share:.1%}" and "FLAIR" in shown["sub-002"]
    assert run.failed == ["sub-002"] and "Classified 1 of 2 cases" in run.summary
    names = [run.table.GetColumnName(c) for c in range(run.table.GetNumberOfColumns())]
    assert names == ["Case", "Class", "first type", "last type", "other <type>", "Message"]
    assert run.table.GetCellText(1, 1) == "failed" and "FLAIR" in run.table.GetCellText(1, 5)
    with open(tmp_path / "results" / "classes.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert float(written[0]["probability_last type"]) == pytest.approx(share, abs=1e-5)
    ui.batchButton.click()  # nothing is overwritten
    assert host.processEvents(120, until=lambda: both.state.job is None)
    assert "exists already" in both.logic.run.error.what


def test_all_loaded_studies_are_classified(both, host, cohort_folder, tmp_path):
    load_case(host, cohort_folder / "sub-002")
    ui = both.ui
    ui.batchCollapsibleButton.collapsed = False
    ui.batchSceneRadioButton.click()
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path)
    ui.batchButton.click()
    assert host.processEvents(120, until=lambda: both.state.job is None)
    run = both.logic.run
    shown = dict(table_rows(ui.batchTable))
    likeliest = {r["case"]: (r["class"], max(r["probabilities"].values())) for r in run.rows}
    assert shown == {case: f"{name} {share:.1%}" for case, (name, share) in likeliest.items()}
    assert set(shown) == {"sub-001", "sub-002"} and (tmp_path / "classes.csv").is_file()
    assert data_nodes()["Table"] == 3  # one a study, and one of all
    shot(host, both, "batch-classified", 1500)


def test_a_refusal_is_shown_and_leaves_nothing(both, host, tmp_path, monkeypatch, caplog):
    refuse = "print(json.dumps({'type': 'error', 'what': 'It is too dark.'}))\nsys.exit(2)"
    fake_worker(tmp_path, monkeypatch, f"assert 'classify' in arguments\n{refuse}")
    apply_and_wait(host, both, 20)
    assert "It is too dark." in caplog.text
    assert data_nodes()["Table"] == 0 and both.ui.applyButton.enabled


def test_a_modality_that_is_missing_is_named(both, host, tmp_path, monkeypatch):
    answer = {"first type": 0.2, "last type": 0.7, "other <type>": 0.1}
    fake_worker(tmp_path, monkeypatch, f"print(json.dumps({{'type': 'result', 'probabilities': {answer}}}))")
    both.state.parameterNode.setNotAvailable("T2")
    apply_and_wait(host, both, 20)
    assert table_rows(both.ui.classesTable)[0] == ["last type", "70.0%"]
    assert "made without T2" in both.ui.resultLabel.text
    assert "without T2" in both.runSection.job.pane.statusLabel.text
