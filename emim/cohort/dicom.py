"""Telling DICOM files, whose names often have no ending, from others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

ENDINGS = (".dcm", ".ima")
LOOKED_INTO = 32  # files, so that a large folder is no slower
# An ending that tells what a file is; that of 1.2.840.113619 does not.
_WORD = re.compile(r"\.[a-z]\w*", re.I)


def is_dicom_name(name: str) -> bool:
    """Whether the name of a file tells that it is DICOM."""
    return name.lower().endswith(ENDINGS) or name.upper() == "DICOMDIR"


def find_dicom(files: Sequence[str]) -> str | None:
    """One of ``files`` that is DICOM, by its name or, of a few whose names tell nothing, by its content."""
    if named := next((f for f in files if is_dicom_name(Path(f).name)), None):
        return named
    nameless = [f for f in files if not _WORD.fullmatch(Path(f).suffix) and not Path(f).name.startswith(".")]
    of_each_folder = list({Path(f).parent: f for f in reversed(nameless)}.values())[::-1]
    return next((f for f in [*of_each_folder, *nameless][:LOOKED_INTO] if _is_dicom(f)), None)


def _is_dicom(file: str) -> bool:
    """Whether the file begins as DICOM files do: 128 bytes of anything, then DICM."""
    try:
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False
