"""Whether a volume is an image that a network can take."""

from __future__ import annotations

from typing import NamedTuple

from slicer.i18n import tr as _


class VolumeProblem(NamedTuple):
    """What is wrong with a volume, and what to do.

    Attributes:
        blocking: it cannot be used; else it is a warning.
    """

    what: str
    hint: str
    blocking: bool


def volumeProblem(node) -> VolumeProblem | None:
    """What is wrong with the volume ``node``, or None."""
    found = _blocking(node)
    if found:
        what, hint = found
        return VolumeProblem(what.format(volume=node.GetName()), hint, True)
    thin = min(node.GetImageData().GetDimensions())
    if thin < 4:
        what = _("“{volume}” has only {count} slice(s).").format(volume=node.GetName(), count=thin)
        return VolumeProblem(what, _("The result will hardly be usable."), False)
    return None


def _blocking(node) -> tuple[str, str] | None:
    if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("“{volume}” is a segmentation, not an image."), _("Choose the MRI volume.")
    if node.GetClassName() != "vtkMRMLScalarVolumeNode":
        return (
            _("“{volume}” holds several values for each voxel (4-D, vector or colour)."),
            _("Choose a volume with one value for each voxel; split a series first."),
        )
    image = node.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        return _("“{volume}” is empty: it has no voxels."), _("Load it again.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("“{volume}” holds several values for each voxel."), _("Split it first.")
    low, high = image.GetScalarRange()
    if not low < high:  # NaN as well
        return (
            _("“{volume}” is empty: every voxel has the same value."),
            _("Choose another volume, or load it again."),
        )
    return None
