"""Volumes that EMIM has made, which are no patient's images."""

from __future__ import annotations

STRUCTURE = "EMIM.Structure"  # attribute of a probability map
PREVIEW = "EMIM.preview"  # attribute of a volume in which EMIM Pretrain shows a case


def isResult(volume) -> bool:
    """Whether EMIM made this volume, so that it is no patient's image."""
    return any(volume.GetAttribute(name) is not None for name in (STRUCTURE, PREVIEW))
