"""From the files of a job to what the network takes. Done ahead, while torch loads or another case runs."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emim.cohort.case import Case
from emim.events import Events
from emim.inference.inputs import check_files, describe_grids
from emim.inference.job import Job, Options
from emim.package.model import ModelCard
from emim.volumes.preprocess import PreparedCase, prepare_case

if TYPE_CHECKING:
    from emim.registration.alignment import Alignment

# Co-registered images, stripped one by one, agree in more than nine tenths of the brain.
LEAST_SHARE = 0.85


@dataclass
class Ready:
    """A case ready for the network.

    Attributes:
        prepared: its arrays.
        alignments: modality to how it was aligned to the reference.
        grids: a sentence on the grids of the inputs, None where all lie on one.
        missing: modalities that are not there.
        warning: what, where and hint, when the images show different parts of the patient.
        seconds: what this has taken.
    """

    prepared: PreparedCase
    alignments: dict[str, Alignment]
    grids: str | None
    missing: list[str]
    warning: tuple[str, str, str] | None
    seconds: float


def read_case(job: Job, card: ModelCard, options: Options, events: Events) -> Ready:
    """Check, align and prepare the files of ``job``; only aligning tells ``events`` of it.

    Raises:
        EmimError: naming the file that cannot be used.
        Cancelled: when ``options.should_stop`` said so while aligning.
    """
    started = time.monotonic()
    check_files(job.images, job.reference, options.align)
    alignments = _align(job, options, events)
    moves = {m: a.matrix_lps for m, a in alignments.items()}
    settings = dataclasses.replace(card.preprocess, reference=job.reference)
    prepared = prepare_case(Case(job.case, job.case, job.images), card.modalities, settings, moves)
    return Ready(
        prepared,
        alignments,
        describe_grids(job.images, job.reference),
        [m for m in card.modalities if m not in job.images],
        _gaps(job, card, options, prepared),
        time.monotonic() - started,
    )


def _align(job: Job, options: Options, events: Events) -> dict[str, Alignment]:
    others = {m: path for m, path in job.images.items() if m != job.reference}
    if not options.align or not others:
        return {}
    from emim.registration.register import register

    events.status(f"Aligning {job.text or 'the images'} to {job.reference}")
    return register(job.images[job.reference], others, events, options.should_stop)


def _gaps(job: Job, card: ModelCard, options: Options, prepared: PreparedCase) -> tuple[str, str, str] | None:
    """A warning when images show much less than all together: most often the patient has moved."""
    total = np.count_nonzero(prepared.foreground)
    shares = {
        modality: np.count_nonzero(image[prepared.foreground]) / total  # 0 is what was not measured
        for modality, image in zip(card.modalities, prepared.image, strict=True)
        if modality in job.images
    }
    few = {m: share for m, share in shares.items() if share < LEAST_SHARE}
    if not few:
        return None
    listed = ", ".join(f"{m} {share:.0%}" for m, share in few.items())
    hint = "Look at the images together."
    if not options.align:
        hint = "If the patient moved between the scans, have the images aligned."
    what = f"The images show different parts of the patient: {listed} of what they show together."
    return what, job.images[next(iter(few))], hint
