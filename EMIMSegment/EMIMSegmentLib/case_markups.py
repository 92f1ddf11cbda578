"""Rulers, points and other markups that were drawn on the images of a case."""

from __future__ import annotations

from collections.abc import Collection

import slicer

HIDDEN = "EMIM.ReviewHidden"  # attribute of a markups node that was hidden with its case


def markupsOn(volumes: Collection) -> list:
    """The markups nodes with a point that was placed, or last moved, in a slice view that showed a volume."""
    wanted = {volume.GetID() for volume in volumes}
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLMarkupsNode")
        if any(
            node.GetNthControlPointAssociatedNodeID(i) in wanted
            for i in range(node.GetNumberOfControlPoints())
        )
    ]


def hideMarkups(volumes: Collection) -> None:
    """Hide the markups on the volumes that are visible."""
    for node in markupsOn(volumes):
        if node.GetDisplayVisibility():
            node.SetDisplayVisibility(False)
            node.SetAttribute(HIDDEN, "1")


def showMarkups(volumes: Collection) -> None:
    """Show what :func:`hideMarkups` has hidden on the volumes."""
    for node in markupsOn(volumes):
        if node.GetAttribute(HIDDEN) is not None:
            node.SetDisplayVisibility(True)
            node.RemoveAttribute(HIDDEN)
