"""Aligning the inputs to the reference: the right transform, shown and taken away, found again."""

import slicerhost

slicerhost.start()

import json  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import vtk  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from segment_scene import (  # noqa: E402
    fake_worker,
    grid,
    head,
    node_ids,
    positions,
    rotation,
    shifted,
    transform,
)

from EMIMLib import EmimError  # noqa: E402

SIZE = (48, 44, 40)


def brain(name, contrast, ijk_to_ras=None, to_scene=lambda p: p):
    """A head with blobs inside, brighter or darker by ``contrast``."""
    ijk_to_ras = grid((2.5, 2.5, 3.0), SIZE) if ijk_to_ras is None else ijk_to_ras
    at = to_scene(positions(ijk_to_ras, SIZE[::-1]))
    random = np.random.default_rng(3)
    voxels = np.zeros(SIZE[::-1])
    inside = (np.abs(at) / (42, 48, 38) < 1).all(-1) & (np.linalg.norm(at / (42, 48, 38), axis=-1) < 1)
    voxels[inside] = 100
    for _ in range(14):
        centre, radius = random.uniform(-28, 28, 3), random.uniform(4, 11)
        blob = np.exp(-((np.linalg.norm(at - centre, axis=-1) / radius) ** 2))
        voxels += inside * blob * contrast * random.uniform(0.5, 1.5)
    voxels += inside * np.random.default_rng(len(name)).normal(0, 1.5, voxels.shape)
    return slicer.util.addVolumeFromArray(np.clip(voxels, 0, None).astype(np.float32), ijk_to_ras, name)


def affine(turn, move):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, move
    return matrix


def to_world(volume):
    """(4, 4) matrix of all transforms above a volume."""
    matrix = vtk.vtkMatrix4x4()
    parent = volume.GetParentTransformNode()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parent, None, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


CORNERS = np.array([[x, y, z, 1] for x in (-40, 40) for y in (-40, 40) for z in (-40, 40)], float)


def furthest(first, second):
    """mm between where two matrices put the corners of a head."""
    return np.linalg.norm((CORNERS @ (first - second).T)[:, :3], axis=1).max()


def test_a_known_shift_is_found(tmp_path):
    """T1 moved by 9 mm and 5 degrees, and under a transform of its own besides."""
    wrong = affine(rotation(5, 2), (8.0, -4.0, 3.0))
    own = affine(rotation(-20, 0), (15.0, 0.0, 5.0))
    flair = brain("FLAIR", -50)
    # What the header says, own @ grid, lies at wrong @ of where it truly is.
    ijk_to_ras = np.linalg.inv(own) @ wrong @ grid((2.5, 2.5, 3.0), SIZE)
    t1 = brain("T1", 60, ijk_to_ras, to_scene=lambda p: p @ (np.linalg.inv(wrong) @ own)[:3, :3].T
               + (np.linalg.inv(wrong) @ own)[:3, 3])  # fmt: skip
    parent = transform(own)
    t1.SetAndObserveTransformNodeID(parent.GetID())
    inputs, logic = {"FLAIR": flair, "T1": t1}, EMIMSegmentLogic()

    found = logic.align(inputs, "FLAIR")["T1"]
    assert found is logic.alignmentOf(t1) and t1.GetParentTransformNode() is found
    assert found.GetParentTransformNode() is parent and np.allclose(to_world(found), own)
    right = np.linalg.inv(wrong) @ own
    assert furthest(own, right) > 8 and furthest(to_world(t1), right) < 1.0
    numbers = logic.run.alignments["T1"]
    assert numbers["translation_mm"] > 3 and numbers["rotation_deg"] == pytest.approx(5, abs=0.7)
    assert numbers["similarity_after"] > numbers["similarity_before"] and not numbers["warning"]
    assert flair.GetParentTransformNode() is None and logic.alignmentOf(flair) is None
    assert logic.isAligned(inputs) and logic.isAlignmentShown(t1)

    # Before and after.
    logic.setAlignmentShown(inputs, False)
    assert t1.GetParentTransformNode() is parent and not logic.isAlignmentShown(t1)
    logic.setAlignmentShown(inputs, True)
    assert t1.GetParentTransformNode() is found

    # Again: from where it was, not from where it was put; the node is used again.
    before = node_ids()
    assert logic.align(inputs, "FLAIR")["T1"] is found and node_ids() == before
    assert furthest(to_world(t1), right) < 1.0

    # Kept in the scene, and taken away without a trace.
    assert slicer.util.saveScene(str(tmp_path / "scène.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "scène.mrb"))
    inputs = {m: slicer.util.getNode(m) for m in ("FLAIR", "T1")}
    assert logic.isAligned(inputs) and logic.isAlignmentShown(inputs["T1"])
    logic.removeAlignment(inputs)
    assert np.allclose(to_world(inputs["T1"]), own) and not logic.isAligned(inputs)
    assert not slicer.util.getNodes("*aligned to*")


def test_what_arrives_is_what_the_worker_says(tmp_path, monkeypatch):
    matrix = affine(rotation(10, 1), (1.0, 2.0, 3.0))
    alignment = {"matrix_ras": matrix.tolist(), "warning": "No better place was found."}
    result = {"type": "result", "alignments": {"T1": alignment}}
    fake_worker(tmp_path, monkeypatch, f"print({json.dumps(json.dumps(result))})")
    inputs, logic = {"FLAIR": head("FLAIR"), "T1": head("T1")}, EMIMSegmentLogic()
    node = logic.align(inputs, "FLAIR")["T1"]
    assert np.allclose(slicer.util.arrayFromTransformMatrix(node), matrix)
    assert node.GetName() == "T1 aligned to FLAIR" and "Look closely at T1" in logic.run.summary


def test_what_the_user_did_with_a_volume_since_is_left_alone(tmp_path, monkeypatch):
    """Hardened, it is where it was put; below another transform, it is the user's."""
    matrix = affine(np.eye(3), (10.0, 0.0, 0.0))
    result = {"type": "result", "alignments": {"T1": {"matrix_ras": matrix.tolist(), "warning": None}}}
    fake_worker(tmp_path, monkeypatch, f"print({json.dumps(json.dumps(result))})")
    inputs, logic = {"FLAIR": head("FLAIR"), "T1": head("T1")}, EMIMSegmentLogic()
    logic.align(inputs, "FLAIR")
    t1 = inputs["T1"]
    t1.HardenTransform()
    assert not logic.isAligned(inputs) and not logic.isAlignmentShown(t1)
    logic.setAlignmentShown(inputs, True)
    assert t1.GetParentTransformNode() is None
    hardened = to_world(t1)

    logic.align(inputs, "FLAIR")
    own = transform(affine(np.eye(3), (0.0, 7.0, 0.0)))
    t1.SetAndObserveTransformNodeID(own.GetID())
    assert not logic.isAligned(inputs)
    logic.removeAlignment(inputs)
    assert t1.GetParentTransformNode() is own
    t1.SetAndObserveTransformNodeID(None)
    assert np.allclose(to_world(t1), hardened)


def test_a_failure_changes_nothing(tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "print(json.dumps({'type': 'error', 'what': 'x'})); sys.exit(2)")
    inputs = {"FLAIR": head("FLAIR"), "T1": head("T1")}
    before = node_ids()
    with pytest.raises(EmimError, match="x"):
        EMIMSegmentLogic().align(inputs, "FLAIR")
    assert node_ids() == before and inputs["T1"].GetParentTransformNode() is None


def test_what_bends_by_less_than_a_tenth_of_a_voxel_is_aligned(threshold_model):
    """As under the transform by which Slicer corrects positions of slices that were rounded."""
    flair, t1 = head("FLAIR"), head("T1", to_scene=lambda p: p + (6.0, 0.0, 0.0))
    node = shifted([0.05, 0.0, -0.05])
    t1.SetAndObserveTransformNodeID(node.GetID())
    EMIMSegmentLogic().align({"FLAIR": flair, "T1": t1}, "FLAIR")
    found = t1.GetParentTransformNode()
    assert found.GetParentTransformNode() is node
    shift = slicer.util.arrayFromTransformMatrix(found)[:3, 3]
    assert np.linalg.norm(shift - (6.0, 0.0, 0.0)) < 3.0


def test_refusals():
    logic, flair, t1 = EMIMSegmentLogic(), head("FLAIR"), head("T1")
    with pytest.raises(EmimError, match="nothing to align"):
        logic.align({"FLAIR": flair, "T1": None}, "FLAIR")
    with pytest.raises(EmimError, match="cannot be the reference"):
        logic.align({"FLAIR": flair, "T1": t1}, "T2")
    t1.SetAndObserveTransformNodeID(shifted([0.0, 0.0, 2.0]).GetID())
    with pytest.raises(EmimError, match="non-linear") as error:
        logic.align({"FLAIR": flair, "T1": t1}, "FLAIR")
    assert error.value.where == "T1"
