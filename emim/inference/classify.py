"""The probability of each class for a case, or for every case of a cohort, with a model package."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Case, Cohort
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.inference.inputs import choose_reference, match_inputs
from emim.inference.job import Job, Options
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.quality import QUALITIES
from emim.inference.reading import Ready, read_case
from emim.package.bundle import Package, read_package

if TYPE_CHECKING:
    from emim.cohort.scan import Scan

PROBABILITY = "probability_"  # and the name of the class: a column of the table


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
        For a case ``case``, ``subject``, ``class`` (the most probable), ``probabilities`` (name to
        probability), ``reference``, ``missing`` (modalities), ``input_grids`` (a sentence, None where all lie
        on one grid), ``device`` and ``seconds``. For a cohort a list of these; a case that failed has
        ``case``, ``subject`` and ``error`` (what, where, hint) instead.

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
    failed: list[dict[str, Any]] = []
    if cases is None:
        cases = list(getattr(cohort, "cohort", cohort).cases)
        rows = [row for row in getattr(cohort, "rows", ()) if not row.usable]
        for row in rows:
            error = EmimError(f"Left out by the scan: {'; '.join(row.problems)}")
            failed.append(_failure(row.id, row.subject, error, events))
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
            jobs.append((_plan(package, case, options, several=inputs is None), case.subject))
        except EmimError as error:
            if inputs is not None:
                raise
            failed.append(_failure(case.id, case.subject, error, events))
    if not jobs:
        first = failed[0]["error"]
        raise EmimError(
            f"No case can be classified. The first: {first['what']}", first["where"], first["hint"]
        )
    results = failed
    for (job, subject), result in _run(package, jobs, device, options, events):
        if isinstance(result, Exception):
            if inputs is not None:
                raise result
            result = _failure(job.case, subject, result, events)
        results.append(result)
    results.sort(key=lambda r: r["case"])
    if table is not None:
        text = predictions_csv(results, package.card.classes)
        write_atomically(table, lambda p: p.write_text(text, encoding="utf-8"))
    return results[0] if inputs is not None else results


def predictions_csv(results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """The table of :func:`classify`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "subject", "class", *(f"{PROBABILITY}{c}" for c in classes), "error"])
    for r in results:
        known = r.get("probabilities", {})
        shares = [f"{known[c]:.6f}" if c in known else "" for c in classes]
        error = r["error"]["what"] if "error" in r else ""
        writer.writerow([r["case"], r["subject"], r.get("class", ""), *shares, error])
    return out.getvalue()


def _plan(package: Package, case: Case, options: Options, several: bool) -> Job:
    images = match_inputs(package.card, case.images, ignore_others=several)
    return Job(case.id, images, choose_reference(package.card, images, options.reference), None, case.id)


def _run(
    package: Package, jobs: Sequence[tuple[Job, str]], device: str, options: Options, events: Events
) -> Iterator[tuple[tuple[Job, str], dict[str, Any] | Exception]]:
    """Each job with its result, or why there is none; the next case is read while one is computed."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read_case, jobs[0][0], package.card, options, events)
        classifier = _Classifier(package, device, options, events)  # torch is imported meanwhile
        for done, (job, subject) in enumerate(jobs):
            events.progress(done, len(jobs), "case", job.case)
            result: dict[str, Any] | Exception
            try:
                ready = ahead.result()
            except Cancelled:
                raise
            except Exception as error:  # one bad case must not cost the others
                ready, result = None, error
            if done + 1 < len(jobs):
                ahead = reader.submit(read_case, jobs[done + 1][0], package.card, options, events)
            if ready is not None:
                try:
                    result = classifier.run(job, subject, ready)
                except Cancelled:
                    ahead.cancel()
                    raise
                except Exception as error:
                    result = error
            yield (job, subject), result
        events.progress(len(jobs), len(jobs), "case")


class _Classifier:
    """A loaded network that classifies one case after the other."""

    def __init__(self, package: Package, device: str, options: Options, events: Events) -> None:
        from emim.inference.predict import load_network
        from emim.machine.device import choose_device
        from emim.machine.heap import keep_large_blocks

        keep_large_blocks()
        self.card, self.options, self.events = package.card, options, events
        self.device = choose_device(device)
        events.status(f"Loading the model {self.card.name} on {self.device}")
        self.network = load_network(package, self.device)

    def run(self, job: Job, subject: str, ready: Ready) -> dict[str, Any]:
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
            "subject": subject,
            "class": card.classes[int(shares.argmax())],
            "probabilities": dict(zip(card.classes, shares.tolist(), strict=True)),
            "reference": job.reference,
            "missing": ready.missing,
            "input_grids": ready.grids,
            "device": str(self.device),
            "seconds": round(ready.seconds + time.monotonic() - started, 2),
        }


def _failure(case: str, subject: str, error: Exception, events: Events) -> dict[str, Any]:
    if isinstance(error, EmimError):
        told = {"what": error.what, "where": error.where, "hint": error.hint}
    else:
        told = {"what": f"{type(error).__name__}: {error}", "where": None, "hint": None}
    events.warning(f"Case {case} was not classified: {told['what']}", told["where"], told["hint"])
    return {"case": case, "subject": subject, "error": told}
