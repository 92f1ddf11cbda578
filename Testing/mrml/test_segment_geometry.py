"""Where things lie: inputs on other grids and under transforms, and the result over its reference."""

import slicerhost

slicerhost.start()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import vtk  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from EMIMSegmentLib.result_nodes import sizeChangeText  # noqa: E402
from segment_scene import (  # noqa: E402
    CORE_RADIUS,
    LESION,
    LESION_RADIUS,
    distance,
    grid,
    head,
    mask,
    positions,
    rotation,
    segment_positions,
    shifted,
    transform,
)

from EMIMLib import EmimError  # noqa: E402
from EMIMLib.export_volume import exportVolume, frameOf, sizeChange  # noqa: E402

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(turn=None, move=(0.0, 0.0, 0.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if turn is None else turn
    matrix[:3, 3] = move
    return matrix


def apply(matrix):
    return lambda p: p @ matrix[:3, :3].T + matrix[:3, 3]


def bent(shift=(25.0, -10.0, 5.0), by=4.0):
    """A non-linear transform node: a shift, and a bend of ``by`` mm."""
    corners, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for p in np.stack(np.meshgrid(*[(-60, 0, 60)] * 3), -1).reshape(-1, 3):
        corners.InsertNextPoint(p)
        bend = by * np.sin(p[1] / 40) * np.cos(p[2] / 50)
        moved.InsertNextPoint(p + np.array(shift) + [bend, 0, -bend])
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(corners)
    spline.SetTargetLandmarks(moved)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    node.SetAndObserveTransformToParent(spline)
    return node


def through(node):
    """The function that a transform node is, to world."""
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node, None, to_world)
    return lambda p: np.array([to_world.TransformPoint(q) for q in p.reshape(-1, 3)]).reshape(p.shape)


def read(path):
    """Voxels (K, J, I) and IJK to RAS of a file, read by ITK as the worker does."""
    image = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), RAS_TO_LPS @ matrix


def centroid(voxels, ijk_to_ras):
    """Of the lesion, weighted by brightness."""
    weights = np.clip(voxels - 110.0, 0, None)[..., None]
    return (positions(ijk_to_ras, voxels.shape) * weights).sum((0, 1, 2)) / weights.sum()


OBLIQUE = rotation(25, 0) @ rotation(-15, 2)
LEFT_HANDED = OBLIQUE @ np.diag([1.0, 1.0, -1.0])


@pytest.mark.parametrize("axes", [None, OBLIQUE, LEFT_HANDED])
def test_exported_voxels_and_grid_are_those_of_the_volume(tmp_path, axes):
    ijk_to_ras = grid(spacing=(1.5, 2.0, 3.5), size=(40, 30, 20), axes=axes)
    volume = head("FLAIR", ijk_to_ras, (40, 30, 20))
    exportVolume(volume, tmp_path / "ü.nrrd")
    voxels, matrix = read(tmp_path / "ü.nrrd")
    assert np.array_equal(voxels, slicer.util.arrayFromVolume(volume))
    assert np.allclose(matrix, ijk_to_ras, atol=1e-9)


def test_linear_transforms_change_only_the_header(tmp_path):
    outer, inner = affine(rotation(40, 1), (10, 20, -30)), affine(rotation(-20, 0), (5, 0, 0))
    volume = head("FLAIR", grid(axes=OBLIQUE))
    parent = transform(inner, parent=transform(outer))
    volume.SetAndObserveTransformNodeID(parent.GetID())
    before = slicer.util.arrayFromVolume(volume).copy()
    exportVolume(volume, tmp_path / "a.nrrd")
    voxels, matrix = read(tmp_path / "a.nrrd")
    assert np.array_equal(voxels, before)
    assert np.allclose(matrix, outer @ inner @ grid(axes=OBLIQUE), atol=1e-9)
    assert volume.GetTransformNodeID() == parent.GetID()  # the scene is as it was
    assert np.array_equal(slicer.util.arrayFromVolume(volume), before)


@pytest.mark.parametrize("kind", ["bent", "sheared"])
def test_bending_and_shearing_transforms_move_the_voxels(tmp_path, kind):
    shear = np.array([[1, 0.3, 0, 12], [0, 1, 0, 0], [0, 0, 0.9, -8], [0, 0, 0, 1.0]])
    node = bent() if kind == "bent" else transform(shear)
    volume = head("FLAIR", grid(axes=OBLIQUE))
    volume.SetAndObserveTransformNodeID(node.GetID())
    exportVolume(volume, tmp_path / "a.nrrd")
    voxels, matrix = read(tmp_path / "a.nrrd")
    original = centroid(slicer.util.arrayFromVolume(volume), grid(axes=OBLIQUE))
    expected = through(node)(original[None])[0]
    assert np.linalg.norm(expected - LESION) > 8
    assert np.linalg.norm(centroid(voxels, matrix) - expected) < 0.3
    # Nothing is cut off, although the volume leaves its box.
    assert voxels.sum() * abs(np.linalg.det(matrix[:3, :3])) == pytest.approx(
        slicer.util.arrayFromVolume(volume).sum() * 27 * (0.9 if kind == "sheared" else 1.0), rel=0.06
    )


def test_a_transform_that_tears_the_volume_apart_is_refused(tmp_path):
    volume = head("FLAIR")
    stretch = affine(np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]) * 50)
    volume.SetAndObserveTransformNodeID(transform(stretch).GetID())
    exportVolume(volume, tmp_path / "a.nrrd")  # as many voxels, only larger
    broken = bent(shift=(0, 0, 0))
    spline = broken.GetTransformToParent()
    spline.GetTargetLandmarks().SetPoint(0, 1e5, 1e5, 1e5)
    spline.Modified()
    nothing = transform(np.diag([np.nan, 1.0, 1.0, 1.0]))
    for node in (broken, nothing):
        volume.SetAndObserveTransformNodeID(node.GetID())
        with pytest.raises(EmimError, match="tears it apart"):
            exportVolume(volume, tmp_path / "b.nrrd")
    with pytest.raises(EmimError, match="tears it apart"):
        sizeChange(volume)  # of a reference, which is written as it is


def test_a_disk_that_refuses_is_an_error(tmp_path):
    with pytest.raises(EmimError, match="could not be written"):
        exportVolume(head("FLAIR"), tmp_path / "no such folder" / "a.nrrd")


def test_frame_is_the_world_unless_the_reference_is_bent():
    volume = head("FLAIR")
    assert frameOf(volume)[0] is None
    turn = affine(rotation(30), (1, 2, 3))
    volume.SetAndObserveTransformNodeID(transform(turn).GetID())
    frame, to_reference = frameOf(volume)
    assert frame is None and np.allclose(to_reference @ turn, np.eye(4))
    node = bent()
    volume.SetAndObserveTransformNodeID(node.GetID())
    assert frameOf(volume)[0] is node and np.array_equal(frameOf(volume)[1], np.eye(4))


def test_result_over_a_reference_under_a_transform(threshold_model):
    """Left-handed oblique reference under nested transforms; T1 with another grid and transform."""
    outer, inner = affine(rotation(90, 0), (0, 40, 20)), affine(rotation(8, 2), (-12, 3, 0))
    world = outer @ inner
    size = (30, 26, 28)
    ijk_to_ras = grid(size=size, centre=apply(np.linalg.inv(world))(np.zeros(3)), axes=LEFT_HANDED)
    flair = head("FLAIR", ijk_to_ras, size, to_scene=apply(world))
    parent = transform(inner, parent=transform(outer))
    flair.SetAndObserveTransformNodeID(parent.GetID())

    aside = affine(rotation(-30, 1), (60, 0, 0))
    coarse = grid((2.0, 2.0, 4.0), (30, 40, 18), centre=apply(np.linalg.inv(aside))(np.zeros(3)))
    t1 = head(
        "T1", coarse, (30, 40, 18), to_scene=apply(aside), bright=CORE_RADIUS
    )  # a smaller field of view
    t1.SetAndObserveTransformNodeID(transform(aside).GetID())

    logic = EMIMSegmentLogic()
    result = logic.process({"FLAIR": flair, "T1": t1}, str(threshold_model), device="cpu", probabilities=True)

    at = apply(world)(positions(ijk_to_ras, size[::-1]))
    assert np.array_equal(mask(result, "Lésion", flair), distance(at) < LESION_RADIUS)
    in_world = segment_positions(result, "Lésion")
    assert distance(in_world).max() < LESION_RADIUS and np.linalg.norm(in_world.mean(0) - LESION) < 0.7
    assert np.linalg.norm(segment_positions(result, "Core").mean(0) - LESION) < 1.5
    assert result.GetTransformNodeID() == flair.GetTransformNodeID()
    assert result.GetNodeReference("referenceImageGeometryRef") is flair
    probability = logic.probabilityVolumes(result)["Lésion"]
    assert probability.GetTransformNodeID() == flair.GetTransformNodeID()
    assert np.array_equal(slicer.util.arrayFromVolume(probability) > 0.5, distance(at) < LESION_RADIUS)
    matrix = vtk.vtkMatrix4x4()
    probability.GetIJKToRASMatrix(matrix)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(matrix), ijk_to_ras, atol=1e-6)
    # The result stays over its reference when the transform is changed or taken away.
    flair.SetAndObserveTransformNodeID(None)
    result.SetAndObserveTransformNodeID(None)
    assert np.array_equal(mask(result, "Lésion", flair), distance(at) < LESION_RADIUS)


def test_result_over_a_reference_under_a_bent_transform(threshold_model):
    node = bent()
    ijk_to_ras = grid(centre=(-25.0, 10.0, -5.0))
    flair = head("FLAIR", ijk_to_ras, to_scene=through(node))
    flair.SetAndObserveTransformNodeID(node.GetID())
    t1 = head("T1", bright=CORE_RADIUS)
    result = EMIMSegmentLogic().process({"T1": t1, "FLAIR": flair}, str(threshold_model), device="cpu")
    at = through(node)(positions(ijk_to_ras, (26, 26, 26)))
    assert np.array_equal(mask(result, "Lésion", flair), distance(at) < LESION_RADIUS)
    assert result.GetTransformNodeID() == node.GetID()
    core = segment_positions(result, "Core")
    assert np.linalg.norm(core.mean(0) - LESION) < 1.5 and distance(core).max() < CORE_RADIUS + 3


def squeezed():
    """The upper half of space is half as high as on the grid, as where slices lie closer."""
    return shifted(-np.maximum(np.linspace(-60, 60, 31), 0) / 2, reach=60)


def test_how_much_a_transform_changes_sizes_where_the_frame_does_not_show_it():
    volume = head("FLAIR")
    assert sizeChange(volume) == 0
    volume.SetAndObserveTransformNodeID(transform(np.diag([2.0, 1.0, 1.0, 1.0])).GetID())
    assert sizeChange(volume) == 0, "the file has the world's spacing"
    volume.SetAndObserveTransformNodeID(squeezed().GetID())
    assert sizeChange(volume) == pytest.approx(0.5)


def test_what_hardly_bends_is_written_as_it_is(tmp_path):
    volume = head("FLAIR", grid(axes=OBLIQUE))
    before = slicer.util.arrayFromVolume(volume).copy()
    node = bent(shift=(5.0, 0.0, 0.0), by=0.05)
    volume.SetAndObserveTransformNodeID(node.GetID())
    assert frameOf(volume)[0] is None
    exportVolume(volume, tmp_path / "a.nrrd")
    voxels, matrix = read(tmp_path / "a.nrrd")
    assert np.array_equal(voxels, before)
    expected = through(node)(centroid(before, grid(axes=OBLIQUE))[None])[0]
    assert np.linalg.norm(centroid(voxels, matrix) - expected) < 0.1
    volume.SetAndObserveTransformNodeID(bent(shift=(5.0, 0.0, 0.0), by=0.5).GetID())
    assert frameOf(volume)[0] is not None


def test_measurements_under_a_transform_that_changes_sizes_say_so(threshold_model):
    flair = head("FLAIR", to_scene=lambda p: p)
    node = squeezed()
    flair.SetAndObserveTransformNodeID(node.GetID())
    logic = EMIMSegmentLogic()
    result = logic.process({"FLAIR": flair}, str(threshold_model), device="cpu", show=False)
    text = sizeChangeText(result)
    assert "up to 50 %" in text and "Harden" in text and text in logic.run.summary
    wrong = measured(logic, result)
    flair.HardenTransform()
    again = logic.process(
        {"FLAIR": flair}, str(threshold_model), outputSegmentation=result, device="cpu", show=False
    )
    assert again is result and sizeChangeText(result) == ""
    assert measured(logic, result) == pytest.approx(0.5 * wrong, rel=0.1)


def measured(logic, segmentation):
    """Volume of the lesion, mL."""
    table = logic.measurementsTable(segmentation)
    names = [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    column = next(i for i, name in enumerate(names) if "mL" in name)
    return float(table.GetCellText(0, column))


def harden(flair):
    flair.HardenTransform()


def move(flair):
    flair.SetOrigin(*(np.array(flair.GetOrigin()) + (7.0, 0.0, 0.0)))


def remove(flair):
    slicer.mrmlScene.RemoveNode(flair)


def remove_both(flair):
    parent = flair.GetParentTransformNode()
    slicer.mrmlScene.RemoveNode(flair)
    slicer.mrmlScene.RemoveNode(parent)


@pytest.mark.parametrize("happens", [harden, move, remove, remove_both])
def test_what_happens_to_the_reference_meanwhile(threshold_model, happens):
    """The result stays over its voxels, or where these were."""
    own = affine(rotation(40, 1), (30, 20, -10))
    ijk_to_ras = grid(centre=apply(np.linalg.inv(own))(np.zeros(3)))
    flair = head("FLAIR", ijk_to_ras, to_scene=apply(own))
    parent = transform(own)
    flair.SetAndObserveTransformNodeID(parent.GetID())
    earlier = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "earlier")
    earlier.SetAndObserveTransformNodeID(transform(affine(move=(100.0, 0, 0))).GetID())
    logic, told = EMIMSegmentLogic(), []

    def follow(event):
        if not told and event["type"] == "status" and "Writing" not in event["text"]:
            told.append(event)
            happens(flair)

    result = logic.process(
        {"FLAIR": flair},
        str(threshold_model),
        outputSegmentation=earlier,
        device="cpu",
        probabilities=True,
        show=False,
        onEvent=follow,
    )
    assert told
    moved = np.array(LESION) + (own[:3, :3] @ (7.0, 0.0, 0.0) if happens is move else 0.0)
    at = segment_positions(result, "Lésion")
    assert np.linalg.norm(at.mean(0) - moved) < 0.7
    probability = logic.probabilityVolumes(result)["Lésion"]
    above = None if happens in (harden, remove_both) else parent.GetID()
    assert (result.GetTransformNodeID(), probability.GetTransformNodeID()) == (above, above)
    to_world = np.eye(4) if above is None else own
    local = vtk.vtkMatrix4x4()
    probability.GetIJKToRASMatrix(local)
    world = to_world @ slicer.util.arrayFromVTKMatrix(local)
    k, j, i = np.nonzero(slicer.util.arrayFromVolume(probability) > 0.5)
    assert np.linalg.norm(apply(world)(np.stack([i, j, k], -1)).mean(0) - moved) < 0.7


def test_a_sheared_reference_is_refused(threshold_model):
    matrix = grid()
    matrix[0, 1] += 0.5
    with pytest.raises(EmimError, match="sheared") as error:
        EMIMSegmentLogic().process({"FLAIR": head("Gantry", matrix)}, str(threshold_model), device="cpu")
    assert error.value.where == "Gantry"
