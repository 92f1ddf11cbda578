"""Going through the cases of a batch: what is loaded, shown, and taken away again."""

import slicerhost

slicerhost.start()

from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from EMIMSegmentLib.study_batch import CASE  # noqa: E402
from segment_scene import distance, grid, head, mask, node_ids, positions, transform  # noqa: E402

from emim.inference.image_file import write_like  # noqa: E402
from emim.inference.outputs import file_checksum  # noqa: E402
from emim.inference.seg_nrrd import write_seg_nrrd  # noqa: E402
from emim.volumes.io import read_header  # noqa: E402
from EMIMLib import EmimError  # noqa: E402
from EMIMLib.guessing import loadedExaminations  # noqa: E402
from EMIMLib.models import ModelRegistry  # noqa: E402

AT = positions(grid(), (26, 26, 26))
LESION, CORE = distance(AT) < 11, distance(AT) < 6


@pytest.fixture
def model(threshold_model):
    return ModelRegistry().find(str(threshold_model))


@pytest.fixture
def card(model):
    return model.card


@pytest.fixture
def rows(tmp_path, card):
    """Cases of a folder: a label map and a probability map, a .seg.nrrd, a failure."""
    made = [
        written(tmp_path, card, "fall-01", ".nii.gz"),
        written(tmp_path, card, "fall-02 ü", ".seg.nrrd"),
        {**written(tmp_path, card, "fall-03", ".nii.gz"), "error": "Too dark.", "output": None},
    ]
    slicer.mrmlScene.Clear(False)
    return made


def written(folder, card, case, extension):
    """The row of a case whose files are written, as a batch gives it."""
    (folder / case).mkdir()
    images = {m: str(folder / case / f"{m}.nii.gz") for m in ("T1", "FLAIR")}
    for modality, path in images.items():
        slicer.util.saveNode(head(modality), path, {})
    target, output = read_header(images["FLAIR"]).grid, folder / f"{case}{extension}"
    result = {"output": str(output), "reference": "FLAIR", "missing": [], "volumes_ml": {"Core": 1.0}}
    result["probabilities"] = {}
    if extension == ".seg.nrrd":
        write_seg_nrrd(output, np.stack([LESION * np.uint8(2), CORE * np.uint8(5)]), target, card.structures)
    else:
        painted = np.where(CORE, 5, np.where(LESION, 2, 0)).astype(np.uint8)
        write_like(images["FLAIR"], target, painted, output)
        result["probabilities"] = {"Core": str(folder / f"{case}_core.nii.gz")}
        write_like(images["FLAIR"], target, CORE.astype(np.float32), folder / f"{case}_core.nii.gz")
    result["checksum"] = file_checksum(output)
    row = {"case": case, "error": None, "where": None, "hint": None, "volumes_ml": {}, "segmentation": None}
    return {**row, "files": images, "output": str(output), "result": result}


def ruler(volume, name="ruler"):
    """As Slicer places one in a slice view that shows the volume."""
    line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
    line.CreateDefaultDisplayNodes()
    for i in range(2):
        line.AddControlPoint(10.0 * i, 0, 0)
        line.SetNthControlPointAssociatedNodeID(i, volume.GetID())
    return line


def volumes():
    return {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}


def visible():
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetDisplayNode().GetVisibility()]


@pytest.mark.parametrize("which", [0, 1])
def test_a_case_with_its_whole_structures(rows, model, which):
    logic, case = EMIMSegmentLogic(), rows[which]["case"]
    shown = logic.showCase(rows[which], model)
    flair = volumes()[f"{case} FLAIR"]
    assert visible() == [shown.segmentation] and shown.kept == ()
    assert np.array_equal(mask(shown.segmentation, "Lésion", flair), LESION)  # also below the core
    assert np.array_equal(mask(shown.segmentation, "Core", flair), CORE)
    segment = shown.segmentation.GetSegmentation().GetNthSegment(0)
    assert segment.GetColor() == pytest.approx((230 / 255, 159 / 255, 0), abs=1e-3)
    assert "Mass" in segment.GetTerminology()
    assert logic.measurementsTable(shown.segmentation).GetNumberOfRows() == 1
    assert not logic.isEdited(shown.segmentation) and logic.modelName(shown.segmentation) == model.name
    maps = logic.probabilityVolumes(shown.segmentation)
    assert list(maps) == (["Core"] if which == 0 else [])
    if maps:
        assert np.array_equal(slicer.util.arrayFromVolume(maps["Core"]), CORE)


def test_what_was_loaded_goes_with_the_next_case_and_nothing_else_does(rows, model):
    logic, mine = EMIMSegmentLogic(), head("fall-01 T1")
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own.CreateDefaultDisplayNodes()
    own.SetReferenceImageGeometryParameterFromVolumeNode(mine)
    before = node_ids()
    logic.showCase(rows[0], model)
    first = node_ids() - before
    again = logic.showCase(rows[0], model)
    assert node_ids() - before == first and again.segmentation.GetID() in first
    shown = logic.showCase(rows[1], model)
    assert shown.kept == () and before <= node_ids()
    assert set(visible()) == {own, shown.segmentation}
    logic.showCase(rows[2], model)  # it failed: its images only
    assert set(volumes()) == {"fall-01 T1", "fall-03 T1", "fall-03 FLAIR"} and visible() == [own]
    assert len(node_ids() - before) == 6, "volumes, how they are shown, and where they are stored"


def draw(shown):
    empty = np.zeros(LESION.shape, np.uint8)
    flair = volumes()["fall-01 FLAIR"]
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, shown.segmentation, "Segment_2", flair)


def rename(shown):
    shown.segmentation.GetSegmentation().GetSegment("Segment_2").SetName("oedema")


def move(shown):
    volumes()["fall-01 T1"].SetAndObserveTransformNodeID(transform(np.eye(4)).GetID())


def smooth(shown):
    slicer.util.arrayFromVolume(volumes()["fall-01 T1"])[:] = 7
    slicer.util.arrayFromVolumeModified(volumes()["fall-01 T1"])


def draw_own(shown):
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own.CreateDefaultDisplayNodes()
    own.SetReferenceImageGeometryParameterFromVolumeNode(volumes()["fall-01 FLAIR"])


def draw_ruler(shown):
    ruler(volumes()["fall-01 T1"])


@pytest.mark.parametrize("change", [draw, rename, move, smooth, draw_own, draw_ruler])
def test_a_case_that_the_user_worked_on_stays_and_is_found_again(rows, model, change):
    logic = EMIMSegmentLogic()
    first = logic.showCase(rows[0], model)
    change(first)
    before = node_ids()
    second = logic.showCase(rows[1], model)
    assert second.kept == ("fall-01",) and before <= node_ids()
    assert first.segmentation not in visible() and second.segmentation in visible()
    back = logic.showCase(rows[0], model)
    assert back.segmentation is first.segmentation and back.kept == ()
    assert not {"fall-02 ü T1", "fall-02 ü FLAIR"} & set(volumes())


def test_files_that_cannot_be_read_change_nothing(rows, model, tmp_path):
    logic = EMIMSegmentLogic()
    shown, before = logic.showCase(rows[0], model), node_ids()
    whole = (tmp_path / "fall-02 ü.seg.nrrd").read_bytes()
    (tmp_path / "fall-02 ü.seg.nrrd").write_bytes(b"no segmentation")
    with pytest.raises(EmimError, match="cannot be read"):
        logic.showCase(rows[1], model)
    (tmp_path / "fall-02 ü.seg.nrrd").write_bytes(whole)
    (tmp_path / "fall-02 ü" / "FLAIR.nii.gz").unlink()
    with pytest.raises(EmimError, match="Slicer cannot read") as error:
        logic.showCase(rows[1], model)
    assert error.value.where.endswith("FLAIR.nii.gz")
    with pytest.raises(EmimError, match="no image") as error:
        logic.showCase({**rows[2], "files": {}}, model)
    assert error.value.hint == "Too dark."
    assert node_ids() == before and visible() == [shown.segmentation]


def rewrite(row, label):
    flair = row["files"]["FLAIR"]
    write_like(flair, read_header(flair).grid, label.astype(np.uint8), Path(row["output"]))


def segmentations():
    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_a_result_that_was_corrected_is_read_again_and_not_taken_for_what_was_measured(rows, model):
    logic = EMIMSegmentLogic()
    old = logic.showCase(rows[0], model).segmentation
    assert not logic.isEdited(old)
    rewrite(rows[0], np.zeros(LESION.shape))
    before = len(node_ids())
    new = logic.showCase(rows[0], model).segmentation
    assert new is not old and not mask(new, "Core", volumes()["fall-01 FLAIR"]).any()
    assert logic.isEdited(new) and logic.holdsOwnWork(new)
    assert segmentations() == [new] and len(node_ids()) == before and len(volumes()) == 3  # with a map
    assert logic.showCase(rows[1], model).kept == () and len(segmentations()) == 1

    # Also where the first look comes after the correction, and in the rows of a batch that was resumed.
    assert EMIMSegmentLogic().isEdited(EMIMSegmentLogic().showCase(rows[0], model).segmentation)


def test_a_correction_that_was_saved_over_the_result_leaves_one_segmentation(rows, model):
    logic = EMIMSegmentLogic()
    shown = logic.showCase(rows[1], model).segmentation
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.zeros(LESION.shape, np.uint8), shown, "Segment_2", volumes()["fall-02 ü FLAIR"]
    )
    logic.exportResult(shown, rows[1]["output"])
    again = logic.showCase(rows[1], model)
    assert segmentations() == [again.segmentation] and again.kept == ()
    assert not mask(again.segmentation, "Lésion", volumes()["fall-02 ü FLAIR"]).any()
    assert logic.isEdited(again.segmentation)

    # What is not in the file stays, and is told.
    again.segmentation.GetSegmentation().RemoveSegment("Segment_2")
    write_seg_nrrd(rows[1]["output"], np.stack([LESION * np.uint8(2), CORE * np.uint8(5)]),
                   read_header(rows[1]["files"]["FLAIR"]).grid, model.card.structures)  # fmt: skip
    third = logic.showCase(rows[1], model)
    assert len(segmentations()) == 2 and third.kept == ("fall-02 ü",) and visible() == [third.segmentation]


def test_rulers_are_seen_with_their_case_only(rows, model):
    logic, mine = EMIMSegmentLogic(), ruler(head("mine"), "mine")
    first = study("pat01")
    for row in (rows[0], first):
        logic.showCase(row, model)
    study_ruler = ruler(volumes()["pat01"], "of pat01")
    logic.showCase(rows[0], model)
    file_ruler = ruler(volumes()["fall-01 T1"], "of fall-01")
    shown = logic.showCase(rows[1], model)
    assert shown.kept == ("fall-01",) and mine.GetDisplayVisibility()
    assert not study_ruler.GetDisplayVisibility() and not file_ruler.GetDisplayVisibility()
    logic.showCase(rows[0], model)
    assert file_ruler.GetDisplayVisibility() and not study_ruler.GetDisplayVisibility()
    logic.showCase(first, model)
    assert study_ruler.GetDisplayVisibility() and not file_ruler.GetDisplayVisibility()
    study_ruler.SetDisplayVisibility(False)  # by the user
    logic.showCase(first, model)
    assert not study_ruler.GetDisplayVisibility()


def test_cases_that_are_looked_at_are_not_the_studies_of_the_user(rows, model, card):
    logic = EMIMSegmentLogic()
    logic.showCase(rows[0], model)
    assert logic.guessInputs(card) == {} and logic.loadedStudies(card) == []
    assert loadedExaminations(card) == []
    mine = head("FLAIR")
    assert logic.guessInputs(card)["FLAIR"].node is mine and len(logic.loadedStudies(card)) == 1

    # Chosen by hand, it brings those of the same case, and never another patient's.
    chosen = volumes()["fall-01 T1"]
    guessed = logic.guessInputs(card, [chosen])
    assert {m: g.node.GetName() for m, g in guessed.items()} == {"T1": "fall-01 T1", "FLAIR": "fall-01 FLAIR"}
    assert logic.guessInputs(card, [chosen, mine]) == {}
    assert not logic.examinationsOf(card, [chosen]) & logic.examinationsOf(card, [mine])


def study(name):
    """The row of a loaded study, with its result, which a batch has hidden."""
    volume = head(name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} result")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.GetDisplayNode().SetVisibility(False)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAttribute(CASE, name)
    nodes = {"FLAIR": volume.GetID()}
    return {"case": name, "error": None, "nodes": nodes, "segmentation": segmentation.GetID(), "output": None}


def test_loaded_studies_are_shown_one_at_a_time(rows, model):
    logic = EMIMSegmentLogic()
    logic.showCase(rows[0], model)
    first, second = (study(name) for name in ("pat01", "pat02"))
    for row in (first, second, first):
        shown = logic.showCase(row, model)
        assert visible() == [shown.segmentation] and shown.segmentation.GetID() == row["segmentation"]
    assert set(volumes()) == {"pat01", "pat02"}  # what came from files went
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(second["segmentation"]))
    with pytest.raises(EmimError, match="no longer in the scene"):
        logic.showCase(second, model)
    assert visible() == [slicer.mrmlScene.GetNodeByID(first["segmentation"])]
    slicer.mrmlScene.Clear(False)
    head("another patient")  # with the ID of a volume that is gone
    study("pat03")
    with pytest.raises(EmimError, match="no longer in the scene"):
        logic.showCase(first, model)
