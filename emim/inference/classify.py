"""The probability of each class for a case, or for every case of a cohort, with a model package."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Case, Cohort
from emim.errors import EmimError
from emim.events import Events
from emim.inference.ahead import LoadedModel, failure, run_cases
from emim.inference.inputs import choose_reference, match_inputs
from emim.inference.job import Job, Options
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.quality import QUALITIES
from emim.inference.reading import Ready
from emim.inference.table import predictions_csv
from emim.package.bundle import Package, read_package

if TYPE_CHECKING:
    from emim.cohort.scan import Scan

DONE = "classified"


def classify(
    model: str | Path | Package,
    inputs: Mapping[str, str | Path] | None,
    output: str | Path | None = None,
    *,
    cohort: Cohort | Scan | None = None,
    device: str = "auto",
    align: bool = False,
    reference: str | None = None,
    events: Events | None = None,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any] | list[dict[str, Any]]:
    """Classify one case (``inputs``) or all cases of a ``cohort``.

    The whole foreground is looked at, in crops of the size of training, whose positions are pooled together.
    Training weighs classes alike, so probabilities suppose that each class was as likely beforehand.

    Args:
        model: a package folder or zip, or a fine-tuning run folder.
        inputs: modality name, in any case, to image file. Grids may differ.
        output: CSV file with a line a case: ``case``, ``subject``, ``class``, ``probability_NAME`` of each
            class, and ``error``, why there is none; None: no file.
        device: auto, cpu, cuda, cuda:1, mps …
        align: first bring the images to where the reference shows the same, by rigid registration.
        reference: modality on whose grid the others are brought; None: the model's own, else the first given.
        overwrite: replace an output that exists.
        should_stop: asked before each crop; true cancels.

    Returns:
        For a case ``case``, ``subject``, ``inputs`` (modality to file), ``class`` (the most probable),
        ``probabilities`` (name to probability), ``reference``, ``missing`` (modalities), ``input_grids`` (a
        sentence, None where all lie on one grid), ``device`` and ``seconds``. For a cohort a list of these; a
        case that failed has ``case``, ``subject``, ``inputs`` and ``error`` (what, where, hint) instead.

    Raises:
        EmimError: for bad input, before any work; in a cohort only for what concerns all cases.
        Cancelled: when ``should_stop`` said so; nothing is written then.
    """
    if (inputs is None) == (cohort is None):
        raise EmimError("Give either the inputs of one case or a cohort.", hint="Not both, not neither.")
    package = model if isinstance(model, Package) else read_package(model)
    package.card.require("classification", package.path)
    options = Options(QUALITIES["fast"], False, False, reference, align, overwrite, should_stop)
    events = events or Events()
    cases = [Case("", "", {m: str(p) for m, p in inputs.items()})] if inputs is not None else None
    results: list[dict[str, Any]] = []
    subjects = {"": ""}
    if cases is None:
        cases = list(getattr(cohort, "cohort", cohort).cases)
        rows = [row for row in getattr(cohort, "rows", ()) if not row.usable]
        subjects = {c.id: c.subject for c in (*cases, *rows)}
        for row in rows:
            error = EmimError(f"Left out by the scan: {'; '.join(row.problems)}")
            results.append(failure(row.id, {}, error, events, DONE))
        if not cases:
            raise EmimError(
                "The cohort has no usable case.", hint="`emim scan` says what is wrong with each."
            )
    table = None if output is None else Path(output).absolute()
    if table is not None:
        images = [i for c in cases for i in c.images.values()]
        check_writable([table], images, overwrite)
    jobs = []
    for case in cases:
        try:
            jobs.append(_plan(package, case, options, several=inputs is None))
        except EmimError as error:
            if inputs is not None:
                raise
            results.append(failure(case.id, case.images, error, events, DONE))
    if not jobs:
        first = results[0]["error"]
        raise EmimError(
            f"No case can be classified. The first: {first['what']}", first["where"], first["hint"]
        )
    for done, (job, result) in enumerate(run_cases(_Classifier, package, jobs, device, options, events), 1):
        if isinstance(result, Exception):
            if inputs is not None:
                raise result
            result = failure(job.case, job.images, result, events, DONE)
        elif inputs is None:
            events.case(**result)
        results.append(result)
        events.progress(done, len(jobs), "case", job.case)
    results = [{"case": r["case"], "subject": subjects[r["case"]], **r} for r in results]
    results.sort(key=lambda r: r["case"])
    if table is not None:
        text = predictions_csv(results, package.card.classes)
        write_atomically(table, lambda p: p.write_text(text, encoding="utf-8"))
    return results[0] if inputs is not None else results


def _plan(package: Package, case: Case, options: Options, several: bool) -> Job:
    images = match_inputs(package.card, case.images, ignore_others=several)
    return Job(case.id, images, choose_reference(package.card, images, options.reference), None, case.id)


class _Classifier(LoadedModel):
    """A loaded network that classifies one case after the other."""

    def run(self, job: Job, ready: Ready) -> dict[str, Any]:
        """The probabilities of the classes."""
        from emim.inference.case_features import case_features, class_probabilities

        started = time.monotonic()
        card, prepared = self.card, ready.prepared
        if ready.warning:
            self.events.warning(*ready.warning)
        features = case_features(
            self.network, prepared.image, prepared.present, prepared.foreground, card, self.device,
            self.options.should_stop,
        )  # fmt: skip
        shares = class_probabilities(self.network, features)
        return {
            "case": job.case,
            "inputs": job.images,
            "class": card.classes[int(shares.argmax())],
            "probabilities": dict(zip(card.classes, shares.tolist(), strict=True)),
            "reference": job.reference,
            "missing": ready.missing,
            "input_grids": ready.grids,
            "device": str(self.device),
            "seconds": round(ready.seconds + time.monotonic() - started, 2),
        }
