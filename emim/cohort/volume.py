"""What one image or label file holds, found by reading all of it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from emim.errors import EmimError
from emim.volumes.grid import Grid
from emim.volumes.io import NEARLY_WHOLE, is_sheared, open_image, read_pixels
from emim.volumes.nifti import NIFTI_2, DamagedFile, is_version_2
from emim.volumes.segments import Segment, contradiction, read_segments

MAX_LABEL_VALUES = 256
SATURATED = 1e-6  # share of voxels at the largest value
DIGEST = "float32:"  # how digests begin; earlier ones were of the voxels as stored, and have no beginning
BLOCK = 1 << 20  # voxels


@dataclass(frozen=True)
class VolumeFacts:
    """One file. Geometry is ITK's: LPS, mm, axes i, j, k. Everything is None where it could not be read.

    Attributes:
        size, spacing, origin, direction: the grid; ``direction`` row by row.
        orientation: anatomical directions that i, j, k run towards, ``LPS``; the nearest ones if oblique.
        range: lowest and highest finite value.
        values: label files: the values other than 0, as stored; None for images.
        segments: label files: the segments that the header names; None for images, and where not looked for.
        content: lower and upper corner (LPS, mm) of the box around all that differs from the
            background, which is the value of the first voxel; None when nothing differs.
        digest: of size and voxels, as 32-bit floats; equal for equal images, however they are stored.
        problems, notes: what forbids the file's use, and what a person should know.
        stamp: length and time of last change of the file, by which a later scan knows it again.
    """

    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    orientation: str | None = None
    range: tuple[float, float] | None = None
    values: tuple[int, ...] | None = None
    segments: tuple[Segment, ...] | None = None
    content: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    digest: str | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stamp: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> VolumeFacts:
        """The facts that :meth:`to_dict` wrote; JSON has turned their tuples into lists."""
        known = {f.name for f in fields(VolumeFacts)}
        facts = VolumeFacts(**{k: _tuples(v) for k, v in data.items() if k in known})
        if not facts.segments:
            return facts
        return replace(facts, segments=tuple(Segment.from_dict(s) for s in facts.segments))

    @property
    def outdated(self) -> bool:
        """Whether an earlier version read the voxels, whose digests compare with none of today's."""
        return not self.problems if self.digest is None else not self.digest.startswith(DIGEST)

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (LPS, mm) of the box around the whole grid."""
        return self._box_of(np.zeros(3), np.array(self.size) - 1.0)

    def same_grid(self, other: VolumeFacts) -> bool:
        """Whether both have the same voxels in space, to within a hundredth of a voxel."""
        if self.size != other.size:
            return False
        corners = [np.array(c) for c in ((0, 0, 0), self.size)]
        return all(
            np.abs(self._to_world(c) - other._to_world(c)).max() < 0.01 * min(self.spacing) for c in corners
        ) and np.allclose(self.direction, other.direction, atol=1e-3)

    def _to_world(self, index: np.ndarray) -> np.ndarray:
        return np.array(self.origin) + np.array(self.direction).reshape(3, 3) @ (
            index * np.array(self.spacing)
        )

    def _box_of(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = np.stack([first - 0.5, last + 0.5])
        corners = [
            self._to_world(np.array([ends[a, 0], ends[b, 1], ends[c, 2]])) for a, b, c in np.ndindex(2, 2, 2)
        ]
        return np.min(corners, axis=0), np.max(corners, axis=0)


def file_stamp(path: str | Path) -> tuple[int, int] | None:
    """Length in bytes and time of last change in ns of a file, or None where there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def may_be_same(first: str | None, second: str | None) -> bool:
    """Whether two digests can be of the same voxels; nothing tells when one is of the earlier kind."""
    if first is None or second is None:
        return first == second
    return first == second or first.startswith(DIGEST) != second.startswith(DIGEST)


def inspect(path: str | Path, label: bool = False) -> VolumeFacts:
    """Read the file ``path`` and say what it holds; what is wrong goes into ``problems``."""
    stamp = file_stamp(path)
    if stamp is None:
        return VolumeFacts(problems=("the file does not exist",))
    if stamp[0] == 0:
        return VolumeFacts(problems=("the file is empty (0 bytes)",), stamp=stamp)
    try:
        reader = open_image(path)
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        layers = components if components > 1 else size[3] if len(size) == 4 else 1
        segments = read_segments(reader, layers, path) if label else None
        shape = _layers_problem(reader, layers, segments) or _shape_problem(size, components)
        if shape:
            return VolumeFacts(size=tuple(size), segments=segments, problems=(shape,), stamp=stamp)
        array = read_pixels(reader, path)
        return _facts(reader, array.reshape(size[::-1]), segments, stamp)
    except EmimError as error:
        return VolumeFacts(size=tuple(size), problems=(f"{error.what} {error.hint}",), stamp=stamp)
    except DamagedFile as error:
        return VolumeFacts(size=tuple(size), problems=(str(error),), stamp=stamp)
    except OSError as error:  # a disk or a network drive that fails; the others can be read
        return VolumeFacts(problems=(f"it cannot be read: {error.strerror or error}",), stamp=stamp)
    except MemoryError:
        return VolumeFacts(problems=("there is not enough memory to read it",), stamp=stamp)
    except RuntimeError as error:
        why = f"it is {NIFTI_2}" if is_version_2(path) else _plain(str(error))
        return VolumeFacts(problems=(why,), stamp=stamp)


def _facts(
    image: Any, array: np.ndarray, segments: tuple[Segment, ...] | None, stamp: tuple[int, int]
) -> VolumeFacts:
    """What ``array`` (Z, Y, X) is, on the grid of ``image`` (of ITK); ``segments`` is None for images."""
    import SimpleITK as sitk

    problems, notes = [], []
    if is_sheared(image, Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())):
        problems.append("its axes are not at right angles (sheared grid)")
    grid = VolumeFacts(
        size=image.GetSize(),
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )
    if np.issubdtype(array.dtype, np.floating):
        finite = np.isfinite(array)
        bad = array.size - int(np.count_nonzero(finite))
        if bad:
            problems.append(f"{bad} voxels are NaN or infinite")
            array = array[finite] if bad < array.size else None
    if array is None:
        return VolumeFacts(**{**grid.__dict__, "problems": tuple(problems), "stamp": stamp})
    low, high = float(array.min()), float(array.max())
    values = content = None
    if segments is not None:
        values, problem = _label_values(array, low, high)
        problem = problem or _segments_problem(segments, values)
        problems += [problem] if problem else []
        notes += ["the label is empty (no voxel differs from 0)"] if values == () else []
    elif low == high:
        problems.append(f"the image is empty (every voxel is {low:g})")
    elif array.ndim == 3:
        notes += _saturation(array, high)
        content = _content_box(grid, array)
    codes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    return VolumeFacts(
        **{
            **grid.__dict__,
            "orientation": codes,
            "range": (low, high),
            "values": values,
            "segments": segments,
            "content": content,
            "digest": _digest(grid.size, array),
            "problems": tuple(problems),
            "notes": tuple(notes),
            "stamp": stamp,
        }
    )


def _digest(size: tuple[int, ...], array: np.ndarray) -> str:
    """Of the voxels as training reads them; block by block, so that no second copy of the whole is made."""
    digest = hashlib.blake2b(repr(size).encode(), digest_size=16)
    voxels = array.reshape(-1)
    with np.errstate(over="ignore"):
        for start in range(0, voxels.size, BLOCK):
            digest.update(voxels[start : start + BLOCK].astype("<f4") + np.float32(0))  # -0 becomes 0
    return DIGEST + digest.hexdigest()


def _shape_problem(size: tuple[int, ...], components: int) -> str | None:
    text = " x ".join(map(str, size))
    if components > 1:
        return f"each voxel has {components} values (a colour image or a vector field); one is needed"
    if len(size) > 3:
        return f"it is {len(size)}-D ({text}); split it into one 3-D file per modality"
    if len(size) < 3 or min(size) < 2:
        return f"it is a single slice ({text}); a volume is needed"
    return None


def _layers_problem(header: Any, layers: int, segments: tuple[Segment, ...] | None) -> str | None:
    if not segments or layers < 2:
        return None
    if not header.HasMetaDataKey("Segment0_Layer"):
        return (
            f"each of its {layers} segments is a layer of its own, as 3D Slicer wrote them before 4.11; "
            "load it in a newer one and save it again"
        )
    return (
        f"its segments overlap ({layers} layers), but a voxel of a label can have one value only; "
        "subtract them from each other in 3D Slicer (Segment Editor, Logical operators), collapse the layers "
        "(Segmentations, Binary labelmap layers) and save it again"
    )


def _segments_problem(segments: tuple[Segment, ...], values: tuple[int, ...] | None) -> str | None:
    """What is wrong with the values of named segments; ``values`` are those of the voxels."""
    if (wrong := contradiction(segments)) is not None:
        return wrong
    if segments and (stray := sorted(set(values or ()) - {s.value for s in segments})):
        return f"voxels have the values {stray}, which are none of its segments'"
    return None


def _label_values(array: np.ndarray, low: float, high: float) -> tuple[tuple[int, ...] | None, str | None]:
    if low < 0 or high > np.iinfo(np.int16).max:
        return None, f"label values reach from {low:g} to {high:g}; they must lie within 0 and 32767"
    whole = np.rint(array).astype(np.int16)
    if np.issubdtype(array.dtype, np.floating) and np.abs(whole - array).max() > NEARLY_WHOLE:
        return (
            None,
            "label values are not whole numbers (a probability map, or labels that were interpolated?)",
        )
    values = np.flatnonzero(np.bincount(whole.ravel()))
    if len(values) > MAX_LABEL_VALUES:
        return None, f"it has {len(values)} different values; is it an image instead of a label map?"
    return tuple(int(v) for v in values if v), None


def _saturation(array: np.ndarray, high: float) -> list[str]:
    """A note when many voxels sit at the largest value that the file's integers can hold."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 2 or high != np.iinfo(array.dtype).max:
        return []
    if np.count_nonzero(array == array.dtype.type(high)) < SATURATED * array.size:
        return []
    return ["intensities are cut off at the largest value of the file's type (saturated)"]


def _content_box(grid: VolumeFacts, array: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    filled = array != array[0, 0, 0]
    first, last = np.zeros(3), np.zeros(3)
    for axis in range(3):  # i, j, k; the array's axes are the reverse
        others = tuple(a for a in range(3) if a != 2 - axis)
        inside = np.flatnonzero(filled.any(axis=others))
        first[axis], last[axis] = inside[0], inside[-1]
    low, high = grid._box_of(first, last)
    return tuple(map(float, low)), tuple(map(float, high))


def _plain(message: str) -> str:
    """An error message of ITK in the words of a user."""
    if "orthonormal" in message:
        return "its axes are not at right angles (sheared grid)"
    if "Unable to determine ImageIO" in message:
        return "it cannot be read: not an image of this type, or damaged"
    if "not read completely" in message or "expected" in message:
        return "the file is damaged or incomplete"
    last = [line.strip() for line in message.splitlines() if line.strip()][-1]
    return f"it cannot be read ({re.sub(r'ITK ERROR: *|0x[0-9a-f]+', '', last)[:200]})"


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
