"""Segmenting a case, or every case of a cohort, with a model package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Cohort
from emim.errors import EmimError
from emim.events import Events
from emim.inference.batch import segment_cohort
from emim.inference.job import Options, plan
from emim.inference.outputs import check_writable
from emim.inference.quality import QUALITIES
from emim.inference.reading import read_case
from emim.inference.worker import Worker
from emim.machine.distributed import joined
from emim.package.bundle import Package, read_package

if TYPE_CHECKING:
    from emim.cohort.scan import Scan


def segment(
    model: str | Path | Package,
    inputs: Mapping[str, str | Path] | None,
    output: str | Path,
    *,
    cohort: Cohort | Scan | None = None,
    extension: str = ".nii.gz",
    device: str = "auto",
    quality: str = "balanced",
    overlap: float | None = None,
    mirror: bool | None = None,
    align: bool = False,
    probabilities: bool = False,
    overlay: bool = True,
    reference: str | None = None,
    events: Events | None = None,
    overwrite: bool = False,
    resume: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any] | list[dict[str, Any]]:
    """Segment one case (``inputs``) or all cases of a ``cohort``.

    The label map has exactly the grid of the reference input. Beside ``seg.nii.gz`` lie
    ``seg_measurements.csv`` (volume, largest diameter and mean intensities of each whole structure),
    ``seg_overlay.png`` and, when wanted, ``seg_probability_NAME.nii.gz`` (float32). For a cohort
    ``output`` is a folder that receives these files once per case, named by its id, and
    ``measurements.csv`` and ``summary.json`` for all.

    Args:
        model: a package folder or zip, or a fine-tuning run folder.
        inputs: modality name, in any case, to image file. Grids may differ.
        output: file ending in .nii.gz, .nii, .seg.nrrd, .nrrd or .mha; a folder for a cohort.
        extension: ending of the label maps of a cohort.
        device: auto, cpu, cuda, cuda:1, mps …
        quality: "fast", "balanced" or "best", see :mod:`emim.inference.quality`.
        overlap: share of a tile covered by its neighbour, 0 to below 1; None: as ``quality`` says.
        mirror: average each tile and its mirror image, where the model was trained on these: twice the time,
            often a little better; None: as ``quality`` says.
        align: first bring the images to where the reference shows the same, by rigid registration.
        reference: modality whose grid the result gets; None: the model's own, else the first given.
        overwrite: replace output files that exist.
        resume: of a cohort, leave the cases that earlier calls with the same model and settings have done
            into the same folder, and do those that are new, failed, or were not reached.
        should_stop: asked before each tile; true cancels.

    Returns:
        For a case ``case``, ``inputs`` (modality to file), ``output, table, overlay, probabilities``
        (paths), ``checksum`` (of ``output`` as it was written), ``volumes_ml`` (name to mL),
        ``measurements`` (see :class:`emim.inference.measure.Measurement`), ``reference``, ``missing``
        (modalities), ``input_grids`` (a sentence, None where all lie on one grid), ``alignments``
        (modality to :class:`emim.registration.alignment.Alignment`), ``device`` and ``seconds``. For a
        cohort a list of these; a case that failed has ``case``, ``inputs`` and ``error`` (what, where,
        hint) instead.

    Raises:
        EmimError: for bad input, before any work; in a cohort only for what concerns all cases.
        Cancelled: when ``should_stop`` said so; finished cases of a cohort are kept.
    """
    if (inputs is None) == (cohort is None):
        raise EmimError("Give either the inputs of one case or a cohort.", hint="Not both, not neither.")
    if resume and (cohort is None or overwrite):
        hint = "It goes with a cohort, and not with overwrite."
        raise EmimError("This segmentation cannot be resumed.", hint=hint)
    if quality not in QUALITIES:
        raise EmimError(f"There is no quality {quality!r}.", hint=f"Choose one of: {', '.join(QUALITIES)}.")
    given = {"overlap": overlap, "mirror": mirror}
    effort = QUALITIES[quality]._replace(**{k: v for k, v in given.items() if v is not None})
    if not 0 <= effort.overlap < 1:
        raise EmimError(f"The overlap of tiles cannot be {overlap:g}.", hint="It is 0 to below 1, e.g. 0.5.")
    package = model if isinstance(model, Package) else read_package(model)
    package.card.require("segmentation", package.path)
    events = events or Events()
    if effort.mirror and not package.card.mirrored:
        what = "No mirror images are averaged: the model does not say that it was trained on any."
        events.warning(what, package.path, "It may tell left from right.")
    options = Options(effort, probabilities, overlay, reference, align, overwrite, should_stop, resume)
    if inputs is not None:
        job = plan(package.card, "", inputs, Path(output), options)
        check_writable(job.outputs.all(), job.images.values(), overwrite)
        with ThreadPoolExecutor(1) as reader:
            ready = reader.submit(read_case, job, package.card, options, events)
            worker = Worker(package, device, options, events)  # torch is imported meanwhile
            return worker.run(job, ready.result())
    left_out = {row.id: "; ".join(row.problems) for row in getattr(cohort, "rows", ()) if not row.usable}
    cases = getattr(cohort, "cohort", cohort).cases
    folder = Path(output).absolute()
    with joined():
        return segment_cohort(package, cases, left_out, folder, extension, device, options, events)
