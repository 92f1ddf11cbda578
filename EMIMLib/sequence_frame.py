"""Volumes that show one frame of a sequence after the other (Slicer's module Sequences)."""

from __future__ import annotations

from typing import NamedTuple

import slicer


class Frame(NamedTuple):
    """The frame that a volume shows: its number, from 1, of how many, and the name of the sequence."""

    number: int
    count: int
    sequence: str


def browsers() -> list:
    """The sequence browser nodes of the scene; none where Slicer lacks the module."""
    return slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")


def sequenceFrame(volume) -> Frame | None:
    """What a volume shows now of a sequence that has several frames; None for any other volume."""
    for browser in browsers():
        sequence = browser.GetSequenceNode(volume)
        if sequence is not None and browser.GetNumberOfItems() > 1:
            number = browser.GetSelectedItemNumber() + 1
            return Frame(number, browser.GetNumberOfItems(), sequence.GetName())
    return None
