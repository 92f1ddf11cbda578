"""Segmenting one case after the other with a loaded network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emim.cohort.case import Case
from emim.config import Structure
from emim.events import Events
from emim.inference.image_file import write_like
from emim.inference.inputs import choose_reference, describe_grids, match_inputs
from emim.inference.labelling import Labelling, label_on_grid
from emim.inference.measure import Measurement, measure
from emim.inference.outputs import Outputs, plan_outputs, write_atomically
from emim.inference.seg_nrrd import write_seg_nrrd
from emim.inference.table import measurements_csv
from emim.package.bundle import Package
from emim.package.model import ModelCard
from emim.volumes.grid import Grid

if TYPE_CHECKING:
    from emim.registration.alignment import Alignment
    from emim.volumes.preprocess import PreparedCase

# Co-registered images, stripped one by one, agree in more than nine tenths of the brain.
LEAST_SHARE = 0.85


@dataclass(frozen=True)
class Options:
    """What :func:`emim.inference.segment.segment` was asked for, the same for every case."""

    overlap: float
    mirror: bool
    probabilities: bool
    overlay: bool
    reference: str | None
    align: bool
    overwrite: bool
    should_stop: Callable[[], bool] | None


@dataclass(frozen=True)
class Job:
    """One case: its files by modality, the modality that gives the grid, and what to write."""

    case: str
    images: dict[str, str]
    reference: str
    outputs: Outputs


def plan(card: ModelCard, case: str, inputs: Mapping[str, str | Path], output: Path, options: Options) -> Job:
    """Assign the inputs and name the outputs of one case; a cohort's case has an id, ``case``.

    Raises:
        EmimError: when inputs are unknown or missing, or the output cannot be written.
    """
    images = match_inputs(card, inputs, ignore_others=bool(case))
    outputs = plan_outputs(output, card, options.probabilities, options.overlay)
    return Job(case or output.name, images, choose_reference(card, images, options.reference), outputs)


class Worker:
    """A loaded network that segments one job after the other."""

    def __init__(self, package: Package, device: str, options: Options, events: Events) -> None:
        from emim.inference.predict import load_network
        from emim.machine.device import choose_device
        from emim.machine.heap import keep_large_blocks

        keep_large_blocks()
        self.card, self.options, self.events = package.card, options, events
        self.device = choose_device(device)
        events.status(f"Loading the model {self.card.name} on {self.device}")
        self.network = load_network(package, self.device)

    def run(self, job: Job, text: str = "") -> dict[str, Any]:
        """Segment one case and write its outputs; ``text`` names it in the progress, where there are many."""
        from emim.inference.predict import predict_case
        from emim.volumes.io import read_header
        from emim.volumes.preprocess import prepare_case

        started = time.monotonic()
        card, options = self.card, self.options
        missing = [m for m in card.modalities if m not in job.images]
        without = f" without {', '.join(missing)}, as the model was trained to do" if missing else ""
        alignments = self._align(job, text)
        moves = {m: a.matrix_lps for m, a in alignments.items()}
        self.events.status(f"Segmenting {text}".rstrip() + without)
        if grids := describe_grids(job.images, job.reference):
            self.events.status(grids)
        settings = dataclasses.replace(card.preprocess, reference=job.reference)
        prepared = prepare_case(Case(job.case, job.case, job.images), card.modalities, settings, moves)
        self._warn_of_gaps(job, prepared)
        probabilities = predict_case(
            self.network, prepared, card, self.device, options.overlap, options.mirror,
            self.events, options.should_stop, text,
        )  # fmt: skip
        reference = job.images[job.reference]
        target = read_header(reference).grid

        def save(structure: Structure, channel: np.ndarray) -> None:
            if structure.name in job.outputs.probabilities:
                path = job.outputs.probabilities[structure.name]
                write_atomically(path, lambda p: write_like(reference, target, channel, p))

        result = label_on_grid(card, probabilities, prepared.grid, target, save)
        measured = measure(card.structures, result, target, card.modalities, job.images, moves)
        self._write(job.outputs, result, measured, reference, target)
        overlay = self._write_overlay(job.outputs.overlay, result, reference)
        return {
            "case": job.case,
            "output": str(job.outputs.label),
            "table": str(job.outputs.table),
            "overlay": overlay,
            "probabilities": {n: str(p) for n, p in job.outputs.probabilities.items()},
            "volumes_ml": result.volumes,
            "measurements": [m.to_dict() for m in measured],
            "reference": job.reference,
            "missing": missing,
            "input_grids": grids,
            "alignments": {m: a.to_dict() for m, a in alignments.items()},
            "device": str(self.device),
            "seconds": round(time.monotonic() - started, 2),
        }

    def _align(self, job: Job, text: str) -> dict[str, Alignment]:
        others = {m: path for m, path in job.images.items() if m != job.reference}
        if not self.options.align or not others:
            return {}
        from emim.registration.register import register

        self.events.status(f"Aligning {text or 'the images'} to {job.reference}")
        return register(job.images[job.reference], others, self.events, self.options.should_stop)

    def _warn_of_gaps(self, job: Job, prepared: PreparedCase) -> None:
        """Say when images show much less than all together: most often the patient has moved."""
        total = np.count_nonzero(prepared.foreground)
        shares = {
            modality: np.count_nonzero(image[prepared.foreground]) / total  # 0 is what was not measured
            for modality, image in zip(self.card.modalities, prepared.image, strict=True)
            if modality in job.images
        }
        if few := {m: share for m, share in shares.items() if share < LEAST_SHARE}:
            listed = ", ".join(f"{m} {share:.0%}" for m, share in few.items())
            hint = "Look at the images together."
            if not self.options.align:
                hint = "If the patient moved between the scans, have the images aligned."
            what = f"The images show different parts of the patient: {listed} of what they show together."
            self.events.warning(what, job.images[next(iter(few))], hint)

    def _write(
        self, outputs: Outputs, result: Labelling, measured: list[Measurement], reference: str, target: Grid
    ) -> None:
        structures = self.card.structures
        table = measurements_csv([m.to_dict() for m in measured], self.card.modalities)
        write_atomically(outputs.table, lambda p: p.write_text(table, encoding="utf-8"))
        if outputs.label.name.lower().endswith(".seg.nrrd"):
            write_atomically(outputs.label, lambda p: write_seg_nrrd(p, result.layers, target, structures))
        else:
            write_atomically(outputs.label, lambda p: write_like(reference, target, result.label, p))

    def _write_overlay(self, path: Path | None, result: Labelling, reference: str) -> str | None:
        """Paint the picture; a segmentation without its picture is still a segmentation."""
        if path is None:
            return None
        from emim.inference.picture import write_picture

        try:
            write_atomically(path, lambda p: write_picture(p, reference, result, self.card.structures))
        except Exception as error:
            self.events.warning(f"The overlay picture could not be made: {error}.", path)
            return None
        return str(path)
