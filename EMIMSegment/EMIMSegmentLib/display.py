"""Showing a result in the slice views and in 3-D. Without a window nothing is shown and nothing fails."""

from __future__ import annotations

import slicer

from EMIMLib.segmentation_position import bestPosition, jumpTo
from EMIMSegmentLib.result_nodes import probabilityVolumes, referenceVolume

SURFACE = "Closed surface"  # MRML's name of the representation


def showResult(segmentation, reference=None, opacity: float = 0.5, surface: bool = True) -> None:
    """Show ``segmentation`` over its reference volume, the views where its largest structure shows most.

    Args:
        reference: volume node; None: the segmentation's own.
        opacity: of the filling in the slice views, 0 to 1.
        surface: show it in the 3-D views, too.
    """
    reference = reference or referenceVolume(segmentation)
    segmentation.CreateDefaultDisplayNodes()
    display = segmentation.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetVisibility(True)
        display.SetVisibility2DFill(True)
        display.SetVisibility2DOutline(True)
        display.SetOpacity2DFill(opacity)
        display.SetOpacity2DOutline(1.0)
    showSurface(segmentation, surface)
    if reference is not None:
        _setLayers(background=reference, foreground=None)
    position = bestPosition(segmentation)
    if position is not None:
        jumpTo(position)
    if surface:
        _fitThreeD()


def showVolume(volume) -> None:
    """Show a volume alone in the slice views."""
    _setLayers(background=volume, foreground=None)


def showSurface(segmentation, shown: bool) -> None:
    """Make the 3-D surface, or remove it, which also spares the time to update it."""
    display = segmentation.GetDisplayNode()
    if shown:
        segmentation.CreateClosedSurfaceRepresentation()
        display.SetPreferredDisplayRepresentationName3D(SURFACE)
    else:
        segmentation.RemoveClosedSurfaceRepresentation()
    display.SetVisibility3D(shown)


def showProbability(segmentation, structure: str | None, opacity: float = 0.5) -> None:
    """Show the probability of a structure in the slice views; None: of none."""
    volume = probabilityVolumes(segmentation).get(structure) if structure else None
    slicer.util.setSliceViewerLayers(foreground=volume, foregroundOpacity=opacity if volume else 0.0)


def showAlignment(reference, moving) -> None:
    """Show two volumes half over each other, to see whether they match."""
    _setLayers(background=reference, foreground=moving)
    slicer.util.setSliceViewerLayers(foregroundOpacity=0.5)


def _setLayers(background, foreground) -> None:
    manager = _layoutManager()
    # The views are turned to the volume's own planes, or an oblique one would be shown cut across. A bent one
    # has none, which Slicer would report as an error.
    parent = background.GetParentTransformNode() if background is not None else None
    bent = parent is not None and not parent.IsTransformToWorldLinear()
    slicer.util.setSliceViewerLayers(
        background=background,
        foreground=foreground,
        fit=manager is not None,
        rotateToVolumePlane=manager is not None and not bent,
    )


def _fitThreeD() -> None:
    manager = _layoutManager()
    if manager is None:
        return
    layouts = slicer.vtkMRMLLayoutNode
    if manager.layout == layouts.SlicerLayoutFourUpPlotView:  # EMIM Pretrain leaves it, without a 3-D view
        manager.setLayout(layouts.SlicerLayoutFourUpView)
    for i in range(manager.threeDViewCount):
        view = manager.threeDWidget(i).threeDView()
        view.resetFocalPoint()
        view.resetCamera()


def _layoutManager():
    app = getattr(slicer, "app", None)
    return app.layoutManager() if app is not None else None
