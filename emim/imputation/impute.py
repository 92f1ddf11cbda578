"""Making up a missing modality from the others, with the network of a pre-training run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emim.cohort.case import Case
from emim.errors import EmimError
from emim.events import Events
from emim.imputation.intensities import Intensities
from emim.imputation.reconstructor import Reconstructor
from emim.inference.image_file import write_like
from emim.inference.inputs import check_files, choose_reference, match_inputs
from emim.inference.outputs import VOLUMES, check_writable, split_extension, write_atomically
from emim.volumes.grid import Grid
from emim.volumes.io import read_header
from emim.volumes.preprocess import PreparedCase, prepare_case
from emim.volumes.resample import copy_voxels, resample_volume

OVERLAP = 0.5


def impute(
    run: str | Path,
    inputs: Mapping[str, str | Path],
    modality: str,
    output: str | Path,
    *,
    truth: str | Path | None = None,
    like: str | Path | None = None,
    device: str = "auto",
    reference: str | None = None,
    events: Events | None = None,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Reconstruct ``modality`` from the other modalities of a case, as a volume.

    All of its voxels are hidden from the network, as the modal mask of pre-training hides them. What is made
    up is what the network expects, not a measurement: a lesion that only this modality shows is not in it.

    The volume (float32) has exactly the grid of the reference input. It holds z-scores: 0 is the mean of the
    foreground, 1 a standard deviation above; with ``like`` the intensities of that example. Outside the
    foreground of the inputs it has its lowest value, with ``like`` the example's value of air.

    Args:
        run: folder of a pre-training run.
        inputs: modality name, in any case, to image file; grids may differ.
        modality: which of the run's modalities to make up; not one of the inputs.
        output: file ending in .nii.gz, .nii, .nrrd or .mha.
        truth: the true image, only to compare with: mean squared error, PSNR and SSIM of the z-scores
            within the foreground, on the working grid; see :mod:`emim.imputation.similarity`.
        like: an image of the modality, of this or another patient, whose mean and standard deviation the
            volume gets.
        device: auto, cpu, cuda, cuda:1, mps …
        reference: modality whose grid the volume gets; None: the run's own, else the first given.
        should_stop: asked before each tile.

    Returns:
        ``output``, ``modality``, ``inputs`` (names), ``reference``, ``scale`` ("z-score", or the example's
        path), ``similarity`` (``mse``, ``psnr``, ``ssim``, ``voxels``; None without truth), ``device`` and
        ``seconds``.

    Raises:
        EmimError: for bad input, before any work.
        Cancelled: when ``should_stop`` said so.
    """
    started = time.monotonic()
    events = events or Events()
    output = Path(output).absolute()
    known = Reconstructor.read(run)
    target = _find(modality, known, run)
    images = match_inputs(known, inputs)
    if target in images:
        raise EmimError(
            f"{target} is among the inputs.", images[target], "Give it as the truth to compare with."
        )
    chosen_reference = choose_reference(known, images, reference)
    others = {"truth": truth, "example": like}
    sources = [*images.values(), *(p for p in others.values() if p is not None)]
    if not output.name.lower().endswith(VOLUMES) or split_extension(output)[1] == ".seg.nrrd":
        hint = f"Let the name end in one of: {', '.join(VOLUMES)}."
        raise EmimError("An image cannot be written in this format.", output, hint)
    check_writable([output], sources, overwrite)
    for name, path in others.items():
        if path is not None and not Path(path).is_file():
            raise EmimError(f"There is no such image, given as the {name}.", path)
    compared = images if truth is None else {**images, target: str(Path(truth).absolute())}
    check_files(compared, chosen_reference)
    intensities = Intensities.of(like) if like is not None else None
    if doubt := known.doubt(len(known.modalities) - len(images)):
        events.warning(doubt[0], run, doubt[1])
    if known.source.warning:
        events.warning(known.source.warning, run)

    settings = dataclasses.replace(known.preprocess, reference=chosen_reference)
    prepared = prepare_case(Case("case", "case", images), known.modalities, settings)
    true = None
    if truth is not None:
        full = prepare_case(Case("case", "case", compared), known.modalities, settings)
        true = _true_scores(full, prepared, known.modalities.index(target), truth)
    scores, used = _reconstruct(known, prepared, target, device, events, should_stop)
    similar = None
    if true is not None:
        from emim.imputation.similarity import similarity

        # 0 is what the true image did not measure.
        similar = similarity(scores, true, prepared.foreground & (true != 0))._asdict()
    path = images[chosen_reference]
    grid = read_header(path).grid
    volume = _on_grid(scores, prepared, grid, intensities)
    write_atomically(output, lambda p: write_like(path, grid, volume, p))
    return {
        "output": str(output),
        "modality": target,
        "inputs": list(images),
        "reference": chosen_reference,
        "scale": "z-score" if like is None else str(like),
        "similarity": similar,
        "device": used,
        "seconds": round(time.monotonic() - started, 2),
    }


def _find(modality: str, known: Reconstructor, run: str | Path) -> str:
    for name in known.modalities:
        if name.casefold() == modality.strip().casefold():
            return name
    hint = f"It was trained on {', '.join(known.modalities)}."
    raise EmimError(f"The run does not know the modality {modality!r}.", run, hint)


def _reconstruct(
    known: Reconstructor,
    prepared: PreparedCase,
    target: str,
    device: str,
    events: Events,
    should_stop: Callable[[], bool] | None,
) -> tuple[np.ndarray, str]:
    """z-scores (Z, Y, X) on the working grid, and the device they were computed on."""
    from emim.inference.sliding import Window, slide
    from emim.machine.device import open_device
    from emim.machine.heap import keep_large_blocks

    keep_large_blocks()
    chosen = open_device(device, events)
    there = [m for m, present in zip(known.modalities, prepared.present, strict=True) if present]
    events.status(f"Reconstructing {target} from {', '.join(there)} on {chosen}")
    network, channel = known.load(chosen), known.modalities.index(target)
    values, _ = slide(
        lambda tiles, present: network(tiles, ~present)[0][:, channel : channel + 1].float(),
        prepared.image, prepared.present, prepared.foreground, 1,
        Window(known.side, OVERLAP, chosen, events=events, should_stop=should_stop, text=target),
    )  # fmt: skip
    clip = known.preprocess.clip
    return np.clip(values[0], -clip, clip), str(chosen)


def _true_scores(full: PreparedCase, prepared: PreparedCase, channel: int, truth: str | Path) -> np.ndarray:
    """z-scores (Z, Y, X) of the true image where ``prepared`` lies, which has the voxels of ``full``."""
    true = copy_voxels(full.image[channel], full.grid, prepared.grid, 0.0)
    if not true[prepared.foreground].any():
        raise EmimError("The true image shows nothing where the inputs show the patient.", truth)
    return true


def _on_grid(
    scores: np.ndarray, prepared: PreparedCase, grid: Grid, intensities: Intensities | None
) -> np.ndarray:
    """The volume on the reference's ``grid``, float32."""
    inside = prepared.foreground.astype(np.float32)
    weight = resample_volume(inside, prepared.grid, grid)
    # Only the foreground's own values are mixed, else its edge would take on something of the air.
    values = resample_volume(scores * inside, prepared.grid, grid) / np.maximum(weight, 1e-6)
    values = values if intensities is None else intensities.apply(values)
    covered = weight >= 0.5
    outside = values[covered].min() if intensities is None else intensities.air
    return np.where(covered, values, outside).astype(np.float32)
