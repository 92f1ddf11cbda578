"""Writing a volume to a file, its parent transforms applied.

The files of one run are all in the coordinates of one *frame*: the world, as the user sees it. Only when
the reference volume itself lies under a transform that bends or shears, which no image file can express
on the volume's own grid, the frame is that transform: the reference is then written as it is, and the
others are brought to it. Voxels are interpolated only under transforms that bend or shear. What bends by less
than a tenth of a voxel, as that by which Slicer corrects the slices of a DICOM series often does, counts
as linear.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from EMIMLib import EmimError

SHEAR = 1e-3  # largest cosine between axes that counts as rounding; image files hold no sheared grid
BEND = 0.1  # of the smallest voxel side: what moves voxels by less beside a linear transform is none
LATTICE = 9  # points along the rows and columns of each slice at which a non-linear transform is sampled
GROWTH = 8  # a transform that makes a volume larger than this, in voxels, is taken for broken


def frameOf(reference) -> tuple[object | None, np.ndarray]:
    """The frame for a run whose result is to have the grid of ``reference``.

    Returns the transform node that is the frame (None: the world), and the matrix (4, 4) from the frame
    to the coordinates that the reference has without its parent transform, RAS mm.
    """
    parent = reference.GetParentTransformNode()
    toWorld = matrixToWorld(reference, parent)
    if toWorld is not None and hasRightAngles(toWorld @ gridOf(reference)):
        return None, np.linalg.inv(toWorld)
    return parent, np.eye(4)


def matrixToWorld(volume, parent) -> np.ndarray | None:
    """What the transform node ``parent`` (None: none) does to ``volume``, as a matrix (4, 4), RAS mm.

    None where it bends the volume.
    """
    return _matrix(volume, _transform(parent, None), parent, None)


def sizeChange(reference) -> float:
    """The largest share by which the frame of ``reference`` makes sizes other than they are in the world.

    That is |det J - 1| between neighbouring points of the volume; 0 where the frame is the world.

    Raises:
        EmimError: when the transform tears the volume apart.
    """
    frame, _toReference = frameOf(reference)
    if frame is None:
        return 0.0
    axes = _latticeAxes(reference)
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    ijkToRAS = gridOf(reference)
    points = index @ ijkToRAS[:3, :3].T + ijkToRAS[:3, 3]
    moved = _moved(_transform(frame, None), points.reshape(-1, 3)).reshape(points.shape)
    if not np.isfinite(moved).all():
        raise _torn(reference)
    before, after = (np.linalg.det(_edges(x)) for x in (points, moved))
    return float(np.abs(after / before - 1).max())


def exportVolume(volume, path: Path, frame=None, parent="own") -> None:
    """Write ``volume`` as NRRD, in the coordinates of ``frame``.

    Args:
        frame: transform node whose local coordinates the file is in; None: world.
        parent: transform to take as the volume's parent; its own unless given.

    Raises:
        EmimError: when the transform cannot be applied or the file cannot be written.
    """
    parent = volume.GetParentTransformNode() if parent == "own" else parent
    transform = _transform(parent, frame)
    matrix = _matrix(volume, transform, parent, frame)
    image, ijkToFrame = volume.GetImageData(), gridOf(volume)
    if matrix is not None:
        ijkToFrame = matrix @ ijkToFrame
    if matrix is None or not hasRightAngles(ijkToFrame):
        image, ijkToFrame = _resampled(volume, transform)
    _write(image, ijkToFrame, path, volume.GetName())


def gridOf(volume) -> np.ndarray:
    """IJK to RAS of a volume, (4, 4), its parent transform aside."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def isSheared(volume) -> bool:
    """Whether the axes of the volume's own grid are not at right angles."""
    return not hasRightAngles(gridOf(volume))


def hasRightAngles(ijkToRAS: np.ndarray) -> bool:
    """Whether the axes of a grid (4, 4) are at right angles, as image files demand."""
    axes = ijkToRAS[:3, :3] / np.linalg.norm(ijkToRAS[:3, :3], axis=0)
    return np.allclose(axes.T @ axes, np.eye(3), atol=SHEAR)


def _transform(source, target) -> vtk.vtkGeneralTransform:
    """From the coordinates of one transform node to those of another; None is the world."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def _matrix(volume, transform, source, target) -> np.ndarray | None:
    """The transform between two nodes as a matrix (4, 4), or None when it bends the volume."""
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(transform):
        return _nearlyLinear(volume, transform)
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _nearlyLinear(volume, transform) -> np.ndarray | None:
    """The matrix (4, 4) from which a transform differs by no more than BEND; None where there is none."""
    if volume.GetImageData() is None:
        return None
    index, ijkToRAS = _lattice(volume), gridOf(volume)
    points = np.c_[index @ ijkToRAS[:3, :3].T + ijkToRAS[:3, 3], np.ones(len(index))]
    moved = _moved(transform, points[:, :3])
    if not np.isfinite(moved).all():
        return None
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(points, moved, rcond=None)[0].T
    off = np.linalg.norm(points @ matrix[:3].T - moved, axis=1).max()
    return matrix if off <= BEND * min(volume.GetSpacing()) else None


def _latticeAxes(volume) -> list[np.ndarray]:
    """IJK at which a transform is sampled: every slice, as single ones may be out of place, and the ends."""
    *plane, slices = volume.GetImageData().GetDimensions()
    axes = [np.linspace(-0.5, n - 0.5, LATTICE) for n in plane]
    return [*axes, np.r_[-0.5, np.arange(slices), slices - 0.5]]


def _lattice(volume) -> np.ndarray:
    return np.stack(np.meshgrid(*_latticeAxes(volume), indexing="ij"), -1).reshape(-1, 3)


def _moved(transform, points: np.ndarray) -> np.ndarray:
    """Points (n, 3) after a transform."""
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(np.ascontiguousarray(points, float), deep=True))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData()).copy()


def _edges(points: np.ndarray) -> np.ndarray:
    """From each point of a lattice (I, J, K, 3) to the next along the three axes, as columns (…, 3, 3)."""
    first = points[:-1, :-1, :-1]
    following = points[1:, :-1, :-1], points[:-1, 1:, :-1], points[:-1, :-1, 1:]
    return np.stack([point - first for point in following], -1)


def _resampled(volume, transform) -> tuple[vtk.vtkImageData, np.ndarray]:
    """The volume's voxels and grid (IJK to RAS) after a transform that bends or shears it.

    The new grid has right angles, follows the transformed axes as closely as it can, has about the
    original spacing and holds the whole transformed volume.
    """
    image, ijkToRAS = volume.GetImageData(), gridOf(volume)
    size = np.array(image.GetDimensions())
    index = _lattice(volume)
    moved = _moved(transform, index @ ijkToRAS[:3, :3].T + ijkToRAS[:3, 3])
    if not np.isfinite(moved).all():
        raise _torn(volume)
    affine = np.linalg.lstsq(np.c_[index, np.ones(len(index))], moved, rcond=None)[0][:3].T
    spacing = np.linalg.norm(affine, axis=0)
    u, _scales, v = np.linalg.svd(affine / spacing)
    axes = (u @ v) * spacing  # the nearest grid with right angles
    inAxes = moved @ np.linalg.inv(axes).T
    low, high = inAxes.min(0), inAxes.max(0)
    count = np.ceil(high - low - 1e-6).astype(int)
    if np.prod(count, dtype=float) > GROWTH * np.prod(size, dtype=float):
        raise _torn(volume)
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = axes, axes @ (low + 0.5)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceTransform(_indexTransform(grid, transform, ijkToRAS))
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent(0, int(count[0]) - 1, 0, int(count[1]) - 1, 0, int(count[2]) - 1)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(image.GetScalarRange()[0])
    reslice.Update()
    return reslice.GetOutput(), grid


def _torn(volume) -> EmimError:
    return EmimError(
        _("The transform of the volume tears it apart."),
        volume.GetName(),
        _("Check the transform above it in the Transforms module, or remove it."),
    )


def _indexTransform(grid: np.ndarray, transform, ijkToRAS: np.ndarray) -> vtk.vtkGeneralTransform:
    """From voxel indices of ``grid`` back through ``transform`` to those of the original."""
    back = vtk.vtkGeneralTransform()
    back.PostMultiply()
    back.Concatenate(slicer.util.vtkMatrixFromArray(grid))
    back.Concatenate(transform.GetInverse())
    back.Concatenate(slicer.util.vtkMatrixFromArray(np.linalg.inv(ijkToRAS)))
    return back


def _write(image, ijkToRAS: np.ndarray, path: Path, name: str) -> None:
    # A node outside the scene: no event, no storage node that would stay, nothing of the user's changes.
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijkToRAS))
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(path))
    storage.SetUseCompression(False)
    voxels = image.GetNumberOfPoints() * image.GetScalarSize()
    if not storage.WriteData(node) or not path.is_file() or path.stat().st_size < voxels:
        raise EmimError(
            _("The volume “{volume}” could not be written.").format(volume=name),
            path,
            _("Check its free space and rights; the folder of temporary files is an application setting."),
        )
