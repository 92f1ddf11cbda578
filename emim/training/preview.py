"""Previews of a run: arrays for its report (.npz), and volumes for an image viewer (NIfTI).

The volumes lie in ``preview/`` of the run folder, in the place of the patient, on the working grid.
Each is replaced in one step, so a viewer may read them at any time.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emim.config import Structure
from emim.replace import replace_file
from emim.run import RunFolder, write_atomically
from emim.volumes.grid import Grid


@dataclass(frozen=True)
class Reconstruction:
    """What the network made of one masked case.

    Attributes:
        case: its id.
        grid: where the arrays lie.
        modalities: names of the M channels.
        present: boolean (M,), false for modalities the case lacks.
        original, reconstructed: z-scores (M, Z, Y, X); reconstructed is the output for every voxel.
        hidden: boolean (M, Z, Y, X), what the network did not see.
        foreground: boolean (Z, Y, X).
    """

    case: str
    grid: Grid
    modalities: Sequence[str]
    present: np.ndarray
    original: np.ndarray
    reconstructed: np.ndarray
    hidden: np.ndarray
    foreground: np.ndarray


@dataclass(frozen=True)
class Segmentation:
    """What the network segmented in one labelled case.

    Attributes:
        case, grid, modalities, present: as in :class:`Reconstruction`.
        image: z-scores (M, Z, Y, X).
        prediction, reference: boolean (K, Z, Y, X), one mask per structure.
    """

    case: str
    grid: Grid
    modalities: Sequence[str]
    present: np.ndarray
    image: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray


def write_reconstruction(run: RunFolder, shown: Reconstruction, step: int) -> None:
    """Write ``original``, ``masked`` and ``reconstructed`` of each modality, and tell where they are.

    In the volumes air and, in ``masked``, what was hidden have the lowest value of the tissue;
    ``reconstructed`` has the output where the input was hidden and the original elsewhere.
    """
    _write_arrays(
        run,
        "reconstruction",
        original=shown.original,
        masked=np.where(shown.hidden, 0, shown.original),
        reconstructed=shown.reconstructed,
        hidden=shown.hidden,
        foreground=shown.foreground,
        modalities=np.array(shown.modalities),
        case=np.array(shown.case),
        step=np.array(step),
    )
    files: dict[str, dict[str, Path]] = {"original": {}, "masked": {}, "reconstructed": {}}
    for m in np.flatnonzero(shown.present):
        original, hidden = shown.original[m], shown.hidden[m]
        air = original[shown.foreground].min(initial=0.0)
        volumes = {
            "original": original,
            "masked": np.where(hidden, air, original),
            "reconstructed": np.where(hidden, np.maximum(shown.reconstructed[m], air), original),
        }
        for kind, volume in volumes.items():
            name = shown.modalities[m]
            files[kind][name] = _volume_file(run, kind, name)
            # The first two stay the same for the whole run.
            if kind == "reconstructed" or not files[kind][name].exists():
                write_volume(files[kind][name], np.where(shown.foreground, volume, air), shown.grid)
    _tell(run, "reconstruction_volumes", files, shown.case, step)


def write_segmentation(
    run: RunFolder, shown: Segmentation, structures: Sequence[Structure], step: int
) -> None:
    """Write the first modality, ``prediction`` and ``reference`` (label maps), and tell where they are."""
    prediction, reference = (_painted(masks, structures) for masks in (shown.prediction, shown.reference))
    _write_arrays(
        run,
        "segmentation",
        image=shown.image,
        reference=reference,
        prediction=prediction,
        modalities=np.array(shown.modalities),
        case=np.array(shown.case),
        step=np.array(step),
    )
    first = int(np.flatnonzero(shown.present)[0])
    files = {
        "image": _volume_file(run, "image", shown.modalities[first]),
        "prediction": _volume_file(run, "prediction"),
        "reference": _volume_file(run, "reference"),
    }
    write_volume(files["prediction"], prediction, shown.grid)
    for name, volume in (("image", shown.image[first]), ("reference", reference)):
        if not files[name].exists():
            write_volume(files[name], volume, shown.grid)
    _tell(run, "segmentation_volumes", files, shown.case, step)


def write_volume(file: Path, array: np.ndarray, grid: Grid) -> None:
    """Write (Z, Y, X) integers as they are, and other numbers as scaled 16-bit integers, as .nii.gz."""
    import nibabel

    slope = 1.0
    if not np.issubdtype(array.dtype, np.integer):
        slope = float(np.abs(array).max()) / np.iinfo(np.int16).max or 1.0
        array = np.rint(array / slope)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.index_to_mm, grid.origin
    image = nibabel.Nifti1Image(array.astype(np.int16).T, np.diag([-1, -1, 1, 1]) @ affine)  # LPS to RAS
    image.header.set_slope_inter(slope, 0)
    for set_form in (image.set_sform, image.set_qform):
        set_form(image.affine, code="scanner")
    write_atomically(file, gzip.compress(image.to_bytes(), compresslevel=1))


def _write_arrays(run: RunFolder, kind: str, **arrays: np.ndarray) -> None:
    file, part = run.report / "preview.npz", run.report / "part-preview.npz"
    # Half precision is finer than a picture shows.
    np.savez(part, **{k: a.astype(np.float16) if a.dtype == np.float32 else a for k, a in arrays.items()})
    replace_file(part, file)
    run.events.preview(file, kind)


def _tell(run: RunFolder, kind: str, files: dict[str, Any], case: str, step: int) -> None:
    run.events.preview(run.preview, kind, files=files, case=case, step=step)


def _volume_file(run: RunFolder, *words: str) -> Path:
    run.preview.mkdir(exist_ok=True)
    return run.preview / (re.sub(r"[^\w-]+", "_", "_".join(words)) + ".nii.gz")


def _painted(masks: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """One label map of masks (K, Z, Y, X), later structures over earlier ones."""
    label = np.zeros(masks.shape[1:], np.int16)
    for structure, mask in zip(structures, masks, strict=True):
        label[mask] = structure.output
    return label
