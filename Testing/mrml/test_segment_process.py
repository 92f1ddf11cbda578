"""Segmenting with the real worker: what arrives in the scene, and what does not."""

import slicerhost

slicerhost.start()

import contextlib  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import vtk  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from EMIMSegmentLib.result_nodes import noteCorrected  # noqa: E402
from segment_model import MASS, SPACING  # noqa: E402
from segment_scene import (  # noqa: E402
    CORE_RADIUS,
    LESION_RADIUS,
    distance,
    fake_worker,
    grid,
    head,
    mask,
    node_ids,
    pair,
    positions,
)

from EMIMLib import EmimError  # noqa: E402

AT = positions(grid(), (26, 26, 26))
VOXEL = SPACING**3 / 1000  # mL


def hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def cell(table, row, column):
    names = [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    return table.GetCellText(row, names.index(column))


def tag(segment, name):
    value = vtk.reference("")
    assert segment.GetTag(name, value)
    return str(value)


def new_nodes(before):
    """Class names of the nodes that are new."""
    return sorted(slicer.mrmlScene.GetNodeByID(i).GetClassName() for i in node_ids() - before)


def brightest(volume):
    """RGB of the highest value."""
    return volume.GetDisplayNode().GetColorNode().GetLookupTable().GetTableValue(255)[:3]


def temporary_folders():
    return list(Path(slicer.app.temporaryPath).glob("emim-*"))


def test_everything_arrives(threshold_model, tmp_path):
    inputs = pair()
    items = hierarchy()
    patient = items.CreateSubjectItem(items.GetSceneItemID(), "Müller")
    study = items.CreateStudyItem(patient, "2024")
    items.SetItemParent(items.GetItemByDataNode(inputs["FLAIR"]), study)
    inputs["FLAIR"].SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
    logic, events = EMIMSegmentLogic(), []
    result = logic.process(
        inputs, str(threshold_model), device="cpu", probabilities=True, onEvent=events.append, opacity=0.3
    )
    segments = result.GetSegmentation()
    assert result.GetName() == "FLAIR segmentation" and result.GetStorageNode() is None
    assert [segments.GetSegment(i).GetName() for i in segments.GetSegmentIDs()] == ["Lésion", "Core"]
    lesion, core = (segments.GetSegment(i) for i in segments.GetSegmentIDs())
    assert np.allclose(lesion.GetColor(), np.array([230, 159, 0]) / 255, atol=1e-3)
    assert lesion.GetTerminology() == MASS
    assert core.GetTerminology() == slicer.vtkSegment().GetTerminology()  # Slicer's own default: tissue
    assert np.array_equal(mask(result, "Lésion", inputs["FLAIR"]), distance(AT) < LESION_RADIUS)
    assert np.array_equal(mask(result, "Core", inputs["FLAIR"]), distance(AT) < CORE_RADIUS)

    # Where DICOM SEG export looks
    item = items.GetItemByDataNode(result)
    assert items.GetItemParent(item) == study
    assert items.GetItemAttribute(item, "DICOM.ReferencedInstanceUIDs") == "1.2 1.3"
    assert result.GetNodeReference("referenceImageGeometryRef") is inputs["FLAIR"]
    assert tag(lesion, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert tag(lesion, "DICOM.SegmentAlgorithmName").startswith("EMIM Thrëshold")
    noteCorrected(result)
    assert tag(core, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"

    table = logic.measurementsTable(result)
    assert table.GetNumberOfRows() == 2
    assert float(cell(table, 0, "Volume [mL]")) == pytest.approx((distance(AT) < LESION_RADIUS).sum() * VOXEL)
    assert float(cell(table, 0, "Largest diameter [mm]")) == pytest.approx(2 * LESION_RADIUS, abs=SPACING)
    assert float(cell(table, 0, "Mean FLAIR")) == pytest.approx(200, abs=1)
    assert float(cell(table, 1, "Mean T1")) == pytest.approx(200, abs=1)

    probability = logic.probabilityVolumes(result)["Lésion"]
    assert np.array_equal(slicer.util.arrayFromVolume(probability) > 0.5, distance(AT) < LESION_RADIUS)
    assert np.allclose(brightest(probability), np.array([230, 159, 0]) / 255, atol=0.01)

    display = result.GetDisplayNode()
    assert display.GetOpacity2DFill() == 0.3 and display.GetVisibility3D()
    assert segments.ContainsRepresentation("Closed surface")
    assert display.GetSegmentOpacity3D(segments.GetSegmentIDs()[0]) < 1  # the core can be seen within
    assert logic.modelName(result) == "Thrëshold" and logic.missingModalities(result) == []
    made = f"Thrëshold (code {logic.registry.find(threshold_model).version})"
    assert logic.madeWith(result) == made and len(made) == len("Thrëshold (code 01234567)")
    assert logic.run.state == "finished" and "cpu" in logic.run.summary
    assert {"status", "result"} <= {e["type"] for e in events}
    assert temporary_folders() == []

    del items  # held while a scene is loaded, it makes Slicer loop forever
    path = str(tmp_path / "scène.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(path)
    result = slicer.util.getNode("FLAIR segmentation")
    assert logic.modelName(result) == "Thrëshold" and logic.madeWith(result) == made
    assert cell(logic.measurementsTable(result), 0, "Structure") == "Lésion"
    assert set(logic.probabilityVolumes(result)) == {"Lésion", "Core"}
    probability = logic.probabilityVolumes(result)["Lésion"]
    assert np.allclose(brightest(probability), np.array([230, 159, 0]) / 255, atol=0.01)
    assert np.array_equal(mask(result, "Lésion", slicer.util.getNode("FLAIR")), distance(AT) < LESION_RADIUS)


def test_two_runs_in_a_row(threshold_model):
    inputs, logic = pair(), EMIMSegmentLogic()
    first = logic.process(inputs, str(threshold_model), device="cpu", probabilities=True, surface=False)
    assert not first.GetDisplayNode().GetVisibility3D()
    before = node_ids()

    # Into the same node: nothing piles up, and it says what it did without.
    del inputs["T1"]
    items = hierarchy()
    name = "DICOM.ReferencedInstanceUIDs"
    items.SetItemAttribute(items.GetItemByDataNode(first), name, "1.2")  # of another patient's images
    again = logic.process(
        inputs,
        str(threshold_model),
        device="cpu",
        probabilities=True,
        outputSegmentation=first,
        surface=False,
    )
    assert again is first and node_ids() == before
    assert items.GetItemAttribute(items.GetItemByDataNode(first), name) == ""
    assert logic.missingModalities(first) == ["T1"] and "without T1" in logic.run.summary
    assert mask(first, "Core", inputs["FLAIR"]).sum() == 0  # the T1 that shows it is not there
    table = logic.measurementsTable(first)
    assert table.GetColumnName(table.GetNumberOfColumns() - 1) == "Mean FLAIR"
    assert cell(table, 1, "Volume [mL]") == "0"

    # Into a new node, without probability maps.
    other = logic.process(inputs, str(threshold_model), device="cpu", reference="FLAIR", surface=False)
    assert other is not first and other.GetName() == "FLAIR segmentation_1"
    assert new_nodes(before) == [
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLSegmentationNode",
        "vtkMRMLTableNode",
    ]
    assert logic.measurementsTable(other) is not table


def test_in_the_background(host, threshold_model):
    """The event loop runs on; meanwhile an input and the output are removed: the result still arrives."""
    inputs, logic, ends, beats = pair(), EMIMSegmentLogic(), [], []
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    run = logic.process(
        inputs,
        str(threshold_model),
        device="cpu",
        outputSegmentation=target,
        waitForCompletion=False,
        onFinished=lambda run: ends.append(run.state),
    )
    assert run.running and run.segmentation is None and ends == []
    with pytest.raises(EmimError, match="busy"):
        logic.process(inputs, str(threshold_model), device="cpu")
    slicer.mrmlScene.RemoveNode(inputs["T1"])
    slicer.mrmlScene.RemoveNode(target)
    assert host.processEvents(60, until=lambda: beats.append(1) or not run.running)
    assert ends == ["finished"] and len(beats) > 20
    assert run.segmentation.GetName() == "FLAIR segmentation"
    assert np.array_equal(mask(run.segmentation, "Core", inputs["FLAIR"]), distance(AT) < CORE_RADIUS)
    assert temporary_folders() == []


def test_what_is_edited_during_the_run_is_kept(host, threshold_model):
    """The result becomes a new segmentation, and the next run replaces that."""
    inputs, logic = pair(), EMIMSegmentLogic()
    first = logic.process(inputs, str(threshold_model), device="cpu", surface=False)
    assert not logic.holdsOwnWork(first)
    segments, volume = first.GetSegmentation(), inputs["FLAIR"]
    lesion = segments.GetSegmentIdBySegmentName("Lésion")
    empty = np.zeros((26, 26, 26), np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, first, lesion, volume)  # before: is replaced
    assert logic.holdsOwnWork(first)
    again = logic.process(inputs, str(threshold_model), device="cpu", surface=False, outputSegmentation=first)
    assert again is first and mask(first, "Lésion", volume).any() and not logic.holdsOwnWork(first)

    options = {"device": "cpu", "surface": False, "waitForCompletion": False}
    run = logic.process(inputs, str(threshold_model), outputSegmentation=first, **options)
    lesion = segments.GetSegmentIdBySegmentName("Lésion")
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, first, lesion, volume)
    table = cell(logic.measurementsTable(first), 0, "Volume [mL]")
    assert host.processEvents(60, until=lambda: not run.running) and run.error is None
    assert run.segmentation is not first and mask(run.segmentation, "Lésion", volume).any()
    assert not mask(first, "Lésion", volume).any() and logic.isEdited(first)
    assert cell(logic.measurementsTable(first), 0, "Volume [mL]") == table
    assert f"“{first.GetName()}” was edited meanwhile" in run.summary
    assert f"“{run.segmentation.GetName()}”" in run.summary

    first = run.segmentation
    run = logic.process(inputs, str(threshold_model), outputSegmentation=first, **options)
    first.GetSegmentation().AddEmptySegment("drawn", "drawn")
    assert host.processEvents(60, until=lambda: not run.running)
    assert run.segmentation is not first and first.GetSegmentation().GetSegment("drawn") is not None


def test_own_work_is_what_emim_did_not_write(threshold_model):
    logic = EMIMSegmentLogic()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    assert not logic.holdsOwnWork(node), "it is empty"
    node.GetSegmentation().AddEmptySegment("drawn", "drawn")
    assert logic.holdsOwnWork(node)
    result = logic.process(
        {"FLAIR": head("FLAIR")}, str(threshold_model), device="cpu", outputSegmentation=node
    )
    assert result is node and not logic.holdsOwnWork(node)
    node.GetSegmentation().RemoveAllSegments()
    assert not logic.holdsOwnWork(node), "there is nothing left to lose"


def test_names_of_inputs_as_on_the_command_line(tmp_path, monkeypatch, threshold_model):
    """Any case and any usual name will do, for the reference and in a batch, too."""
    seen = tmp_path / "seen.json"
    fake_worker(tmp_path, monkeypatch, f"json.dump(arguments, open({str(seen)!r}, 'w')); sys.exit(1)")
    t1, flair = pair().values()
    given = {"t1w": t1, "Flair": flair, "T1": None}
    logic = EMIMSegmentLogic()
    for segment in (
        lambda: logic.process(given, str(threshold_model), reference="T1n"),
        lambda: logic.batch([given], str(threshold_model), reference="T1n"),
    ):
        seen.unlink(missing_ok=True)
        with contextlib.suppress(EmimError):
            segment()
        arguments = json.loads(seen.read_text())
        inputs = [value for option, value in itertools.pairwise(arguments) if option == "--input"]
        assert [i.split("=")[0] for i in inputs] == ["T1", "FLAIR"]
        assert arguments[arguments.index("--reference") + 1] == "T1"
    card = logic.run._card
    assert logic.checkInputs(card, given) == []
    twice = {"t1w": t1, "T1": flair}
    for refuse in (
        lambda: logic.process(twice, str(threshold_model)),
        lambda: logic.checkInputs(card, twice),
    ):
        with pytest.raises(EmimError, match="Two volumes are given for T1"):
            refuse()
    with pytest.raises(EmimError, match="no input PD"):
        logic.process({"PD": t1, "FLAIR": flair}, str(threshold_model))


def test_cancel_leaves_nothing(host, threshold_model):
    inputs, logic, ends = pair(), EMIMSegmentLogic(), []
    before = node_ids()
    for seconds in (0.0, 0.7):  # at the start, and while torch is loading
        run = logic.process(
            inputs,
            str(threshold_model),
            device="cpu",
            waitForCompletion=False,
            onFinished=lambda run: ends.append(run.state),
        )
        host.processEvents(seconds)
        logic.cancel()
        assert host.processEvents(3, until=lambda run=run: not run.running)
    assert ends == ["cancelled"] * 2 and run.cancelled and run.error is None
    assert node_ids() == before and temporary_folders() == []


def test_scene_closed_in_the_middle(host, threshold_model):
    ends = []
    run = EMIMSegmentLogic().process(
        pair(),
        str(threshold_model),
        device="cpu",
        waitForCompletion=False,
        onFinished=lambda run: ends.append(run.state),
    )
    host.processEvents(1)
    slicer.mrmlScene.Clear(False)
    empty = node_ids()
    assert host.processEvents(3, until=lambda: not run.running)
    assert ends == ["cancelled"] and run.sceneClosed
    assert node_ids() == empty and temporary_folders() == []


def test_closing_the_scene_ends_a_waiting_script(tmp_path, monkeypatch, threshold_model):
    fake_worker(tmp_path, monkeypatch, "time.sleep(60)")
    inputs, calls = pair(), []

    def close(*_):
        calls.append(1)
        if len(calls) == 5:
            slicer.mrmlScene.Clear(False)

    monkeypatch.setattr(type(slicer.app), "processEvents", close)
    with pytest.raises(Exception, match="scene was closed") as error:
        EMIMSegmentLogic().process(inputs, str(threshold_model), device="cpu")
    assert type(error.value).__name__ == "Cancelled"
    assert temporary_folders() == []


@pytest.mark.parametrize(
    "text, what",
    [
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("sys.exit(1)", "worker"),
        ("print(json.dumps({'type': 'result', 'output': '/nowhere.seg.nrrd'}))", "cannot be read"),
        ("print(json.dumps({'type': 'result'}))", "could not be taken into the scene"),
    ],
)
def test_a_worker_that_fails_leaves_nothing(tmp_path, monkeypatch, threshold_model, text, what):
    fake_worker(tmp_path, monkeypatch, text)
    inputs, logic = pair(), EMIMSegmentLogic()
    before = node_ids()
    with pytest.raises(EmimError, match=what) as error:
        logic.process(inputs, str(threshold_model), device="cpu")
    assert error.value.hint or error.value.where
    assert logic.run.state == "failed" and logic.run.error is error.value
    assert node_ids() == before and temporary_folders() == []


def test_errors_name_the_volume_and_not_the_temporary_file(tmp_path, monkeypatch, threshold_model):
    fake_worker(
        tmp_path,
        monkeypatch,
        "path = next(a.split('=', 1)[1] for a in arguments if a.startswith('FLAIR='))\n"
        "print(json.dumps({'type': 'error', 'what': 'Bad.', 'where': path, 'hint': 'h'}))\nsys.exit(2)",
    )
    with pytest.raises(EmimError) as error:
        EMIMSegmentLogic().process({"FLAIR": head("Kopf ü")}, str(threshold_model), device="cpu")
    assert error.value.where == "FLAIR: Kopf ü"


def test_a_failing_callback_does_not_leave_the_worker(tmp_path, monkeypatch, threshold_model):
    fake_worker(
        tmp_path,
        monkeypatch,
        "print(json.dumps({'type': 'status', 'text': 'x'}), flush=True); time.sleep(60)",
    )

    def fail(event):
        if event["text"] == "x":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        EMIMSegmentLogic().process(pair(), str(threshold_model), device="cpu", onEvent=fail)
    assert temporary_folders() == []


def test_arguments_of_the_worker(tmp_path, monkeypatch, threshold_model):
    """The panel's choices reach the worker, and the model by a path with non-ASCII letters."""
    seen = tmp_path / "seen.json"
    fake_worker(tmp_path, monkeypatch, f"json.dump(arguments, open({str(seen)!r}, 'w')); sys.exit(1)")
    with pytest.raises(EmimError):
        EMIMSegmentLogic().process(
            pair(), str(threshold_model), reference="T1", device="cuda:1", quality="best", probabilities=True
        )
    arguments = json.loads(seen.read_text())
    for option, value in (("--reference", "T1"), ("--device", "cuda:1"), ("--quality", "best")):
        assert arguments[arguments.index(option) + 1] == value
    assert arguments[arguments.index("--model") + 1] == str(threshold_model)
    assert "--probabilities" in arguments


def test_importing_the_logic_loads_nothing_heavy():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import slicerhost; slicerhost.start();"
        "import EMIMSegmentLib.logic;"
        "print([m for m in ('torch', 'monai', 'SimpleITK', 'scipy', 'filelock') if m in sys.modules])"
    )
    paths = [p for p in sys.path if p]
    printed = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip().endswith("[]")
