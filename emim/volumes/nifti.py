"""The voxels of a NIfTI file, each read once and none made up.

ITK's reader fills what a truncated file lacks with zeros, replaces NaN and infinity by zero, and says
nothing. Here the whole file is unpacked, which verifies its checksum, straight into the array: no slower
than checking alone. The header is that of NIfTI-1: https://nifti.nimh.nih.gov/nifti-1
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER = 348  # bytes
NIFTI_2 = "of NIfTI version 2, which is not supported"
GZIP_RATIO = 1032  # no file packs better: deflate needs two bits for 258 bytes
VERSION_2 = 540  # the same number in a file of NIfTI-2, which ITK does not read
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


class DamagedFile(ValueError):
    """A file that does not hold what its header promises; the text says how."""


@dataclass(frozen=True)
class _Layout:
    """Where the voxels of a file are and what they mean: ``value = slope * stored + intercept``."""

    shape: tuple[int, ...]
    kind: np.dtype | None
    offset: int
    slope: float
    intercept: float

    @classmethod
    def read(cls, header: bytes) -> _Layout:
        order = "<" if header[:4] == HEADER.to_bytes(4, "little") else ">"

        def number(kind: str, at: int, count: int = 1) -> np.ndarray:
            return np.frombuffer(header, order + kind, count, at)

        try:
            dim, code = number("i2", 40, 8), number("i2", 70)
            offset, scaling = number("f4", 108), number("f4", 112, 2)
        except ValueError as error:
            raise DamagedFile("the file ends within its header") from error
        if not HEADER <= offset[0] < 2**31:  # NaN neither
            raise DamagedFile("its header does not say where the voxels begin (vox_offset)")
        kind = _TYPES.get(int(code[0]))
        slope, intercept = (float(x) if np.isfinite(x) else 0.0 for x in scaling)
        return cls(
            tuple(int(n) for n in dim[int(dim[0]) : 0 : -1]),
            np.dtype(order + kind) if kind else None,
            int(offset[0]),
            slope or 1.0,
            intercept,
        )

    def check(self, room: int) -> None:
        """Refuse a size that is none, or voxels of more than ``room`` bytes."""
        if min(self.shape, default=0) < 1:
            size = " x ".join(map(str, reversed(self.shape)))
            raise DamagedFile(f"its header gives an impossible size ({size})")
        promised = math.prod(self.shape) * self.kind.itemsize
        if promised > room:
            raise DamagedFile(
                f"the file is damaged or incomplete: it has no room for the {promised} bytes of voxels "
                "that its header promises"
            )


def is_nifti(path: str | Path) -> bool:
    """Whether the file's name ends as that of a NIfTI file that holds header and voxels."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def is_version_2(path: str | Path) -> bool:
    """Whether a file that ITK cannot read is one of NIfTI-2."""
    if not is_nifti(path):
        return False
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            start = stream.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return VERSION_2 in (int.from_bytes(start, order) for order in ("little", "big"))


def read_nifti(path: str | Path) -> np.ndarray | None:
    """The voxels (…, Z, Y, X) of a NIfTI file, in its own type; float32 where the header scales integers.

    None where a voxel is not one real number of at most 64 bits (colour, complex).

    Raises:
        DamagedFile: when the file is cut short, its checksum is wrong or its header promises more than it
            can hold.
        OSError: when it cannot be read.
    """
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        length = raw.seek(0, os.SEEK_END)
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            layout = _Layout.read(stream.read(HEADER))
            if layout.kind is None:
                return None
            layout.check((length * GZIP_RATIO if packed else length) - layout.offset)
            stream.seek(layout.offset)
            array = np.empty(layout.shape, layout.kind)
            found = stream.readinto(array.reshape(-1).view(np.uint8))
            while stream.read(1 << 20):  # to the end, where the checksum is
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedFile(f"the file is damaged or incomplete ({error})") from error
    if found < array.nbytes:
        raise DamagedFile(f"the file is incomplete: {found} of {array.nbytes} bytes of voxels")
    return _scaled(array.astype(array.dtype.newbyteorder("="), copy=False), layout)


def _scaled(array: np.ndarray, layout: _Layout) -> np.ndarray:
    if layout.slope == 1 and layout.intercept == 0:
        return array
    out = np.empty(array.shape, np.float64 if array.dtype == np.float64 else np.float32)
    for plane, stored in zip(out, array, strict=True):  # in double precision, as ITK does
        plane[...] = stored * np.float64(layout.slope) + layout.intercept
    return out
