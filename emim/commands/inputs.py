"""Image files given by the name of their modality: ``FLAIR=a.nii.gz``."""

from __future__ import annotations

from collections.abc import Iterable

from emim.errors import EmimError


def parse_inputs(texts: Iterable[str]) -> dict[str, str]:
    """Modality to file.

    Raises:
        EmimError: for a text that is not MODALITY=FILE, or a modality given twice.
    """
    files: dict[str, str] = {}
    for text in texts:
        name, separator, file = text.partition("=")
        if not separator or not name or not file:
            raise EmimError(f"{text!r} is not an input.", hint="Write MODALITY=FILE, such as FLAIR=a.nii.gz.")
        if name in files:
            raise EmimError(f"The modality {name} is given twice.", hint="Give one file for each.")
        files[name] = file
    return files
