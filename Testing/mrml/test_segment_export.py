"""Results as files for other programs."""

import slicerhost

slicerhost.start()

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from segment_model import MASS  # noqa: E402
from segment_scene import distance, grid, head, positions, rotation, transform  # noqa: E402

from EMIMLib import EmimError  # noqa: E402

AXES = rotation(20, 0) @ np.diag([-1.0, -1.0, 1.0])
IJK_TO_RAS = grid((2.0, 3.0, 4.0), (24, 20, 18), axes=AXES)
AT = positions(IJK_TO_RAS, (18, 20, 24))
OUTER, INNER = distance(AT) < 11, distance(AT) < 6


@pytest.fixture
def result():
    """A nested segmentation over an oblique volume under a transform."""
    volume = head("FLAIR", IJK_TO_RAS, (24, 20, 18))
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation(30, 1), (10, 0, 5)
    volume.SetAndObserveTransformNodeID(transform(moved).GetID())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Ergebnis")
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask, value, terminology in (("Lésion", OUTER, 2, MASS), ("Core", INNER, 5, None)):
        segment = node.GetSegmentation().AddEmptySegment(name, name, [0.9, 0.6, 0.1])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)
        node.GetSegmentation().GetSegment(segment).SetTag("EMIM.LabelValue", str(value))
        if terminology:
            node.GetSegmentation().GetSegment(segment).SetTerminology(terminology)
    return node


@pytest.mark.parametrize("name", ["ü.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_label_map(tmp_path, result, name):
    before = slicer.mrmlScene.GetNumberOfNodes()
    path = EMIMSegmentLogic().exportResult(result, tmp_path / name)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    expected = np.where(INNER, 5, np.where(OUTER, 2, 0))  # the core lies on top
    if name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), expected)
        # The grid of the reference's own file, without the transform above it.
        assert np.allclose(image.affine, IJK_TO_RAS, atol=1e-4)
    else:
        loaded = slicer.util.loadVolume(str(path))
        assert np.array_equal(slicer.util.arrayFromVolume(loaded), expected)


def test_on_the_grid_of_another_volume(tmp_path, result):
    other = head("T1", grid((2.0, 2.0, 2.0), (40, 40, 40)), (40, 40, 40))
    image = nibabel.load(EMIMSegmentLogic().exportResult(result, tmp_path / "a.nii.gz", other))
    assert image.shape == (40, 40, 40)
    i, j, k = np.nonzero(np.asarray(image.dataobj))
    world = np.stack([i, j, k], -1) @ image.affine[:3, :3].T + image.affine[:3, 3]
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation(30, 1), (10, 0, 5)
    expected = AT[OUTER].mean(0) @ moved[:3, :3].T + moved[:3, 3]
    assert np.linalg.norm(world.mean(0) - expected) < 1


def test_seg_nrrd_keeps_everything(tmp_path, result):
    path = EMIMSegmentLogic().exportResult(result, tmp_path / "ü.seg.nrrd")
    header = path.read_bytes().split(b"\n\n")[0].decode("utf-8")
    assert "Segment0_Name:=Lésion" in header and f"TerminologyEntry:{MASS}" in header
    assert "Segment1_Name:=Core" in header and "Segment0_Color:=0.9 0.6 0.1" in header
    loaded = slicer.util.loadSegmentation(str(path)).GetSegmentation()
    assert [loaded.GetSegment(i).GetName() for i in loaded.GetSegmentIDs()] == ["Lésion", "Core"]
    assert result.GetStorageNode() is None  # saving the scene later is not led to this file


def values(tmp_path, result):
    """Values in the label map of ``result``, and that at the centre of the lesion."""
    image = nibabel.load(EMIMSegmentLogic().exportResult(result, tmp_path / "a.nii.gz"))
    label = np.asarray(image.dataobj).transpose(2, 1, 0)
    return set(np.unique(label)), label[np.unravel_index(distance(AT).argmin(), AT.shape[:3])]


def test_a_segmentation_that_emim_did_not_make(tmp_path, result):
    segments = result.GetSegmentation()
    for segment in segments.GetSegmentIDs():
        segments.GetSegment(segment).RemoveTag("EMIM.LabelValue")
    assert values(tmp_path, result) == ({0, 1, 2}, 2)


def test_segments_that_the_user_added_leave_the_models_values_alone(tmp_path, result):
    volume, segments = slicer.util.getNode("FLAIR"), result.GetSegmentation()
    for name, mask in (("drawn", AT[..., 2] > 15), ("drawn, too", AT[..., 2] < -15)):
        segment = segments.AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), result, segment, volume)
    assert values(tmp_path, result) == ({0, 1, 2, 3, 5}, 5)
    for segment in ("drawn", "drawn, too"):  # as copies of the lesion
        segments.GetSegment(segment).SetTag("EMIM.LabelValue", "2")
    assert values(tmp_path, result) == ({0, 1, 2, 3, 5}, 5)
    segments.SetSegmentIndex("drawn", 0)
    segments.GetSegment("drawn").RemoveTag("EMIM.LabelValue")
    assert values(tmp_path, result) == ({0, 1, 2, 3, 5}, 5)
    path = EMIMSegmentLogic().exportResult(result, tmp_path / "b.nii.gz")
    label = np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
    assert set(np.unique(label[OUTER & ~INNER])) == {2}


def test_a_label_map_that_hides_a_part_of_a_structure_says_so(tmp_path, result, caplog):
    logic, warnings = EMIMSegmentLogic(), []
    logic.exportResult(result, tmp_path / "nested.nii.gz", onWarning=warnings.append)
    assert warnings == []  # the core lies within the lesion
    volume = slicer.util.getNode("FLAIR")
    for name, mask in (("Oedema", AT[..., 0] > 6), ("far", AT[..., 0] < -25)):
        segment = result.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), result, segment, volume)
    logic.exportResult(result, tmp_path / "partly.nii.gz", onWarning=warnings.append)
    (text,) = warnings
    assert "“Oedema” over “Lésion”, “Oedema” over “Core”." in text and "far" not in text
    logic.exportResult(result, tmp_path / "whole.seg.nrrd", onWarning=warnings.append)
    assert len(warnings) == 1
    logic.exportResult(result, tmp_path / "script.nii.gz")
    assert text in caplog.text


def test_refusals(tmp_path, result):
    logic = EMIMSegmentLogic()
    with pytest.raises(EmimError, match="this format") as error:
        logic.exportResult(result, tmp_path / "a.stl")
    assert ".nii.gz" in error.value.hint
    with pytest.raises(EmimError, match="folder does not exist"):
        logic.exportResult(result, tmp_path / "no" / "a.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(EmimError, match="could not be written"):
        logic.exportResult(result, tmp_path / "folder.nii.gz")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("FLAIR"))
    with pytest.raises(EmimError, match="no reference volume"):
        logic.exportResult(result, tmp_path / "a.nii.gz")


def test_a_segment_without_voxels_is_named(tmp_path, result):
    segments = result.GetSegmentation()
    segments.RemoveAllSegments()
    segments.AddEmptySegment("drawn", "Gezeichnet")
    segments.SetSourceRepresentationName("Closed surface")
    with pytest.raises(EmimError, match="cannot be converted") as error:
        EMIMSegmentLogic().exportResult(result, tmp_path / "a.nii.gz")
    assert error.value.where == "Gezeichnet"
