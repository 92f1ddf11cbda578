"""From the files of a case to arrays a network takes: one grid, cropped, normalised.

Every modality is interpolated at most once, from its own grid straight to the working grid: the
reference's voxels turned to LPS, at the wanted spacing, cropped to the foreground. Where the reference
already has that spacing, its voxels are copied, not interpolated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.volumes.case_label import read_case_label
from emim.volumes.foreground import bounding_box, find_foreground
from emim.volumes.grid import Grid
from emim.volumes.io import read_header, read_stored
from emim.volumes.resample import resample_array, resample_label, resample_mask, resample_volume

__all__ = [
    "PreparedCase",
    "memory_needed",
    "prepare_case",
    "resample_array",
    "resolve_spacing",
    "robust_statistics",
    "working_grid",
]

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
    names = [m for m in modalities if m in case.images]

    def read(m: str) -> tuple[_Scan, np.ndarray]:
        scan = _Scan.read(case.images[m], config.clip)
        if moves and m in moves:
            scan.grid = scan.grid.moved(moves[m])
        measured = resample_mask(scan.mask, scan.grid, full)
        if not measured.any():
            raise EmimError(
                f"Modality {m} of case {case.id} shows nothing within the reference {reference}.",
                case.images[m],
                "The two do not lie in the same place: check their headers, or register them first.",
            )
        return scan, measured

    scans = {m: read(m) for m in names}
    foreground = np.logical_or.reduce([measured for _, measured in scans.values()])
    label = _read_label(case, full) if case.label else None
    box = _crop_box(foreground if label is None else foreground | (label != 0))
    grid = full.cropped([s.start for s in box], [s.stop for s in box])

    foreground = np.ascontiguousarray(foreground[box])
    image = np.zeros((len(modalities), *grid.shape), np.float32)

    def fill(m: str) -> None:
        scan, measured = scans.pop(m)
        volume = resample_volume(scan.values, scan.grid, grid)
        inside = measured[box] if scan.stripped else foreground
        np.multiply(volume, inside, out=image[modalities.index(m)])

    for m in names:
        fill(m)
    if label is not None:
        label = np.ascontiguousarray(label[box])
    return PreparedCase(image, present, foreground, label, grid, reference)


def memory_needed(case: Case, modalities: Sequence[str], config: PreprocessConfig) -> int:
    """The most bytes that :func:`prepare_case` takes for a case, from the headers alone.

    Measured on raw heads, whose crops save nothing; skull-stripped ones take two thirds of it.
    """
    voxels = [prod(read_header(case.images[m]).grid.size) for m in modalities if m in case.images]
    working = prod(working_grid(read_header(reference_path(case, modalities, config)).grid, config).size)
    # Values and mask of every modality are kept; beside them one is searched, or all are interpolated.
    return 5 * sum(voxels) + max(22 * max(voxels), (5 * len(modalities) + 12) * working)


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
        values, grid = read_stored(path)
        if values.dtype.kind == "f" or values.dtype.itemsize > 2:
            values = values.astype(np.float32, copy=False)
        found = find_foreground(values)
        mask, stripped = found.mask, found.fill is not None
        if not mask.any():
            raise EmimError(
                "The image shows nothing but background.", path, "Leave it out or export it again."
            )
        if stripped:  # what lies farther out is no measurement
            box = _crop_box(mask)
            values, mask = values[box], np.ascontiguousarray(mask[box])
            grid = grid.cropped([s.start for s in box], [s.stop for s in box])
        values = np.ascontiguousarray(values, np.float32)
        mean, deviation = robust_statistics(values[mask])
        if deviation <= 1e-6 * max(1e-6, abs(mean)):
            raise EmimError(
                f"The image has no contrast: its foreground is {mean:g} everywhere.",
                path,
                "It may be a mask rather than an MRI: name it as a label or leave it out.",
            )
        values -= np.float32(mean)
        values /= np.float32(deviation)
        np.clip(values, -clip, clip, out=values)
        if stripped:  # before interpolation, or the fill would bleed into the edge
            values *= mask
        return cls(values, mask, stripped, grid)


def robust_statistics(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the values between the two tails (:data:`TAIL`).

    ``values`` (n,), those of a foreground, are sorted in place.
    """
    values.sort()  # numpy sorts faster than it selects two of its elements
    low, high = (_between(values, q * (values.size - 1)) for q in (TAIL, 1 - TAIL))
    kept = values[np.searchsorted(values, low, "left") : np.searchsorted(values, high, "right")]
    return float(kept.mean(dtype=np.float64)), float(kept.std(dtype=np.float64))


def _between(values: np.ndarray, position: float) -> np.float32:
    """The element at a fractional position."""
    below = int(position)
    above = min(below + 1, values.size - 1)
    return np.float32(values[below] + (position - below) * (values[above] - values[below]))


def _read_label(case: Case, full: Grid) -> np.ndarray:
    array, grid = read_case_label(case)
    label = resample_label(array, grid, full)
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
