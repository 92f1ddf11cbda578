"""What is seen of a result: drawn by Slicer's own displayable managers, checked by colour."""

import slicerhost

slicerhost.start()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import vtk  # noqa: E402
from EMIMSegmentLib.display import showAlignment, showProbability, showResult, showSurface  # noqa: E402
from EMIMSegmentLib.load_result import readSegmentation, takeSegmentation  # noqa: E402
from EMIMSegmentLib.probability_maps import updateProbabilities  # noqa: E402
from segment_scene import (  # noqa: E402
    CORE_RADIUS,
    LESION,
    LESION_RADIUS,
    distance,
    grid,
    head,
    positions,
    rotation,
    shifted,
    transform,
)
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

from emim.inference.seg_nrrd import write_seg_nrrd  # noqa: E402
from emim.package.bundle import read_card  # noqa: E402
from emim.volumes.grid import Grid  # noqa: E402
from EMIMLib.models import InstalledModel  # noqa: E402

ORANGE, BLUE = np.array([230, 159, 0]), np.array([86, 180, 233])
AT = positions(grid(), (26, 26, 26))


@pytest.fixture
def result(tmp_path, threshold_model):
    """A result as the worker writes it, under a transform that its reference has, too."""
    layers = np.stack(
        [
            (distance(AT) < LESION_RADIUS) * np.uint8(2),
            (distance(AT) < CORE_RADIUS) * np.uint8(5),
        ]
    )
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid()
    where = Grid((26,) * 3, (3.0,) * 3, tuple(matrix[:3, 3]), tuple((matrix[:3, :3] / 3).ravel()))
    card = read_card(threshold_model)
    write_seg_nrrd(tmp_path / "a.seg.nrrd", layers, where, card.structures)
    reference = head("FLAIR")
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation(15, 2), (30, -20, 10)
    reference.SetAndObserveTransformNodeID(transform(moved).GetID())
    read = readSegmentation(tmp_path / "a.seg.nrrd", np.eye(4))
    model = InstalledModel(threshold_model, card)
    node = takeSegmentation(read, None, model, reference, [], reference.GetTransformNodeID())
    node.card, node.lesion = card, moved[:3, :3] @ LESION + moved[:3, 3]
    return node


def pixels(view):
    """The picture of a view, (rows, columns, 3)."""
    manager = slicer.app.layoutManager()
    slices = manager.sliceViewNames()
    widget = manager.sliceWidget(view).sliceView() if view in slices else manager.threeDWidget(0).threeDView()
    widget.forceRender()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(widget.renderWindow())
    grabber.ReadFrontBufferOff()
    grabber.Update()
    width, height, _ = grabber.GetOutput().GetDimensions()
    return vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars()).reshape(height, width, -1)[..., :3]


def count(view, color, tolerance=12):
    return int((np.abs(pixels(view).astype(int) - color).max(-1) < tolerance).sum())


def coloured(view):
    """Pixels that are not grey."""
    picture = pixels(view).astype(int)
    return int((picture.max(-1) - picture.min(-1) > 40).sum())


def test_the_views_show_the_result(result):
    showResult(result, opacity=1.0)
    for view in ("Red", "Yellow", "Green"):
        assert count(view, ORANGE) > 500 and count(view, BLUE) > 200, view
        # Each view is at the lesion, where it really is.
        node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
        to_slice = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(node.GetSliceToRAS(), to_slice)
        assert abs(to_slice.MultiplyPoint((*result.lesion, 1))[2]) < 4
    assert coloured("3D") > 200
    filled = count("Red", ORANGE)
    showResult(result, opacity=0.0)
    assert 20 < count("Red", ORANGE) < filled / 3  # only the outline is left
    showSurface(result, False)
    assert not result.GetDisplayNode().GetVisibility3D()
    assert not result.GetSegmentation().ContainsRepresentation("Closed surface")


def test_probabilities_lie_over_the_image(result):
    read = head("x", bright=0)
    values = np.clip(1 - distance(AT) / 20, 0, 1).astype(np.float32)
    slicer.util.updateVolumeFromArray(read, values)
    updateProbabilities(result, {"Lésion": read}, result.card.structures)
    slicer.mrmlScene.RemoveNode(read)
    showResult(result, surface=False)
    result.GetDisplayNode().SetVisibility(False)
    assert coloured("Red") == 0
    showProbability(result, "Lésion", opacity=1.0)
    assert coloured("Red") > 500 and count("Red", ORANGE, 40) > 20
    showProbability(result, None)
    assert coloured("Red") == 0


def test_an_empty_result_is_shown_without_error(result):
    for segment in list(result.GetSegmentation().GetSegmentIDs()):
        result.GetSegmentation().RemoveSegment(segment)
    showResult(result)
    assert coloured("Red") == 0


def test_alignment_shows_both_volumes():
    first, second = head("T1"), head("FLAIR")
    showAlignment(first, second)
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()) == (
        first.GetID(),
        second.GetID(),
    )
    assert composite.GetForegroundOpacity() == 0.5


def test_views_are_turned_to_no_plane_of_a_bent_volume(monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **layers: asked.append(layers))
    volume = head("FLAIR")
    for parent, turned in ((transform(np.eye(4)), True), (shifted([0.0, 4.0, 0.0]), False)):
        volume.SetAndObserveTransformNodeID(parent.GetID())
        asked.clear()
        showAlignment(volume, head("T1"))
        assert asked[0]["rotateToVolumePlane"] is turned
