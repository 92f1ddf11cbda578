"""Reading image files, with every reason to refuse one said in words."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emim.errors import EmimError
from emim.volumes.grid import Grid
from emim.volumes.nifti import NIFTI_2, DamagedFile, is_nifti, is_version_2, read_nifti

if TYPE_CHECKING:
    import SimpleITK as sitk


# To find the format of a file ITK asks one reader after the other, and those of HDF5 and MetaImage, for two,
# crash or hang when two threads ask at once (SimpleITK issue 74, pull request 2713).
_ONE_THREAD = threading.Lock()
# Labels stored as scaled integers come back a little beside whole numbers.
NEARLY_WHOLE = 1e-3
RIGHT_ANGLE = 1e-3  # how far the cosine between two axes may be from 0


@dataclass(frozen=True)
class Header:
    """What a file says about its image, read without the voxels.

    Attributes:
        grid: size, spacing, origin and direction (ITK, LPS).
        pixel_type: ITK's name, such as "16-bit signed integer".
    """

    grid: Grid
    pixel_type: str


def open_image(path: str | Path) -> sitk.ImageFileReader:
    """A reader that has read the header of ``path``; safe in several threads.

    Raises:
        RuntimeError: ITK's, when it cannot be read.
    """
    import SimpleITK as sitk

    with _ONE_THREAD:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    return reader


def read_pixels(reader: sitk.ImageFileReader, path: str | Path) -> np.ndarray:
    """The voxels (Z, Y, X) of a reader from :func:`open_image`, in the type of the file.

    Raises:
        DamagedFile: when a NIfTI file is cut off or does not unpack to what its header says.
        RuntimeError: ITK's, when another format cannot be read.
    """
    import SimpleITK as sitk

    if is_nifti(path) and (array := read_nifti(path)) is not None:
        return array
    with _ONE_THREAD:
        return sitk.GetArrayFromImage(reader.Execute())


def read_header(path: str | Path) -> Header:
    """Read size, geometry and voxel type of a 3-D image.

    Raises:
        EmimError: when the file is missing, unreadable, not one 3-D image of numbers, or sheared.
    """
    reader = _open(path)
    return Header(_grid(reader, path), _pixel_type(reader))


def read_image(path: str | Path) -> sitk.Image:
    """Read a 3-D image as 32-bit float, its geometry exactly as in the file.

    Raises:
        EmimError: as :func:`read_volume`.
    """
    array, grid = read_volume(path)
    return grid.to_image(array)


def read_volume(path: str | Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D image: its voxels (Z, Y, X), float32, and its grid.

    Raises:
        EmimError: as :func:`read_stored`.
    """
    voxels, grid = read_stored(path)
    return voxels.astype(np.float32, copy=False), grid


def read_stored(path: str | Path) -> tuple[np.ndarray, Grid]:
    """As :func:`read_volume`, but the voxels in the type of the file, which may need half the memory.

    Raises:
        EmimError: as :func:`read_header`; also for NaN or infinite voxels and for a constant image.
    """
    voxels, grid = _read(path)
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite(low + high):
        count = int(np.count_nonzero(~np.isfinite(voxels)))
        raise EmimError(
            f"{count:,} voxels of the image are NaN or infinite.",
            path,
            "Replace them (numpy.nan_to_num), or repeat the step that wrote the file.",
        )
    if low == high:
        raise EmimError(
            f"The image is empty: every voxel is {low:g}.", path, "Leave it out or export it again."
        )
    return voxels, grid


def read_label(path: str | Path) -> sitk.Image:
    """Read a 3-D label map as 16-bit integer; it may be empty (all 0).

    Raises:
        EmimError: as :func:`read_label_volume`.
    """
    array, grid = read_label_volume(path)
    return grid.to_image(array)


def read_label_volume(path: str | Path) -> tuple[np.ndarray, Grid]:
    """Read a 3-D label map: its voxels (Z, Y, X), int16, and its grid.

    Raises:
        EmimError: as :func:`read_header`; also for values that are not integers of 16 bits.
    """
    voxels, grid = _read(path)
    most = np.iinfo(np.int16).max
    wrong = ~((voxels >= -most) & (voxels <= most))  # NaN too
    if voxels.dtype.kind == "f":
        whole = np.rint(voxels)
        wrong |= np.abs(voxels - whole) > NEARLY_WHOLE
    if wrong.any():
        raise EmimError(
            f"A label map holds whole numbers, but this file holds {voxels[wrong][0]:g}.",
            path,
            "If it is an image, name it as one; if labels were interpolated, repeat that with nearest.",
        )
    return (whole if voxels.dtype.kind == "f" else voxels).astype(np.int16, copy=False), grid


def _read(path: str | Path) -> tuple[np.ndarray, Grid]:
    """Voxels (Z, Y, X), in the type of the file, and grid."""
    reader = _open(path)
    grid = _grid(reader, path)
    size = reader.GetSize()
    if len(size) == 4:  # a single volume stored as a series of one
        reader.SetExtractSize((*size[:3], 0))
    try:
        return read_pixels(reader, path).reshape(grid.shape), grid
    except DamagedFile as error:
        raise EmimError(
            f"The voxels cannot be used: {error}.",
            path,
            "Copy or export the file again, and compare sizes.",
        ) from error
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _open(path: str | Path) -> sitk.ImageFileReader:
    """A reader that has read the header and found one 3-D scalar image."""
    if not Path(path).is_file():
        raise EmimError("There is no such file.", path, "Check the path; a folder of DICOM needs conversion.")
    try:
        reader = open_image(path)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    size = reader.GetSize()
    if len(size) not in (3, 4) or any(n != 1 for n in size[3:]):
        raise EmimError(
            f"The image is not a 3-D volume: its size is {' x '.join(map(str, size))}.",
            path,
            "Give one volume per file; split a series first.",
        )
    if reader.GetNumberOfComponents() != 1 or "complex" in _pixel_type(reader):
        raise EmimError(
            f"Each voxel holds {reader.GetNumberOfComponents()} numbers ({_pixel_type(reader)}), not one.",
            path,
            "Give a grey-value volume; split colour, vector or complex images first.",
        )
    return reader


def _pixel_type(reader: sitk.ImageFileReader) -> str:
    import SimpleITK as sitk

    return sitk.GetPixelIDValueAsString(reader.GetPixelID())


def _grid(reader: sitk.ImageFileReader, path: str | Path) -> Grid:
    direction = np.reshape(reader.GetDirection(), (len(reader.GetSize()),) * 2)[:3, :3]
    grid = Grid(
        reader.GetSize()[:3],
        reader.GetSpacing()[:3],
        reader.GetOrigin()[:3],
        tuple(float(x) for x in direction.ravel()),
    )
    if not np.isfinite(grid.index_to_mm).all() or abs(np.linalg.det(grid.index_to_mm)) < 1e-9:
        raise EmimError("The header gives no usable spacing and directions.", path, "Export the image again.")
    if is_sheared(reader, grid):
        raise _sheared(path)
    return grid


def is_sheared(reader: sitk.ImageFileReader, grid: Grid) -> bool:
    """Whether the axes that a header gives are not at right angles; ``grid`` is what ITK makes of it."""
    direction = np.reshape(grid.direction, (3, 3))
    if np.abs(direction.T @ direction - np.eye(3)).max() > RIGHT_ANGLE:
        return True
    # With a sheared sform ITK silently takes the qform, which other programs ignore.
    if not (reader.HasMetaDataKey("srow_x") and reader.GetMetaData("sform_code").strip() not in ("", "0")):
        return False
    rows = [[float(x) for x in reader.GetMetaData(f"srow_{axis}").split()] for axis in "xyz"]
    affine = np.array(rows) * [[-1], [-1], [1]]  # RAS to LPS
    apart = grid.index(grid.corners() @ affine[:, :3].T + affine[:, 3]) - grid.corners()
    columns = affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
    return np.abs(apart).max() > 0.5 and np.abs(columns.T @ columns - np.eye(3)).max() > RIGHT_ANGLE


def _unreadable(path: str | Path, error: RuntimeError) -> EmimError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("orthonormal" in line for line in lines):
        return _sheared(path)
    if is_version_2(path):
        return EmimError(f"The image is {NIFTI_2}.", path, "Convert it to NIfTI-1, e.g. with nibabel.")
    reason = lines[-1].removeprefix("ITK ERROR:").strip() if lines else "no reason given"
    return EmimError(
        f"The image cannot be read: {reason}",
        path,
        "EMIM reads NIfTI, NRRD and MetaImage; if this is one, the file is damaged: export it again.",
    )


def _sheared(path: str | Path) -> EmimError:
    return EmimError(
        "The header describes a sheared grid (axes not at right angles), which ITK cannot hold.",
        path,
        "Resample it to a right-angled grid first, e.g. with nibabel.processing.conform, or in 3D Slicer "
        "with Resample Scalar/Vector/DWI Volume. If it is only rounding, set the sform from the qform.",
    )
