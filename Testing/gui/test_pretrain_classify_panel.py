"""EMIMPretrain's panel where fine-tuning is for classification: what is shown, started and watched."""

# ruff: noqa: F811  fixtures are imported

import json

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from pretrain_story import (  # noqa: E402, F401
    combo_texts,
    fake_worker,
    panel,
    shot,
    show_table,
    table,
    table_texts,
    write_events,
)

OF_SEGMENTATION = ("structuresTable", "addStructureButton", "drawnLabelsGroupBox", "labelsLabel")
OF_CLASSIFICATION = ("classesPathLineEdit", "classesLabel")
CSV = "case,class\np1,benign\np2,benign\np3,malignant\np4,malignant\np5,malignant\np6,benign\n"


@pytest.fixture
def classes_file(tmp_path):
    file = tmp_path / "Klassen für alle.csv"
    file.write_text(CSV, encoding="utf-8")
    return file


@pytest.fixture
def classifying(panel, table, classes_file):
    """The panel with a cohort, the task classification and a file of classes."""
    show_table(panel, table)
    panel.ui.finetuneCollapsibleButton.collapsed = False
    panel.ui.finetuneAdvancedGroupBox.collapsed = False
    panel.ui.taskComboBox.setCurrentIndex(1)
    panel.ui.classesPathLineEdit.currentPath = str(classes_file)
    panel.state.parameterNode.init = "scratch"
    panel.ui.modelNameLineEdit.text = "Artig"
    return panel


def visible(panel, names):
    return [name for name in names if getattr(panel.ui, name).isVisibleTo(panel.parent)]


def test_the_controls_are_those_of_the_task(panel, host, table):
    show_table(panel, table)
    panel.ui.finetuneCollapsibleButton.collapsed = False
    panel.ui.finetuneAdvancedGroupBox.collapsed = False
    assert visible(panel, OF_SEGMENTATION) == list(OF_SEGMENTATION)
    assert visible(panel, (*OF_CLASSIFICATION, "modeComboBox")) == []
    panel.ui.taskComboBox.setCurrentIndex(1)
    assert panel.state.parameterNode.task == "classification"
    assert visible(panel, OF_SEGMENTATION) == []
    assert visible(panel, OF_CLASSIFICATION) == list(OF_CLASSIFICATION)
    assert not panel.ui.startFinetuneButton.enabled
    assert "which class each case has" in panel.ui.startFinetuneButton.toolTip
    panel.ui.modeComboBox.setCurrentIndex(2)
    assert panel.state.parameterNode.classificationMode == "knn"
    assert not panel.ui.finetuneStepsSpinBox.enabled  # nothing is trained
    panel.ui.taskComboBox.setCurrentIndex(0)
    assert panel.ui.finetuneStepsSpinBox.enabled and visible(panel, OF_CLASSIFICATION) == []


def test_what_the_file_says_is_shown(classifying, host, classes_file):
    ui = classifying.ui
    assert classifying.state.parameterNode.classesFile == str(classes_file)
    text = ui.classesLabel.text
    assert "<b>benign</b> 2, <b>malignant</b> 3" in text  # p6 cannot be used
    assert "not used: 2" in text and "Very few cases: benign, malignant." in text
    assert ui.startFinetuneButton.enabled and "stay undecided" in ui.finetuneHintLabel.text
    shot(host, classifying, "classes", 1600)
    ui.modeComboBox.setCurrentIndex(1)
    assert "learns nothing" in ui.finetuneHintLabel.text  # a probe of a network that nobody has trained
    classifying.state.table.row("p5").included = False
    classifying.update()
    assert "<b>malignant</b> 2" in ui.classesLabel.text


@pytest.mark.parametrize(
    "text, words",
    [
        ("case,class\np1,benign\n", "only the class"),
        ("case,class\np1,a\np2,b\nx9,a\n", "no usable case"),
        ("a,b\n1,2\n", "no such columns"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_do_is_explained(classifying, host, tmp_path, text, words):
    file = tmp_path / "other.csv"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    classifying.ui.classesPathLineEdit.currentPath = str(file)
    assert words in classifying.ui.classesLabel.text.replace("&#x27;", "'")
    assert not classifying.ui.startFinetuneButton.enabled
    assert words in classifying.ui.startFinetuneButton.toolTip
    file.write_text(CSV, encoding="utf-8")  # put right by the user
    classifying.update()
    assert classifying.ui.startFinetuneButton.enabled


def test_a_table_may_have_any_ending(classifying, tmp_path):
    for name in ("GRADES.CSV", "grades.txt"):
        (tmp_path / name).write_text(CSV, encoding="utf-8")
        classifying.ui.classesPathLineEdit.currentPath = ""
        assert not classifying.ui.startFinetuneButton.enabled
        classifying.ui.classesPathLineEdit.currentPath = str(tmp_path / name)
        assert classifying.ui.startFinetuneButton.enabled, name


def test_the_choice_is_kept_with_the_scene(classifying, classes_file, tmp_path):
    classifying.ui.modeComboBox.setCurrentIndex(1)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert classifying.ui.taskComboBox.currentIndex == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    node = classifying.state.parameterNode
    assert (node.task, node.classificationMode) == ("classification", "linear")
    ui = classifying.ui
    assert ui.taskComboBox.currentIndex == 1 and ui.modeComboBox.currentIndex == 1
    assert ui.classesPathLineEdit.currentPath == node.classesFile == str(classes_file)


def test_the_worker_is_told_task_classes_and_mode(classifying, host, tmp_path, monkeypatch):
    keep = tmp_path / "arguments.json"
    answer = {"type": "result", "seconds": 60.0, "steps": 1, "device": "cpu", "cases": 5}
    fake_worker(tmp_path, monkeypatch, f"json.dump(arguments, open({str(keep)!r}, 'w'))\nsay(**{answer!r})")
    classifying.ui.modeComboBox.setCurrentIndex(2)
    classifying.ui.finetuneEstimateButton.click()
    assert host.processEvents(20, until=lambda: classifying.state.task is None)
    assert "✓" in classifying.ui.finetuneEstimateLabel.text
    arguments = json.loads(keep.read_text())
    assert arguments[0] == "finetune" and "--dry-run" in arguments
    assert arguments[arguments.index("--task") + 1] == "classification"
    assert "classification.mode=knn" in arguments and "--structures" not in arguments
    with open(arguments[arguments.index("--classes") + 1], encoding="utf-8") as file:
        told = json.load(file)
    assert told == {"p1": "benign", "p2": "benign", "p3": "malignant", "p4": "malignant", "p5": "malignant"}
    classifying.ui.modeComboBox.setCurrentIndex(0)
    assert classifying.ui.finetuneEstimateLabel.text == ""  # it was about another mode


def test_a_classification_run_is_watched(panel, host, tmp_path):
    run = tmp_path / "essais" / "Artig"
    (run / "model").mkdir(parents=True)
    config = {"version": 1, "command": "finetune", "task": "classification", "train": {"steps": 40}}
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    scores = {
        "auc_interval": [0.62, 0.98],
        "cases": 24,
        "recall_per_class": {"benign": 0.9, "malignant": 0.7},
    }
    events = [{"type": "progress", "done": 40, "total": 40, "unit": "step", "seconds_left": 0}]
    for step in range(10, 41, 10):
        values = {"auc": 0.5 + step / 100, "balanced_accuracy": 0.5 + step / 150, "accuracy": 0.6}
        events.append({"type": "metric", "step": step, "split": "train", "loss": 0.7 - step / 200})
        validation = {**scores, **values, "cross_entropy": 0.72 - step / 220}
        events.append({"type": "metric", "step": step, "split": "validation", **validation})
    write_events(run, [*events, {"type": "result", "run": str(run)}])
    panel.runs.refresh()
    panel.runs.attach(run)
    ui = panel.ui
    assert "(classification)" in ui.watchTitleLabel.text
    assert table_texts(ui.runsTable)[0][1:4] == ["Artig", "classify", "finished 40"]
    assert "Better than guessing" in ui.verdictLabel.text
    assert "Recognised: benign 90%, malignant 70%." in ui.verdictLabel.text
    assert not ui.showPreviewButton.enabled and "no picture" in ui.showPreviewButton.toolTip
    assert not ui.previewLabel.isVisibleTo(panel.parent)
    assert not ui.evaluateButton.enabled and "by its own validation" in ui.evaluateModelLabel.text
    assert ui.showRankButton.text == "Show accuracy plot"
    ui.showRankButton.click()
    plots = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert {p.GetAttribute("EMIM.chart") for p in plots} == {"loss", "scores"}
    scores = next(p for p in plots if p.GetAttribute("EMIM.chart") == "scores")
    names = [scores.GetNthPlotSeriesNode(n).GetName() for n in range(scores.GetNumberOfPlotSeriesNodes())]
    assert names == ["AUC", "balanced accuracy", "accuracy", "AUC of guessing"]
    shot(host, panel, "classification-run", 1300)
    from pretrain_story import window_shot

    window_shot(host, "classification-plot")
