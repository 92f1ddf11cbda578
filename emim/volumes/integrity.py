"""What SimpleITK does not tell about a NIfTI file: that it is cut short, or holds NaN or infinity."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

BLOCK = 1 << 22  # bytes read at a time; a multiple of every voxel's size
_FLOATS = {16: "f4", 64: "f8"}  # NIfTI's codes of data types


def nifti_problem(path: str | Path) -> str | None:
    """What is wrong with the voxels of a NIfTI file (``.nii``, ``.nii.gz``), or None.

    ITK's reader fills what a truncated file lacks with zeros, replaces NaN and infinity by zero, and
    says nothing. Reading a compressed file whole verifies its checksum as well.
    """
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    length = not_finite = 0
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            offset, expected, kind = _voxels(stream.read(352))
            stream.seek(offset)
            while block := stream.read(BLOCK):
                length += len(block)
                if kind:
                    values = np.frombuffer(block[: len(block) // kind.itemsize * kind.itemsize], kind)
                    not_finite += values.size - int(np.count_nonzero(np.isfinite(values)))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"the file is damaged or incomplete ({error})"
    if length < expected:
        return f"the file is incomplete: {length} of {expected} bytes of voxels"
    return f"{not_finite} voxels are NaN or infinite" if not_finite else None


def _voxels(header: bytes) -> tuple[int, int, np.dtype | None]:
    """First byte and number of bytes of the voxels, and their type where it is a floating one.

    The header is that of NIfTI version 1 or 2: https://nifti.nimh.nih.gov
    """
    little = header[:4] in ((348).to_bytes(4, "little"), (540).to_bytes(4, "little"))
    order = "<" if little else ">"

    def number(kind: str, at: int, count: int = 1) -> np.ndarray:
        return np.frombuffer(header, order + kind, count, at)

    if int(number("i4", 0)[0]) == 540:
        dim, code, bits, offset = number("i8", 16, 8), number("i2", 12), number("i2", 14), number("i8", 168)
    else:
        dim, code, bits, offset = number("i2", 40, 8), number("i2", 70), number("i2", 72), number("f4", 108)
    count = int(np.prod(dim[1 : 1 + int(dim[0])], dtype=np.int64))
    kind = _FLOATS.get(int(code[0]))
    return int(offset[0]), count * int(bits[0]) // 8, np.dtype(order + kind) if kind else None
