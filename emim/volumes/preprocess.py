"""From the files of a case to arrays a network takes: one grid, cropped, normalised.

Every modality is interpolated at most once, from its own grid straight to the working grid: the
reference's voxels turned to LPS, at the wanted spacing, cropped to the foreground. Where the reference
already has that spacing, its voxels are copied, not interpolated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.volumes.foreground import bounding_box, find_foreground
from emim.volumes.grid import Grid
from emim.volumes.io import read_header, read_image, read_label
from emim.volumes.resample import resample_array, resample_label, resample_mask, resample_volume

__all__ = ["PreparedCase", "prepare_case", "resample_array", "resolve_spacing", "working_grid"]

# Voxels kept around the foreground's bounding box, so that its edge is seen as an edge.
MARGIN = 2
# Share of the foreground cut off at either end before mean and standard deviation are taken:
# vessels, fat and artefacts would otherwise set the scale.
TAIL = 0.5 / 100


@dataclass
class PreparedCase:
    """One case, ready for a network.

    Attributes:
        image: float32 (M, Z, Y, X), z-scored; 0 outside the foreground and in missing modalities.
        present: boolean (M,), false for missing modalities.
        foreground: boolean (Z, Y, X), where any modality shows the patient.
        label: int16 (Z, Y, X), or None.
        grid: where the arrays lie in space.
        reference_path: the file whose grid a result is to be written on.
    """

    image: np.ndarray
    present: np.ndarray
    foreground: np.ndarray
    label: np.ndarray | None
    grid: Grid
    reference_path: str


def prepare_case(
    case: Case,
    modalities: Sequence[str],
    config: PreprocessConfig,
    moves: Mapping[str, np.ndarray] | None = None,
) -> PreparedCase:
    """Read a case and bring it to one grid.

    Each modality is z-scored over its own foreground, in its own voxels, before it is resampled: the
    mean and standard deviation of the values between the 0.5th and 99.5th percentile become 0 and 1,
    and results are clipped at ``config.clip``. Voxels that a modality did not measure (outside its
    field of view, or the fill value of a stripped image) are 0, as is everything outside the
    foreground, which is the union of the modalities' foregrounds. The crop also holds every labelled
    voxel. The label is copied where its grid allows, else the label of greatest linear weight is taken.

    Args:
        modalities: names in the order of the channels; those the case lacks become 0.
        config: with a spacing (see :func:`resolve_spacing`).
        moves: modality to the rigid motion (4, 4), LPS mm, that its image is to be aligned by; not
            for the reference.

    Raises:
        EmimError: naming the file, when one cannot be used.
    """
    if config.clip <= 0:
        raise EmimError(
            f"The clip value is {config.clip}.", "preprocess.clip", "Give a number above 0, e.g. 5."
        )
    reference = reference_path(case, modalities, config)
    full = working_grid(read_header(reference).grid, config)
    present = np.array([m in case.images for m in modalities])
    scans = {m: _Scan.read(case.images[m], config.clip) for m in modalities if m in case.images}
    for m, motion in (moves or {}).items():
        scans[m].grid = scans[m].grid.moved(motion)

    measured = {m: resample_mask(s.mask, s.grid, full) for m, s in scans.items()}
    for m, mask in measured.items():
        if not mask.any():
            raise EmimError(
                f"Modality {m} of case {case.id} shows nothing within the reference {reference}.",
                case.images[m],
                "The two do not lie in the same place: check their headers, or register them first.",
            )
    foreground = np.logical_or.reduce(list(measured.values()))
    label = _read_label(case, full) if case.label else None
    box = _crop_box(foreground if label is None else foreground | (label != 0))
    grid = full.cropped([s.start for s in box], [s.stop for s in box])

    foreground = np.ascontiguousarray(foreground[box])
    image = np.zeros((len(modalities), *grid.shape), np.float32)
    for channel, m in enumerate(modalities):
        if m in scans:
            scan = scans.pop(m)
            inside = measured.pop(m)[box] if scan.stripped else foreground
            volume = resample_volume(scan.values, scan.grid, grid)
            np.multiply(volume, inside, out=image[channel])
    if label is not None:
        label = np.ascontiguousarray(label[box])
    return PreparedCase(image, present, foreground, label, grid, reference)


def reference_path(case: Case, modalities: Sequence[str], config: PreprocessConfig) -> str:
    """File of the reference: ``config.reference`` if the case has it, else its first modality.

    Raises:
        EmimError: when the case has none of the modalities, or ``config.reference`` is not one.
    """
    if config.reference is not None and config.reference not in modalities:
        raise EmimError(
            f"The reference {config.reference!r} is not a modality here.",
            "preprocess.reference",
            f"Known here: {', '.join(modalities)}.",
        )
    for name in (config.reference, *modalities):
        if name in case.images:
            return case.images[name]
    raise EmimError(
        f"Case {case.id} has none of the modalities {', '.join(modalities)}.",
        next(iter(case.images.values()), None),
        "Leave the case out, or give the name patterns of its modalities.",
    )


def working_grid(reference: Grid, config: PreprocessConfig) -> Grid:
    """The reference's grid turned to LPS at the wanted spacing, before the crop to the foreground."""
    if config.spacing is None or min(config.spacing) <= 0:
        raise EmimError(
            f"The working spacing is {config.spacing}.", "preprocess.spacing", "Give three lengths in mm."
        )
    return reference.oriented().respaced(config.spacing)


def resolve_spacing(cohort: Cohort, config: PreprocessConfig) -> PreprocessConfig:
    """``config`` with a spacing: its own, else the median of the cohort's references per LPS axis.

    Only headers are read. Rounded to 0.001 mm, so that headers that mean the same give the same.

    Raises:
        EmimError: for an unreadable reference, or a cohort without cases.
    """
    if config.spacing is not None:
        return config
    if not cohort.cases:
        raise EmimError("The cohort has no usable case.", hint="`emim scan` says what is wrong with each.")
    paths = [reference_path(case, cohort.modalities, config) for case in cohort.cases]
    spacings = [read_header(path).grid.oriented().spacing for path in paths]
    median = tuple(round(float(x), 3) for x in np.median(spacings, axis=0))
    return dataclasses.replace(config, spacing=median)


@dataclass
class _Scan:
    """One modality on its own grid: z-scored values, foreground, and whether its air was masked off."""

    values: np.ndarray
    mask: np.ndarray
    stripped: bool
    grid: Grid

    @classmethod
    def read(cls, path: str, clip: float) -> _Scan:
        import SimpleITK as sitk

        image = read_image(path)
        grid, array = Grid.of(image), sitk.GetArrayFromImage(image)
        found = find_foreground(array)
        if not found.mask.any():
            raise EmimError(
                "The image shows nothing but background.", path, "Leave it out or export it again."
            )
        mean, deviation = _robust_statistics(array[found.mask])
        if deviation <= 1e-6 * max(1e-6, abs(mean)):
            raise EmimError(
                f"The image has no contrast: its foreground is {mean:g} everywhere.",
                path,
                "It may be a mask rather than an MRI: name it as a label or leave it out.",
            )
        mask, stripped = found.mask, found.fill is not None
        if stripped:  # what lies farther out is no measurement
            box = _crop_box(mask)
            array, mask = array[box], mask[box]
            grid = grid.cropped([s.start for s in box], [s.stop for s in box])
        array = np.clip((array - mean) / deviation, -clip, clip, dtype=np.float32)
        if stripped:  # before interpolation, or the fill would bleed into the edge
            array *= mask
        return cls(array, mask, stripped, grid)


def _robust_statistics(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the values between the two tails."""
    low, high = np.quantile(values, (TAIL, 1 - TAIL))
    kept = values[(values >= low) & (values <= high)]
    return float(kept.mean(dtype=np.float64)), float(kept.std(dtype=np.float64))


def _read_label(case: Case, full: Grid) -> np.ndarray:
    import SimpleITK as sitk

    image = read_label(case.label)
    array = sitk.GetArrayFromImage(image)
    label = resample_label(array, Grid.of(image), full)
    if array.any() and not label.any():
        raise EmimError(
            f"No labelled voxel of case {case.id} lies within its reference image.",
            case.label,
            "Label and image do not lie in the same place: check their headers.",
        )
    return label


def _crop_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    return tuple(
        slice(max(0, s.start - MARGIN), min(n, s.stop + MARGIN))
        for s, n in zip(bounding_box(mask), mask.shape, strict=True)
    )
