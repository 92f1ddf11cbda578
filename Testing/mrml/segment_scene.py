"""Volumes to segment, of which every test knows what is where."""

import sys

import numpy as np
import slicer
import slicer.util
import vtk
import vtk.util.numpy_support

RADIUS = 30.0  # mm, of the head
LESION, LESION_RADIUS, CORE_RADIUS = (6.0, -4.0, 8.0), 11.0, 6.0  # RAS mm


def grid(spacing=(3.0, 3.0, 3.0), size=(26, 26, 26), centre=(0.0, 0.0, 0.0), axes=None):
    """IJK to RAS of a grid around ``centre``; ``axes`` (3, 3) are its directions in columns."""
    axes = np.diag([-1.0, -1.0, 1.0]) if axes is None else np.asarray(axes, float)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = centre - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return matrix


def rotation(degrees, axis=2):
    """(3, 3) rotation about an axis."""
    a, (i, j) = np.deg2rad(degrees), [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(a)
    matrix[j, i], matrix[i, j] = np.sin(a), -np.sin(a)
    return matrix


def positions(ijk_to_ras, shape):
    """RAS mm of every voxel, (K, J, I, 3)."""
    k, j, i = np.indices(shape)
    return np.stack([i, j, k], -1) @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]


def head(name, ijk_to_ras=None, size=(26, 26, 26), to_scene=lambda p: p, bright=LESION_RADIUS):
    """A volume node with a head of which the lesion is bright to the radius ``bright``.

    Args:
        to_scene: where a RAS position of the grid really is, for volumes under a transform.
    """
    ijk_to_ras = grid(size=size) if ijk_to_ras is None else ijk_to_ras
    at = to_scene(positions(ijk_to_ras, size[::-1]))
    voxels = np.zeros(size[::-1])
    inside = np.linalg.norm(at, axis=-1) < RADIUS
    voxels[inside] = 100 + 3 * np.sin(at[inside].sum(-1))  # some texture
    voxels[distance(at) < bright] = 200
    return slicer.util.addVolumeFromArray(voxels.astype(np.int16), ijk_to_ras, name)


def distance(at):
    """mm to the centre of the lesion."""
    return np.linalg.norm(at - np.array(LESION), axis=-1)


def pair():
    """T1 and FLAIR on the same grid."""
    return {"T1": head("T1", bright=CORE_RADIUS), "FLAIR": head("FLAIR")}


IDENTITY = ("smith", "anna", "4711", "20240131", "1.2.840")  # of :func:`dicom_study`, in small letters


def dicom_study(uid, *volumes, date="20240131"):
    """Put volumes below a study of Anna Smith in the subject hierarchy, as Slicer's DICOM module does."""
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = items.GetItemByUID("DICOM", "4711")
    if not patient:
        patient = items.CreateSubjectItem(items.GetSceneItemID(), "Smith^Anna (4711)")
        items.SetItemUID(patient, "DICOM", "4711")
        items.SetItemAttribute(patient, "DICOM.PatientID", "4711")
        items.SetItemAttribute(patient, "DICOM.PatientName", "Smith^Anna")
    item = items.CreateStudyItem(patient, f"MRI head ({date})")
    items.SetItemUID(item, "DICOM", uid)
    for node in volumes:
        items.SetItemParent(items.GetItemByDataNode(node), item)
        node.SetAttribute("DICOM.instanceUIDs", f"{uid}.7.1 {uid}.7.2")


def told_of(text):
    """The words of :data:`IDENTITY` in a text."""
    return [word for word in IDENTITY if word in text.lower()]


def transform(matrix, parent=None):
    """A linear transform node with a (4, 4) matrix."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "transform")
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    if parent is not None:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def shifted(shifts, reach=40):
    """Transform node that moves planes of space along S by ``shifts`` (mm).

    The planes lie at even distances from -``reach`` to ``reach`` mm; between them it interpolates.
    """
    displacement, count = vtk.vtkImageData(), len(shifts)
    displacement.SetDimensions(2, 2, count)
    displacement.SetOrigin(-reach, -reach, -reach)
    displacement.SetSpacing(2 * reach, 2 * reach, 2 * reach / (count - 1))
    displacement.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vectors = vtk.util.numpy_support.vtk_to_numpy(displacement.GetPointData().GetScalars())
    vectors[:] = 0
    vectors.reshape(count, 4, 3)[..., 2] = np.reshape(shifts, (-1, 1))
    moving = slicer.vtkOrientedGridTransform()
    moving.SetDisplacementGridData(displacement)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "shifted")
    node.SetAndObserveTransformToParent(moving)
    return node


def mask(segmentation, name, volume):
    """Voxels (K, J, I) of a segment on the grid of ``volume``."""
    segment = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume) > 0


def segment_positions(segmentation, name):
    """World RAS mm of the voxels of a segment, parent transforms applied (by Slicer itself)."""
    image = slicer.vtkOrientedImageData()
    segment = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    segmentation.GetBinaryLabelmapRepresentation(segment, image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    matrix = slicer.util.arrayFromVTKMatrix(matrix)
    scalars = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    k, j, i = np.nonzero(scalars.reshape(image.GetDimensions()[::-1]))
    low = np.array(image.GetExtent()[::2])
    local = (np.stack([i, j, k], -1) + low) @ matrix[:3, :3].T + matrix[:3, 3]
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentation.GetParentTransformNode(), None, to_world
    )
    return np.array([to_world.TransformPoint(p) for p in local])


def node_ids():
    """IDs of all nodes, to see that none was added or lost; Slicer replaces the subject hierarchy at will."""
    nodes = slicer.util.getNodesByClass("vtkMRMLNode")
    return {node.GetID() for node in nodes if not node.IsA("vtkMRMLSubjectHierarchyNode")}


def fake_worker(folder, monkeypatch, text):
    """A worker that does what ``text`` (Python) says instead of EMIM; ``arguments`` is what it is given."""
    path = folder / "fake worker"
    given = "arguments = json.loads(os.environ.get('EMIM_ARGUMENTS', 'null')) or sys.argv[3:]"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{given}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("EMIM_PYTHON", str(path))
