"""Watching runs by their files: state, numbers, charts, verdict, preview volumes."""

import json
import shutil

import numpy as np
import pytest
import slicerhost

slicerhost.start()
import filelock  # noqa: E402
import slicer  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from EMIMPretrainLib.run_metrics import smooth  # noqa: E402
from mrml.pretrain_files import AFFINE, LINES, RunFiles  # noqa: E402

from EMIMLib import EmimError, settings  # noqa: E402

RECONSTRUCTION = ("original", "masked", "reconstructed")
SEGMENTATION = ("image", "reference", "prediction")


@pytest.fixture
def logic():
    logic = EMIMPretrainLogic()
    yield logic
    logic.close()


@pytest.fixture
def files(tmp_path):
    return RunFiles(tmp_path / "run")


def series(chart):
    """Of each curve: name, x, y."""
    found = {}
    for n in range(chart.GetNumberOfPlotSeriesNodes()):
        node = chart.GetNthPlotSeriesNode(n)
        table = node.GetTableNode()
        x, y = (
            slicer.util.arrayFromTableColumn(table, c) for c in (node.GetXColumnName(), node.GetYColumnName())
        )
        found[node.GetName()] = (x.tolist(), y.tolist())
    return found


def count(className):
    return slicer.mrmlScene.GetNumberOfNodesByClass(className)


# ---- state


def test_a_run_of_another_process_is_followed_to_its_end(logic, files, host):
    states, events = [], []
    with filelock.FileLock(files.folder / ".lock"):
        files.step(10, 1.0)
        monitor = logic.attach(
            files.folder,
            onEvent=lambda m, event: events.append(event["type"]),
            onState=lambda m: states.append((m.phase, m.progress[0])),
        )
        assert (monitor.phase, monitor.progress, monitor.startedHere) == ("running", (10, 100, 45.0), False)
        assert events == []  # what is past is no news
        files.step(20, 0.9)
        assert host.processEvents(5, until=lambda: ("running", 20) in states)
        assert events == ["metric", "progress"]
        assert "Step 20 of 100" in monitor.phaseText and "40 s left" in monitor.phaseText
        files.step(100, 0.5)
        files.send("result", run=str(files.folder))
    assert host.processEvents(5, until=lambda: monitor.phase == "finished")
    assert states[-1] == ("finished", 100)
    assert not (monitor.running or monitor.canPause or monitor.canCancel or monitor.canResume)


def test_two_panels_get_the_same_monitor_of_one_run(logic, files):
    assert logic.attach(files.folder) is logic.attach(str(files.folder))


def test_a_killed_run_counts_as_paused_and_a_failed_one_says_why(logic, files):
    files.step(10, 1.0)
    monitor = logic.attach(files.folder)
    assert (monitor.phase, monitor.canResume, monitor.error) == ("paused", True, None)
    assert "step 10 of 100" in monitor.phaseText
    files.send("error", what="Loss is no number.", where=None, hint="Lower the rate.")
    monitor.poll()
    assert (monitor.phase, monitor.error.what, monitor.error.hint) == (
        "failed", "Loss is no number.", "Lower the rate.",
    )  # fmt: skip
    with pytest.raises(EmimError, match="no number"):
        monitor.waitForFinished()


def test_pause_of_a_run_elsewhere_asks_by_the_cancel_file(logic, files, host):
    with filelock.FileLock(files.folder / ".lock"):
        files.step(10, 1.0)
        monitor = logic.attach(files.folder)
        logic.pause(monitor)
        assert (files.folder / "cancel").exists()
        assert (monitor.phase, monitor.running, monitor.canPause) == ("pausing", True, False)
    assert host.processEvents(5, until=lambda: monitor.phase == "paused")


def test_what_is_no_run_is_refused(logic, tmp_path):
    with pytest.raises(EmimError, match="not a run folder"):
        logic.attach(tmp_path)
    with pytest.raises(EmimError, match="not a run folder"):
        logic.addRun(tmp_path)
    with pytest.raises(EmimError, match="not a run folder"):
        logic.resume(tmp_path)


def test_a_folder_in_use_is_not_resumed(logic, files):
    with (
        filelock.FileLock(files.folder / ".lock"),
        pytest.raises(EmimError, match="Another process is training"),
    ):
        logic.resume(files.folder)


def test_runs_are_listed_from_the_runs_folder_and_where_else_the_user_says(logic, tmp_path):
    settings.setRunsFolder(tmp_path / "runs")
    assert logic.runs() == []
    RunFiles(tmp_path / "runs" / "first")
    other = RunFiles(tmp_path / "elsewhere" / "other")
    assert [r.name for r in logic.runs()] == ["first"]
    assert logic.addRun(other.folder).name == "other"
    logic.addRun(other.folder)  # twice is once
    assert sorted(r.name for r in EMIMPretrainLogic().runs()) == ["first", "other"]
    assert logic.isAddedRun(other.folder) and not logic.isAddedRun(tmp_path / "runs" / "first")
    shutil.rmtree(other.folder)  # such as a disk that is not there now
    assert [r.name for r in logic.runs()] == ["first"]
    logic.forgetRun(other.folder)
    assert not logic.isAddedRun(other.folder)


def test_a_folder_of_runs_is_added_and_removed_as_one(logic, tmp_path):
    settings.setRunsFolder(tmp_path / "runs")
    own = RunFiles(tmp_path / "runs" / "own")
    others = [RunFiles(tmp_path / "elsewhere" / name) for name in ("one", "study/two")]
    assert logic.addRun(tmp_path / "elsewhere").name in ("one", "two")
    assert sorted(r.name for r in logic.runs()) == ["one", "own", "two"]
    RunFiles(tmp_path / "elsewhere" / "later")
    assert sorted(r.name for r in logic.runs()) == ["later", "one", "own", "two"]
    assert all(logic.isAddedRun(r.folder) for r in others) and not logic.isAddedRun(own.folder)
    logic.addRun(tmp_path)  # everything there is
    assert not logic.isAddedRun(own.folder)  # it stays listed, whatever is removed
    logic.forgetRun(others[0].folder)
    assert [r.name for r in logic.runs()] == ["own"] and others[0].folder.is_dir()
    logic.addRun(tmp_path / "runs")
    logic.forgetRun(own.folder)
    assert [r.name for r in logic.runs()] == ["own"]


# ---- charts


def test_loss_chart_has_curves_and_collapse_lines(logic, files):
    for step in (10, 20, 30):
        files.step(step, 1.2 - step / 100)
        files.validate_pretraining(step, 1.3 - step / 100)
    chart = logic.showCharts(logic.attach(files.folder))["loss"]
    curves = series(chart)
    assert curves["training (smoothed)"][0] == [10, 20, 30]
    assert curves["validation"] == ([10, 20, 30], pytest.approx([1.2, 1.1, 1.0]))
    lines = {name.split(":")[0]: c for name, c in curves.items() if name.startswith("L_")}
    assert lines == {name: ([0, 100], [value, value]) for name, value in LINES.items()}
    assert chart.GetTitle() and chart.GetXAxisTitle() and chart.GetYAxisTitle()
    colors = {tuple(chart.GetNthPlotSeriesNode(n).GetColor()) for n in range(len(curves))}
    assert len(colors) == len(curves) == 6


def test_rank_chart_has_a_curve_for_each_level(logic, files):
    files.step(10, 1.0)
    files.validate_pretraining(10, 1.0, ranks=(0.9, 0.5, None))
    files.validate_pretraining(20, 0.9, ranks=(0.8, 0.4, 0.3))
    curves = series(logic.showCharts(logic.attach(files.folder))["rank"])
    assert curves["level 1 (finest)"] == ([10, 20], [0.9, 0.8])
    assert curves["level 3"] == ([20], [0.3])


def test_charts_follow_the_run_in_place(logic, files):
    files.step(10, 1.0)
    monitor = logic.attach(files.folder)
    charts = logic.showCharts(monitor)
    nodes = [count("vtkMRML" + kind) for kind in ("TableNode", "PlotSeriesNode", "PlotChartNode")]
    files.step(20, 0.8)
    monitor.poll()
    assert series(charts["loss"])["training (smoothed)"][0] == [10, 20]
    assert nodes == [count("vtkMRML" + kind) for kind in ("TableNode", "PlotSeriesNode", "PlotChartNode")]


def test_another_run_uses_the_same_nodes(logic, files, tmp_path):
    files.step(10, 1.0)
    files.validate_pretraining(10, 1.0)
    first = logic.attach(files.folder)
    logic.showCharts(first)
    other = RunFiles(tmp_path / "tuning", "finetune")
    other.step(50, 0.7)
    other.validate(50, dice=0.6, dice_per_structure={"whole": 0.8, "core": 0.4})
    charts = logic.showCharts(logic.attach(other.folder))
    assert count("vtkMRMLPlotChartNode") == 3  # loss, rank, dice
    assert list(series(charts["loss"])) == ["training (smoothed)"]
    assert series(charts["dice"]) == {
        "whole": ([50], [0.8]), "core": ([50], [0.4]), "mean": ([50], [0.6]),
    }  # fmt: skip
    files.step(20, 0.9)  # the run that is no longer shown goes on
    first.poll()
    assert series(charts["loss"])["training (smoothed)"][0] == [50]


def test_charts_are_made_anew_after_the_scene_was_closed(logic, files):
    files.step(10, 1.0)
    monitor = logic.attach(files.folder)
    logic.showCharts(monitor)
    slicer.mrmlScene.Clear()
    assert count("vtkMRMLPlotChartNode") == 0
    files.step(20, 0.9)
    monitor.poll()
    assert count("vtkMRMLPlotChartNode") == 0  # not before somebody asks for them
    assert series(logic.showCharts(monitor)["loss"])["training (smoothed)"][0] == [10, 20]
    assert count("vtkMRMLPlotChartNode") == 2


def test_a_chart_is_shown_in_the_layout(logic, files):
    files.step(10, 1.0)
    chart = logic.showCharts(logic.attach(files.folder))["loss"]
    logic.showChartInLayout(chart)
    view = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")[0]
    assert view.GetPlotChartNodeID() == chart.GetID()


def test_steps_repeated_after_a_resume_replace_what_came_later(logic, files):
    for step in (10, 20, 30, 20):
        files.step(step, step / 10)
    monitor = logic.attach(files.folder)
    assert monitor.metrics.series("training", "reconstruction") == ([10, 20], [1.0, 2.0])


def test_smoothing_starts_unbiased_and_forgets():
    assert smooth([]) == []
    assert smooth([3.0] * 200) == pytest.approx([3.0] * 200)
    after = smooth([0.0] * 100 + [1.0] * 100)
    assert after[99] == 0 and after[100] < 0.3 and after[-1] > 0.99


# ---- verdict


@pytest.mark.parametrize(
    ("loss", "variance", "ranks", "colour"),
    [
        (0.5, 0.4, (0.7, 0.6), "green"),
        (0.87, 0.4, (0.7, 0.6), "grey"),
        (0.5, 0.4, (0.7, 0.02), "amber"),
        (1.06, 0.001, (0.7, 0.6), "red"),
    ],
)
def test_verdict_of_a_pretraining_that_goes_on(logic, files, loss, variance, ranks, colour):
    for step in range(10, 60, 10):
        files.step(step, loss)
        files.validate_pretraining(step, loss, variance, ranks)
    verdict = logic.verdict(logic.attach(files.folder))
    assert verdict.colour == colour
    assert f"{loss:.3f}" in verdict.text
    assert verdict.title


def test_verdict_says_when_it_is_too_early(logic, files):
    monitor = logic.attach(files.folder)
    assert logic.verdict(monitor).colour == "grey"
    files.step(5, 1.0)
    files.validate_pretraining(5, 0.2)
    monitor.poll()
    assert logic.verdict(monitor).colour == "grey"
    assert "early" in logic.verdict(monitor).text


def test_verdict_of_a_finished_run_is_that_of_its_report(logic, files):
    files.step(100, 0.5)
    files.validate_pretraining(100, 0.5)
    files.send("result", run=str(files.folder))
    files.write("report/verdict.json", {"state": "undecided", "why": ["As written."], "advice": ["Go on."]})
    verdict = logic.verdict(logic.attach(files.folder))
    assert (verdict.colour, verdict.text, verdict.advice) == ("amber", "As written.", "Go on.")
    (files.folder / "report" / "verdict.json").write_text("[half a fi", encoding="utf-8")
    assert logic.verdict(logic.attach(files.folder)).colour == "green"


@pytest.mark.parametrize(
    ("dice", "colour"),
    [({"a": 0.8, "b": 0.7}, "green"), ({"a": 0.8, "b": 0.2}, "amber"), ({"a": 0.0, "b": 0.05}, "red")],
)
def test_verdict_of_fine_tuning(logic, tmp_path, dice, colour):
    files = RunFiles(tmp_path / "tuning", "finetune")
    files.step(50, 0.5)
    files.validate(50, dice=sum(dice.values()) / 2, dice_per_structure=dice)
    verdict = logic.verdict(logic.attach(files.folder))
    assert verdict.colour == colour
    assert f"b {dice['b']:.2f}" in verdict.text


# ---- preview


def backgrounds():
    return [composite(view).GetBackgroundVolumeID() for view in ("Red", "Yellow", "Green")]


def composite(view):
    return slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode")


def corner(node):
    return slicer.util.arrayFromVolume(node)[0, 0, 0]


def test_preview_shows_three_volumes_alike(logic, files):
    monitor = logic.attach(files.folder)
    assert logic.showPreview(monitor) == {} and logic.previewText(monitor) == ""
    files.preview(10, RECONSTRUCTION)
    monitor.poll()
    assert logic.previewModalities(monitor) == ["T1", "FLAIR"]
    assert logic.previewText(monitor) == "Case subject-1, step 10"
    nodes = logic.showPreview(monitor, "FLAIR")
    assert {role: round(float(corner(n))) for role, n in nodes.items()} == {
        "original": 100, "masked": 110, "reconstructed": 120,
    }  # fmt: skip
    assert backgrounds() == [nodes[role].GetID() for role in RECONSTRUCTION]
    for node in nodes.values():
        matrix = slicer.util.arrayFromVTKMatrix(matrix_of(node))
        np.testing.assert_allclose(matrix, AFFINE, atol=1e-4)
    windows = {
        (n.GetDisplayNode().GetWindowLevelMin(), n.GetDisplayNode().GetWindowLevelMax())
        for n in nodes.values()
    }
    assert len(windows) == 1
    views = [slicer.mrmlScene.GetSingletonNode(v, "vtkMRMLSliceNode") for v in ("Red", "Yellow", "Green")]
    assert {v.GetOrientation() for v in views} == {"Axial"}
    assert len({round(v.GetSliceOffset(), 3) for v in views}) == 1
    assert all(composite(v).GetLinkedControl() for v in ("Red", "Yellow", "Green"))


def matrix_of(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_preview_is_updated_in_place(logic, files):
    files.preview(10, RECONSTRUCTION)
    monitor = logic.attach(files.folder)
    nodes = logic.showPreview(monitor)
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    red.SetOrientation("Coronal")  # the user turns it
    number = slicer.mrmlScene.GetNumberOfNodes()
    files.preview(20, RECONSTRUCTION, shift=5)
    monitor.poll()
    again = logic.showPreview(monitor)
    assert again == nodes
    assert slicer.mrmlScene.GetNumberOfNodes() == number
    assert round(float(corner(again["reconstructed"]))) == 25
    assert red.GetOrientation() == "Coronal"
    assert round(float(corner(logic.showPreview(monitor, "FLAIR")["original"]))) == 105
    assert slicer.mrmlScene.GetNumberOfNodes() == number


def test_preview_of_fine_tuning_lays_labels_over_the_image(logic, files, tmp_path):
    files.preview(10, RECONSTRUCTION)
    logic.showPreview(logic.attach(files.folder))
    tuning = RunFiles(tmp_path / "tuning", "finetune")
    tuning.preview(30, SEGMENTATION)
    nodes = logic.showPreview(logic.attach(tuning.folder))
    assert backgrounds() == [nodes["image"].GetID()] * 3
    labels = [composite(view).GetLabelVolumeID() for view in ("Red", "Yellow", "Green")]
    assert labels == [None, nodes["reference"].GetID(), nodes["prediction"].GetID()]
    assert {nodes[role].GetClassName() for role in ("reference", "prediction")} == {
        "vtkMRMLLabelMapVolumeNode"
    }
    assert count("vtkMRMLScalarVolumeNode") == 3  # none of the other run's is left


def test_preview_of_a_run_that_was_moved(logic, files, tmp_path):
    files.preview(10, RECONSTRUCTION)
    shutil.move(files.folder, tmp_path / "moved")
    nodes = logic.showPreview(logic.attach(tmp_path / "moved"))
    assert round(float(corner(nodes["masked"]))) == 10


def test_preview_that_cannot_be_shown_says_why(logic, files, tmp_path):
    files.preview(10, RECONSTRUCTION)
    monitor = logic.attach(files.folder)
    with pytest.raises(EmimError, match="no preview of the modality 'T9'"):
        logic.showPreview(monitor, "T9")
    (files.folder / "preview" / "masked_T1.nii.gz").unlink()
    with pytest.raises(EmimError, match="cannot be read"):
        logic.showPreview(monitor, "T1")


def test_views_get_their_orientations_back(logic, files):
    files.preview(10, RECONSTRUCTION)
    logic.showPreview(logic.attach(files.folder))
    logic.endPreview()
    orientations = [
        slicer.mrmlScene.GetSingletonNode(v, "vtkMRMLSliceNode").GetOrientation()
        for v in ("Red", "Yellow", "Green")
    ]
    assert orientations == ["Axial", "Sagittal", "Coronal"]


# ---- starting points


def test_fine_tuning_starts_from_runs_models_or_nothing(logic, files, tmp_path):
    settings.setRunsFolder(tmp_path)
    assert [path for _text, path in logic.inits()] == ["scratch"]
    files.step(100, 0.5)
    files.send("result", run=str(files.folder))
    files.write("report/verdict.json", {"state": "healthy", "why": [], "advice": []})
    (files.folder / "checkpoints" / "last.pt").write_bytes(b"weights")
    RunFiles(tmp_path / "no-checkpoint-yet").step(1, 1.0)
    texts = dict((path, text) for text, path in logic.inits())
    assert list(texts) == [str(files.folder), "scratch"]
    assert texts[str(files.folder)] == "run (pre-training, steps: 100, healthy)"


def test_a_run_without_a_model_cannot_be_installed(logic, files):
    with pytest.raises(EmimError, match="no model yet"):
        logic.installModel(files.folder)
    assert json.loads((files.folder / "config.json").read_text())["command"] == "pretrain"
