"""The cohort a benchmark reads: the user's folder, or synthetic heads in the field of view of BraTS."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from emim.cohort.case import Cohort
from emim.cohort.scan import scan
from emim.phantom.generate import generate

FIELD = (240, 240, 155)


def open_cohort(folder: str | None, work: Path, subjects: int = 2) -> Cohort:
    """The labelled cases of ``folder`` that have every modality, which other programs need.

    Without a folder: of ``subjects`` synthetic heads made in ``work``.
    """
    found = scan(folder if folder else heads(work / "heads", subjects)).cohort
    complete = tuple(c for c in found.labelled() if len(c.images) == len(found.modalities))
    if not complete:
        raise SystemExit("The cohort has no labelled case with all modalities.")
    return Cohort(found.modalities, complete)


def heads(folder: Path, subjects: int) -> Path:
    """Synthetic heads in the form of BraTS: four modalities and a label on one grid, 16-bit, compressed."""
    generate(folder, subjects, seed=3, labelled=subjects, spacing=1.0)
    for subject in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = sorted(subject.glob("*.nii.gz"))
        first = sitk.ReadImage(str(files[0]))
        middle = first.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in first.GetSize()])
        corner = [m - (n - 1) / 2 for m, n in zip(middle, FIELD, strict=True)]
        for file in files:  # some are drawn on thick or tilted slices, which other programs do not take
            kind = sitk.sitkNearestNeighbor if "seg" in file.name else sitk.sitkLinear
            image = sitk.ReadImage(str(file))
            image = sitk.Resample(image, FIELD, sitk.Transform(), kind, corner, (1.0, 1.0, 1.0))
            sitk.WriteImage(sitk.Cast(image, sitk.sitkInt16), str(file), useCompression=True)
    return folder
