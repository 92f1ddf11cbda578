"""What a run shows of a validation case, as volumes in the slice views.

Pre-training: Red shows the original, Yellow what the network saw, Green what it made of it. Fine-tuning:
Red shows the image, Yellow the reference labels on it, Green the prediction. All three views show the
same slice. One set of nodes is used for all runs and steps, and changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError

from . import case_loader, slice_views
from .case_loader import ONE_FILE
from .run_metrics import RunMetrics

ATTRIBUTE = "EMIM.preview"
RECONSTRUCTION = ("original", "masked", "reconstructed")
SEGMENTATION = ("image", "reference", "prediction")
LABELS = ("reference", "prediction")
# Shares of the original's voxels between which its grey values are spread.
DARK, BRIGHT = 0.5, 99.5


def previewModalities(metrics: RunMetrics) -> list[str]:
    """Modalities of which there is a preview."""
    files = (metrics.preview or {}).get("files", {})
    first = files.get("original")
    return list(first) if isinstance(first, Mapping) else []


def previewText(metrics: RunMetrics) -> str:
    """Which case and step the preview shows; empty when there is none."""
    preview = metrics.preview
    if not preview:
        return ""
    return _("Case {case}, step {step}").format(case=preview.get("case", "?"), step=preview.get("step", "?"))


def showPreview(metrics: RunMetrics, runFolder: Path, modality: str = "") -> dict[str, Any]:
    """Load the latest preview volumes and show them.

    Args:
        metrics: of the run; the preview event in it names the files.
        runFolder: where the run lies now, which may not be where it was made.
        modality: of a reconstruction; empty: the first.

    Returns:
        The volume node of each role ("original", "masked", "reconstructed"; or "image", "reference",
        "prediction"); empty when there is no preview yet.

    Raises:
        EmimError: when there is no preview of the modality, or a file cannot be read.
    """
    files = _files(metrics, modality)
    if not files:
        return {}
    first = not any(_find(role) for role in files)
    roles = list(files)
    nodes = {role: _load(role, _located(file, runFolder), modality) for role, file in files.items()}
    for role in set(RECONSTRUCTION + SEGMENTATION) - set(roles):
        if (stale := _find(role)) is not None:
            slicer.mrmlScene.RemoveNode(stale)
    image = nodes[roles[0]]
    low, high = np.percentile(slicer.util.arrayFromVolume(image), (DARK, BRIGHT))
    for role, node in nodes.items():
        if role not in LABELS:
            display = node.GetScalarVolumeDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevelMinMax(low, high)
    _arrange(nodes, first)
    return nodes


def endPreview() -> None:
    """Remove the volumes, and give the slice views their usual orientations again, each for itself."""
    for role in RECONSTRUCTION + SEGMENTATION:
        if (node := _find(role)) is not None:
            slicer.mrmlScene.RemoveNode(node)
    slice_views.setLinked(False)
    for view, orientation in slice_views.ORIENTATIONS.items():
        slice_views.setOrientation(view, orientation)


def _arrange(nodes: dict[str, Any], first: bool) -> None:
    if "original" in nodes:
        shown = [(nodes[role], None) for role in RECONSTRUCTION]
    else:
        shown = [(nodes["image"], nodes.get(role)) for role in SEGMENTATION]
        shown[0] = (nodes["image"], None)
    for view, (background, label) in zip(slice_views.VIEWS, shown, strict=True):
        slice_views.showInView(view, background, label)
    if first:  # later the user may have turned or moved them, or shown labels
        case_loader.showLabelsOf("")
        for view in slice_views.VIEWS:
            slice_views.setOrientation(view, "Axial")
        slice_views.fit(shown[0][0])
        slice_views.setLinked(True)


def _files(metrics: RunMetrics, modality: str) -> dict[str, str]:
    files = (metrics.preview or {}).get("files", {})
    if "original" not in files:
        return {role: files[role] for role in SEGMENTATION if role in files}
    name = modality or next(iter(files["original"]), "")
    missing = [role for role in RECONSTRUCTION if name not in files.get(role, {})]
    if missing:
        raise EmimError(
            _("There is no preview of the modality {name!r}.").format(name=name),
            hint=_("Choose one of: {names}.").format(names=", ".join(files["original"])),
        )
    return {role: files[role][name] for role in RECONSTRUCTION}


def _located(file: str, runFolder: Path) -> Path:
    path = Path(file)
    moved = runFolder / "preview" / path.name
    return moved if moved.is_file() else path


def _load(role: str, file: Path, modality: str) -> Any:
    node = _find(role)
    if node is None:
        node = _new(role, file)
    else:
        storage = node.GetStorageNode()
        storage.SetFileName(str(file))
        storage.ResetFileNameList()  # it would go before the name
        if not storage.ReadData(node):
            raise _unreadable(file)
    texts = {
        "original": _("original"),
        "masked": _("masked"),
        "reconstructed": _("reconstruction"),
        "image": _("image"),
        "reference": _("reference labels"),
        "prediction": _("prediction"),
    }
    node.SetName(" ".join(["EMIM", texts[role], *([modality] if modality else [])]))
    return node


def _new(role: str, file: Path) -> Any:
    load = slicer.util.loadLabelVolume if role in LABELS else slicer.util.loadVolume
    try:
        node = load(str(file), dict(ONE_FILE))
    except RuntimeError as error:
        raise _unreadable(file) from error
    node.SetAttribute(ATTRIBUTE, role)
    node.SetSaveWithScene(False)  # the run writes them anew again and again
    return node


def _find(role: str) -> Any:
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(ATTRIBUTE) == role:
            return node
    return None


def _unreadable(file: Path) -> EmimError:
    return EmimError(
        _("A preview volume cannot be read."),
        file,
        _("It may be written just now: try again after the next validation."),
    )
