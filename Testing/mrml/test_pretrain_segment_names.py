"""Labels that 3D Slicer saved (.seg.nrrd): their names in the cohort, in the scene and in the structures."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
import vtk  # noqa: E402
from EMIMPretrainLib import run_inputs, slice_views  # noqa: E402
from EMIMPretrainLib.evaluation_run import ScoredCase  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from EMIMPretrainLib.structures import segments, terminologyOf  # noqa: E402

from emim.cohort.scan import scan  # noqa: E402
from emim.config import NetworkConfig, PreprocessConfig, Structure  # noqa: E402
from emim.networks.segmenter import Segmenter  # noqa: E402
from emim.package.bundle import write_package  # noqa: E402
from emim.package.model import ModelCard  # noqa: E402
from EMIMLib import settings  # noqa: E402

SIZE = (20, 18, 16)  # i, j, k
BOXES = {"tumour": np.s_[4:7, 4:8, 4:9], "edema": np.s_[8:13, 4:12, 4:12]}  # (K, J, I)
MASS = "Any list~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~^^~^^"


@pytest.fixture
def logic(tmp_path):
    settings.setRunsFolder(tmp_path / "runs")
    return EMIMPretrainLogic()


def masks(names):
    found = {name: np.zeros(SIZE[::-1], bool) for name in names}
    for name, mask in found.items():
        mask[BOXES[name]] = True
    return found


def package(folder):
    """A model of both segments that has learned nothing."""
    network = NetworkConfig(filters=2, blocks=(1, 1))
    card = ModelCard(
        name="both",
        modalities=("T1",),
        structures=(Structure("tumour", (1,), 1, (230, 159, 0)), Structure("edema", (2,), 2, (0, 9, 9))),
        overlapping=False,
        preprocess=PreprocessConfig(spacing=(6.0, 6.0, 6.0)),
        network=network,
        crop=16,
    )
    return write_package(folder / "model", card, Segmenter(1, 3, network).state_dict())


def save(folder, case, drawn):
    """An image, and a segmentation with these masks, drawn in this order and saved by Slicer."""
    (folder / case).mkdir(parents=True)
    values = np.random.default_rng(sum(case.encode())).integers(1, 999, SIZE[::-1]).astype(np.int16)
    values[0] = 0
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin((-11.0, 23.0, 7.0))
    file = folder / case / "t1.nii.gz"
    sitk.WriteImage(image, str(file))
    volume = slicer.util.loadVolume(str(file))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in drawn.items():
        identifier = node.GetSegmentation().AddEmptySegment(name, name)
        if name == "tumour":
            segment = node.GetSegmentation().GetSegment(identifier)
            segment.SetColor(0.2, 0.4, 0.6)
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), MASS)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, identifier, volume)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(folder / case / "seg.seg.nrrd"))
    assert storage.WriteData(node)
    slicer.mrmlScene.Clear()


@pytest.fixture
def folder(tmp_path):
    """Two cases drawn in one order and one in the other."""
    for case in ("p1", "p2"):
        save(tmp_path / "cohort", case, masks(["tumour", "edema"]))
    save(tmp_path / "cohort", "p3", masks(["edema", "tumour"]))
    return tmp_path / "cohort"


def test_labels_drawn_to_judge_a_model_have_its_values_not_the_cohorts(logic, folder, tmp_path):
    table = logic.scan(folder, waitForCompletion=True).table
    files = [
        run_inputs.writeLabelledCases(tmp_path / f"{n}.json", table, labels)
        for n, labels in enumerate(({}, {"p3": tmp_path / "drawn.nii.gz"}))
    ]
    cohort, drawn = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    assert [s["name"] for s in cohort["segments"]] == ["tumour", "edema"] and not drawn["segments"]
    assert [c.get("drawn") for c in drawn["cases"]] == [None, None, True]


def test_segments_keep_their_names_and_meaning(logic, folder):
    table = logic.scan(folder, waitForCompletion=True).table
    assert [r.labelValues for r in table.rows] == [(1, 2)] * 3
    assert [r.recode for r in table.rows] == [{}, {}, {1: 2, 2: 1}]
    assert "1 (edema) is read as 2" in table.row("p3").tooltip and table.row("p3").label.state == "note"
    tumour, edema = logic.structuresFromCohort(table)
    assert tumour == {"name": "tumour", "values": [1], "color": [51, 102, 153], "terminology": MASS}
    assert (edema["name"], edema["values"], edema["terminology"]) == ("edema", [2], None)
    for case in ("p1", "p3"):
        (volume,) = logic.loadCase(table.row(case))
        node = slicer.util.getNode(f"{case} label")
        shown = {s.GetName(): s for s in segments(node)}
        assert set(shown) == {"tumour", "edema"} and terminologyOf(shown["tumour"]) == MASS
        assert shown["tumour"].GetColor() == pytest.approx((0.2, 0.4, 0.6), abs=0.01)
        for name, mask in masks(shown).items():
            identifier = node.GetSegmentation().GetSegmentIdBySegmentName(name)
            array = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume)
            np.testing.assert_array_equal(array > 0, mask)
    # What it is called in the table of structures comes first.
    slicer.mrmlScene.Clear()
    logic.loadCase(table.row("p3"), structures=[{**tumour, "name": "lesion"}])
    assert {s.GetName() for s in segments(slicer.util.getNode("p3 label"))} == {"lesion", "edema"}


def test_a_judged_case_is_shown_with_its_own_names(logic, folder, tmp_path):
    """Also where the values of its file are not the model's, and from then on."""
    evaluation = logic.evaluate(
        package(tmp_path), folder, tmp_path / "judged", waitForCompletion=True
    ).evaluation
    (case,) = [c for c in evaluation.cases if c.row.id == "p3"]
    assert case.row.recode == {1: 2, 2: 1} and [s["name"] for s in case.row.segments] == ["tumour", "edema"]
    logic.loadScoredCase(case, evaluation.model)
    table = logic.scan(folder, waitForCompletion=True).table
    (volume,) = logic.loadCase(table.row("p3"), structures=logic.structuresFromCohort(table))
    node = slicer.util.getNode("p3 label")
    drawn = masks(["tumour", "edema"])
    for name, mask in drawn.items():
        identifier = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        array = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume)
        np.testing.assert_array_equal(array > 0, mask)


def test_the_views_go_to_the_label_or_else_to_the_result(logic, folder, tmp_path):
    row = logic.scan(folder, waitForCompletion=True).table.row("p1")
    model = package(tmp_path)

    def shown(prediction=""):
        logic.loadScoredCase(ScoredCase(row, prediction, {}, {}, ""), model)
        ras_to_ijk, position = vtk.vtkMatrix4x4(), [0.0, 0.0, 0.0, 1.0]
        slicer.util.getNode("p1 T1").GetRASToIJKMatrix(ras_to_ijk)
        for axis, view in ((2, "Red"), (0, "Yellow"), (1, "Green")):
            position[axis] = slice_views.sliceNode(view).GetSliceToRAS().GetElement(axis, 3)
        i, j, k = (round(x) for x in ras_to_ijk.MultiplyPoint(position)[:3])
        return k, j, i

    (volume,) = logic.loadCase(row)

    def draw(node, name, mask):
        identifier = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        values = mask.astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(values, node, identifier, volume)

    nothing, tumour, corner = (
        np.zeros(SIZE[::-1], bool),
        masks(["tumour"])["tumour"],
        np.zeros(SIZE[::-1], bool),
    )
    corner[12:15, 13:16, 2:5] = True
    label = slicer.util.getNode("p1 label")
    draw(label, "edema", nothing)
    assert tumour[shown()]
    draw(label, "tumour", nothing)
    result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    result.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    result.GetSegmentation().AddEmptySegment("tumour", "tumour")
    draw(result, "tumour", corner)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "p1.seg.nrrd"))
    assert storage.WriteData(result)
    assert corner[shown(str(tmp_path / "p1.seg.nrrd"))]


def test_a_run_reads_the_labels_as_the_panel_does(logic, folder, tmp_path):
    table = logic.scan(folder, waitForCompletion=True).table
    table.row("p1").included = table.row("p2").included = False  # p3 alone would number its segments itself
    datalist = run_inputs.writeDatalist(tmp_path / "list.json", table, {})
    assert [c.recode for c in scan(datalist).cohort.cases] == [{1: 2, 2: 1}]
    # A label map drawn in Slicer has the values of the table, and needs no names.
    table.row("p1").included = True
    volume = logic.loadCase(table.row("p1"))[0]
    drawn = slicer.util.getNode("p1 label")
    exported = logic.exportLabels(drawn, volume, table.row("p1"), logic.structuresFromCohort(table), table)
    run_inputs.writeDatalist(datalist, table, logic.exportedLabels(table))
    first, second = scan(datalist).rows
    assert first.label == str(exported) and first.usable and not first.recode
    assert second.recode == {1: 2, 2: 1}
    assert [c.get("drawn") for c in json.loads(datalist.read_text(encoding="utf-8"))["cases"]] == [True, None]


def test_segments_that_overlap_are_told_of(logic, tmp_path):
    drawn = masks(["tumour", "edema"])
    drawn["tumour"] |= drawn["edema"]
    save(tmp_path / "cohort", "p1", drawn)
    (row,) = logic.scan(tmp_path / "cohort", waitForCompletion=True).table.rows
    assert row.label.state == "problem" and "its segments overlap (2 layers)" in row.label.explanation
