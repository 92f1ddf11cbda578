"""Volumes that EMIM has put into the scene."""

from __future__ import annotations

STRUCTURE = "EMIM.Structure"  # attribute of a probability map
PREVIEW = "EMIM.preview"  # attribute of a volume in which EMIM Pretrain shows a case
REVIEW = "EMIM.Review"  # attribute of a node that EMIM Segment loaded to show a case of a batch


def isResult(volume) -> bool:
    """Whether EMIM made this volume, so that it is no patient's image."""
    return any(volume.GetAttribute(name) is not None for name in (STRUCTURE, PREVIEW))
