"""Segmenting one case after the other with a loaded network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from emim.config import Structure
from emim.inference.ahead import LoadedModel
from emim.inference.image_file import write_like
from emim.inference.job import Job
from emim.inference.labelling import Labelling, label_on_grid
from emim.inference.measure import Measurement, measure
from emim.inference.outputs import Outputs, file_checksum, write_atomically
from emim.inference.reading import Ready
from emim.inference.seg_nrrd import write_seg_nrrd
from emim.inference.table import measurements_csv
from emim.machine.heap import give_back_memory
from emim.volumes.grid import Grid


class Worker(LoadedModel):
    """A loaded network that segments one case after the other."""

    def run(self, job: Job, ready: Ready) -> dict[str, Any]:
        """Segment one case and write its outputs."""
        from emim.inference.predict import predict_case
        from emim.volumes.io import read_header

        started = time.monotonic()
        card, options = self.card, self.options
        without = (
            f" without {', '.join(ready.missing)}, as the model was trained to do" if ready.missing else ""
        )
        self.events.status(f"Segmenting {job.text}".rstrip() + without)
        if ready.grids:
            self.events.status(ready.grids)
        if ready.warning:
            self.events.warning(*ready.warning)
        give_back_memory()
        probabilities = predict_case(
            self.network, ready.prepared, card, self.device, options.effort, self.events,
            options.should_stop, job.text,
        )  # fmt: skip
        grid = ready.prepared.grid
        ready.prepared = None  # its memory is needed for the result
        give_back_memory()
        reference = job.images[job.reference]
        target = read_header(reference).grid

        def save(structure: Structure, channel: np.ndarray) -> None:
            if structure.name in job.outputs.probabilities:
                path = job.outputs.probabilities[structure.name]
                write_atomically(path, lambda p: write_like(reference, target, channel, p))

        result = label_on_grid(card, probabilities, grid, target, save)
        moves = {m: a.matrix_lps for m, a in ready.alignments.items()}
        measured = measure(card.structures, result, target, card.modalities, job.images, moves)
        self._write(job.outputs, result, measured, reference, target)
        give_back_memory()
        overlay = self._write_overlay(job.outputs.overlay, result, reference)
        return {
            "case": job.case,
            "inputs": job.images,
            "output": str(job.outputs.label),
            "checksum": file_checksum(job.outputs.label),
            "table": str(job.outputs.table),
            "overlay": overlay,
            "probabilities": {n: str(p) for n, p in job.outputs.probabilities.items()},
            "volumes_ml": result.volumes,
            "measurements": [m.to_dict() for m in measured],
            "reference": job.reference,
            "missing": ready.missing,
            "input_grids": ready.grids,
            "alignments": {m: a.to_dict() for m, a in ready.alignments.items()},
            "device": str(self.device),
            "seconds": round(ready.seconds + time.monotonic() - started, 2),
        }

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
