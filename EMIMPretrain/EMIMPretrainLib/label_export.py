"""Label maps for training from segmentations drawn in Slicer.

They lie in a folder of their own beside the runs; the folder of the cohort is never written to.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from emim.replace import replace_file
from emim.volumes.segments import same_name
from EMIMLib import EmimError
from EMIMLib.models import folderName

from .case_loader import FILE, ONE_FILE, caseOf, rememberExported
from .cohort_table import CaseRow, CohortTable
from .label_meaning import meaningFile, writeMeaning
from .structures import Structure, checkStructures, ownValues

SUFFIX = ".nii.gz"


def labelsFolder(table: CohortTable, runsFolder: Path) -> Path:
    """Where the exported labels of a cohort lie; of two cohorts of one name, in two folders."""
    mark = zlib.crc32(str(Path(table.source).absolute()).encode())
    return runsFolder / "labels" / f"{folderName(table.name)}-{mark:08x}"


def exportedLabels(table: CohortTable, runsFolder: Path) -> dict[str, Path]:
    """The exported label map of each case that has one."""
    folder = labelsFolder(table, runsFolder)
    files = {row.id: labelFile(folder, row) for row in table.rows}
    return {caseId: file for caseId, file in files.items() if file.is_file()}


def removeLabels(row: CaseRow, folder: Path) -> None:
    """Delete the exported label map of a case, and what is kept beside it."""
    label = labelFile(folder, row)
    label.unlink(missing_ok=True)
    meaningFile(label).unlink(missing_ok=True)


def labelFile(folder: Path, row: CaseRow) -> Path:
    return folder / (folderName(row.id, unique=True) + SUFFIX)


def exportLabels(
    segmentation: Any, reference: Any, row: CaseRow, structures: Sequence[Structure], folder: Path
) -> Path:
    """Write the segments as a label map on the grid of an image file of the case.

    Each segment gets the value of the structure of its name; which structures there are is kept beside the
    label map (see :mod:`EMIMPretrainLib.label_meaning`). Parent transforms of segmentation and reference are
    honoured: what lies on a voxel of the reference in the views, is labelled there.

    Args:
        reference: a volume node that shows an image of the case; None: the case's first image.
        folder: see :func:`labelsFolder`.

    Returns:
        The label map, ``.nii.gz``.

    Raises:
        EmimError: when it was drawn on another case, segments and structures do not fit, segments of
            structures that exclude each other overlap, nothing is labelled, or the volume is not of the case.
    """
    checkStructures(structures)
    if other := otherCase(segmentation, row):
        raise EmimError(
            _("It was drawn on case {other}, not on {id}.").format(other=other, id=row.id),
            segmentation.GetName(),
            _("Choose the segmentation that was drawn on this case, or the case that it was drawn on."),
        )
    drawn = _match(segmentation, structures)
    temporary = None
    if reference is None:
        file = next((c.path for c in row.cells.values() if c.path), "")
        reference = temporary = _loadReference(file, row)
    else:
        file = _fileOf(reference, row)
    try:
        masks = {name: _mask(segmentation, identifier, reference) for name, identifier in drawn.items()}
        labels = _paint(masks, structures)
        if not labels.any():
            raise EmimError(
                _("The segmentation marks no voxel of {volume}.").format(volume=reference.GetName()),
                segmentation.GetName(),
                _("Draw on this image, and check that both have the same transform."),
            )
        present = set(np.unique(labels).tolist())
        target = labelFile(folder, row)
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name("part-" + target.name)
        _write(labels, reference, file, part)
        meaningFile(target).unlink(missing_ok=True)  # at no time a map lies beside the list of another
        replace_file(part, target)
        writeMeaning(target, [s for s in structures if present.intersection(s["values"])])
        rememberExported(segmentation, target)
    except OSError as error:
        raise EmimError(
            _("The label map cannot be written: {reason}.").format(reason=error.strerror or error),
            error.filename or folder,
            _("Check the rights and the free space of the runs folder."),
        ) from error
    finally:
        if temporary is not None:
            slicer.mrmlScene.RemoveNode(temporary)
    return target


def otherCase(segmentation: Any, row: CaseRow) -> str:
    """The id of the case that a segmentation was drawn on, where that is known not to be ``row``; else ""."""
    case = caseOf(segmentation)
    return case if case != row.id else ""


def _match(segmentation: Any, structures: Sequence[Structure]) -> dict[str, str]:
    """Segment id by name of its structure."""
    names = {same_name(s["name"]): s["name"] for s in structures}
    content = segmentation.GetSegmentation()
    found: dict[str, str] = {}
    for n in range(content.GetNumberOfSegments()):
        segment = content.GetNthSegment(n)
        name = names.get(same_name(segment.GetName()))
        if name is None:
            raise EmimError(
                _("The segment {name!r} is none of the structures.").format(name=segment.GetName()),
                segmentation.GetName(),
                _("Add it to the structures, rename it, or remove the segment. Structures: {names}.").format(
                    names=", ".join(names.values())
                ),
            )
        if name in found:
            raise EmimError(
                _("Two segments are named {name!r}.").format(name=name),
                segmentation.GetName(),
                _("Rename or merge them."),
            )
        found[name] = content.GetNthSegmentID(n)
    if not found:
        raise EmimError(
            _("The segmentation has no segment."), segmentation.GetName(), _("Draw in Segment Editor first.")
        )
    return found


def _paint(masks: dict[str, np.ndarray], structures: Sequence[Structure]) -> np.ndarray:
    """Label values (K, J, I); of nested structures the smaller one is painted over the larger one."""
    values, ownOnes = {s["name"]: frozenset(s["values"]) for s in structures}, ownValues(structures)
    order = sorted(masks, key=lambda name: -len(values[name]))
    labels = np.zeros(next(iter(masks.values())).shape, np.int16)
    for n, name in enumerate(order):
        for other in order[:n]:
            if not values[name] < values[other]:
                _refuseOverlap(name, other, masks)
        if own := ownOnes[name]:
            labels[masks[name]] = min(own)
            continue
        parts = [masks[other] for other in masks if values[other] < values[name]]
        rest = masks[name] & ~np.any([np.zeros_like(masks[name]), *parts], axis=0)
        if rest.any():
            raise EmimError(
                _("Voxels of {name!r} that belong to none of the structures it consists of: {n}.").format(
                    n=int(rest.sum()), name=name
                ),
                hint=_("Draw those structures, or give {name!r} a label value of its own.").format(name=name),
            )
    return labels


def _refuseOverlap(name: str, other: str, masks: dict[str, np.ndarray]) -> None:
    shared = int((masks[name] & masks[other]).sum())
    if shared:
        raise EmimError(
            _("{name!r} and {other!r} overlap in {n} voxels, but exclude each other.").format(
                name=name, other=other, n=shared
            ),
            hint=_(
                "Correct the drawing (Segment Editor: Masking, Modify other segments: Overwrite all), or, if "
                "one is a part of the other, give the larger one all label values of the smaller one too."
            ),
        )


def _mask(segmentation: Any, identifier: str, reference: Any) -> np.ndarray:
    """Voxels (K, J, I) of the reference that the segment covers."""
    identifiers = vtk.vtkStringArray()
    identifiers.InsertNextValue(identifier)
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "__EMIM__")
    try:
        logic = slicer.modules.segmentations.logic()
        if not logic.ExportSegmentsToLabelmapNode(segmentation, identifiers, labelmap, reference):
            raise EmimError(
                _("A segment cannot be converted to voxels."),
                segmentation.GetSegmentation().GetSegment(identifier).GetName(),
                _("Remove the segment if it is empty; else look into Slicer's error log."),
            )
        return slicer.util.arrayFromVolume(labelmap) > 0
    finally:
        display = labelmap.GetDisplayNode()
        colors = display.GetColorNode() if display else None
        slicer.mrmlScene.RemoveNode(labelmap)
        if colors is not None:
            slicer.mrmlScene.RemoveNode(colors)  # made for this one export


def _fileOf(reference: Any, row: CaseRow) -> str:
    storage = reference.GetStorageNode()
    names = {reference.GetAttribute(FILE), storage.GetFullNameFromFileName() if storage else None}
    for cell in row.cells.values():
        if cell.path and any(name and _samePath(name, cell.path) for name in names):
            return cell.path
    raise EmimError(
        _("The volume {name!r} is no image of case {id}.").format(name=reference.GetName(), id=row.id),
        storage.GetFileName() if storage else None,
        _("Load the case by a double-click in the cohort table, and draw on one of its images."),
    )


def _samePath(first: str, second: str) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _loadReference(file: str, row: CaseRow) -> Any:
    if not file:
        raise EmimError(_("The case {id} has no image.").format(id=row.id), hint=_("Choose another case."))
    try:
        return slicer.util.loadVolume(file, dict(ONE_FILE))
    except RuntimeError as error:
        raise EmimError(_("Slicer cannot read the image of the case."), file) from error


def _write(labels: np.ndarray, reference: Any, file: str, part: Path) -> None:
    """Write labels on the reference's grid onto that of the file it came from.

    The grids differ where Slicer has turned a left-handed one; their voxels are the same in space.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(labels)
    toRAS = vtk.vtkMatrix4x4()
    reference.GetIJKToRASMatrix(toRAS)
    toLPS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ slicer.util.arrayFromVTKMatrix(toRAS)
    spacing = np.linalg.norm(toLPS[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(toLPS[:3, 3].tolist())
    image.SetDirection((toLPS[:3, :3] / spacing).ravel().tolist())
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        onFile = sitk.Resample(
            image,
            reader.GetSize()[:3],
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
            reader.GetOrigin()[:3],
            reader.GetSpacing()[:3],
            reader.GetDirection() if reader.GetDimension() == 3 else image.GetDirection(),
        )
        sitk.WriteImage(onFile, str(part), useCompression=True)
    except RuntimeError as error:
        raise EmimError(
            _("The label map cannot be written."), part, str(error).strip().splitlines()[-1]
        ) from error
