"""Which volume each slice view shows. Works without a window, on the nodes of the views alone."""

from __future__ import annotations

from typing import Any

import slicer

VIEWS = ("Red", "Yellow", "Green")
ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def showInView(view: str, background: Any, label: Any = None, foreground: Any = None) -> None:
    """Show these volumes, and no others, in the slice view of that name; None: none."""
    composite = compositeNode(view)
    if composite is None:  # a layout of the user's without it
        return
    composite.SetBackgroundVolumeID(_id(background))
    composite.SetForegroundVolumeID(_id(foreground))
    composite.SetLabelVolumeID(_id(label))


def setOrientation(view: str, orientation: str) -> None:
    """Turn the slice view to one of "Axial", "Sagittal", "Coronal"."""
    node = sliceNode(view)
    if node is not None:
        node.SetOrientation(orientation)


def setLinked(linked: bool) -> None:
    """Let the slice views move together, or each for itself."""
    for view in VIEWS:
        composite = compositeNode(view)
        if composite is not None:
            composite.SetLinkedControl(linked)
            composite.SetHotLinkedControl(linked)


def fit(volume: Any) -> None:
    """Centre every slice view on the volume, and scale it to fit."""
    application = slicer.app.applicationLogic()
    for view in VIEWS:
        node = sliceNode(view)
        logic = application.GetSliceLogic(node) if node is not None else None
        if logic is not None:
            logic.FitSliceToBackground()
            logic.SnapSliceOffsetToIJK()
        elif node is not None:
            bounds = [0.0] * 6
            volume.GetRASBounds(bounds)
            node.JumpSliceByCentering(*[(bounds[2 * i] + bounds[2 * i + 1]) / 2 for i in range(3)])


def compositeNode(view: str) -> Any:
    return slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode")


def sliceNode(view: str) -> Any:
    return slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceNode")


def _id(node: Any) -> str | None:
    return node.GetID() if node is not None else None
