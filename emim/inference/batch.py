"""Segmenting every case of a cohort, with all processes that torchrun started."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emim.cohort.case import Case
from emim.errors import EmimError
from emim.events import Events
from emim.inference.ahead import failure, run_cases
from emim.inference.done_cases import Done, DoneLog, find_done, fingerprint, inputs_fingerprint
from emim.inference.job import Job, Options, plan
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.table import cohort_csv
from emim.inference.worker import Worker
from emim.machine.distributed import gather, on_every_rank, on_first_rank, on_ranks, rank, size
from emim.package.bundle import Package

SUMMARY, SUMMARY_VERSION = "summary.json", 1
TABLE = "measurements.csv"
DONE = "segmented"


def segment_cohort(
    package: Package,
    cases: Sequence[Case],
    left_out: Mapping[str, str],
    folder: Path,
    extension: str,
    device: str,
    options: Options,
    events: Events,
) -> list[dict[str, Any]]:
    """Segment every case; what is wrong with one case does not keep the others from being done.

    Each rank takes its share of the cases; the first writes the summary of all, and all return it. With
    ``options.resume`` what earlier batches have done is not done again (:mod:`emim.inference.done_cases`).

    ``left_out`` are the ids of cases that the scan found unusable, with the reason: failures too.
    See :func:`emim.inference.segment.segment` for the rest.
    """
    if not cases:
        raise EmimError("The cohort has no usable case.", hint="`emim scan` says what is wrong with each.")
    if folder.is_file():
        raise EmimError("For a cohort the output is a folder, but this is a file.", folder)
    results = [
        failure(i, {}, EmimError(f"Left out by the scan: {why}"), events, DONE) for i, why in left_out.items()
    ]
    jobs: list[Job] = []
    for case in cases:
        if Path(case.id).name != case.id or case.id in ("", ".", ".."):
            raise EmimError(
                f"The case id {case.id!r} cannot name a file.", hint="Use letters, digits, - and _."
            )
        try:
            jobs.append(plan(package.card, case.id, case.images, folder / f"{case.id}{extension}", options))
        except EmimError as error:
            results.append(failure(case.id, case.images, error, events, DONE))
    if not jobs:
        first = results[0]["error"]
        raise EmimError(
            f"No case can be segmented. The first: {first['what']}", first["where"], first["hint"]
        )
    made_with = fingerprint(package, options, extension)
    earlier = on_first_rank(lambda: find_done(folder, jobs, made_with)) if options.resume else Done()
    left = [job for job in jobs if job.case not in earlier.results]
    if earlier.results:
        events.status(f"{len(earlier.results)} of {len(jobs)} cases are done already.")
    given = [file for case in cases for file in (*case.images.values(), case.label) if file]
    on_first_rank(lambda: _check_writable(folder, left, given, earlier, options))
    for result in earlier.results.values():
        events.case(**result)
        results.append(result)
    mine = left[rank() :: size()]
    of = f"of {len(mine)}{on_ranks()}"
    mine = [replace(job, text=f"{job.case} ({i} {of})") for i, job in enumerate(mine, 1)]
    done: list[dict[str, Any]] = []
    log, inputs = DoneLog(folder, rank(), made_with), {job.case: inputs_fingerprint(job) for job in left}

    def work() -> None:
        log.begin(job.case for job in mine)
        for job, result in run_cases(Worker, package, mine, device, options, events):
            if isinstance(result, Exception):
                result = failure(job.case, job.images, result, events, DONE)
            else:
                events.case(**result)
            log.end(result, inputs[job.case])
            done.append(result)

    try:
        on_every_rank(work)
    finally:
        first, *others = gather(done)
        for result in (result for part in others for result in part):  # of ranks that are silent
            events.case(**result)
        results += [result for part in (first, *others) for result in part]
        results.sort(key=lambda r: r["case"])
        named = {r["case"] for r in results}
        told = [*results, *(r for r in earlier.others if r["case"] not in named)]
        on_first_rank(lambda: _write_summary(folder, package, sorted(told, key=lambda r: r["case"])))
    return results


def _check_writable(
    folder: Path, jobs: Sequence[Job], given: Sequence[str], earlier: Done, options: Options
) -> None:
    """Refuse to write over anything but what earlier batches left half done, and their tables of all.

    Images and labels of the cohort, ``given``, are never written over.
    """
    new = [f for job in jobs if job.case not in earlier.redone for f in job.outputs.all()]
    hint = "Resume, choose another folder, or overwrite the results."
    if options.resume:
        hint = "Move it away, or choose another folder."
    check_writable(new, given, options.overwrite, hint)
    redone = [f for job in jobs if job.case in earlier.redone for f in job.outputs.all()]
    check_writable(
        [*redone, folder / SUMMARY, folder / TABLE], given, options.overwrite or earlier.begun, hint
    )


def _write_summary(folder: Path, package: Package, results: list[dict[str, Any]]) -> None:
    done = [r for r in results if "error" not in r]
    data = {
        "version": SUMMARY_VERSION,
        "model": package.card.name,
        "segmented": len(done),
        "failed": len(results) - len(done),
        "cases": results,
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    write_atomically(folder / SUMMARY, lambda p: p.write_text(text, encoding="utf-8"))
    text_table = cohort_csv(done, package.card.modalities)
    write_atomically(folder / TABLE, lambda p: p.write_text(text_table, encoding="utf-8"))
