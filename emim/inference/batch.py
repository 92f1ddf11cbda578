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
from emim.inference.job import Job, Options, plan
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.table import cohort_csv
from emim.inference.worker import Worker
from emim.machine.distributed import gather, on_every_rank, on_first_rank, on_ranks, rank, size
from emim.package.bundle import Package

SUMMARY_VERSION = 1
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

    Each rank takes its share of the cases; the first writes the summary of all, and all return it.

    ``left_out`` are the ids of cases that the scan found unusable, with the reason: failures too.
    See :func:`emim.inference.segment.segment` for the rest.
    """
    if not cases:
        raise EmimError("The cohort has no usable case.", hint="`emim scan` says what is wrong with each.")
    if folder.is_file():
        raise EmimError("For a cohort the output is a folder, but this is a file.", folder)
    results = [
        failure(i, EmimError(f"Left out by the scan: {why}"), events, DONE) for i, why in left_out.items()
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
            results.append(failure(case.id, error, events, DONE))
    if not jobs:
        first = results[0]["error"]
        raise EmimError(
            f"No case can be segmented. The first: {first['what']}", first["where"], first["hint"]
        )
    summary, table = folder / "summary.json", folder / "measurements.csv"
    files = [f for job in jobs for f in job.outputs.all()]
    images = [i for job in jobs for i in job.images.values()]
    on_first_rank(lambda: check_writable([*files, summary, table], images, options.overwrite))
    mine = jobs[rank() :: size()]
    of = f"of {len(mine)}{on_ranks()}"
    mine = [replace(job, text=f"{job.case} ({i} {of})") for i, job in enumerate(mine, 1)]
    done: list[dict[str, Any]] = []

    def work() -> None:
        for job, result in run_cases(Worker, package, mine, device, options, events):
            failed = isinstance(result, Exception)
            done.append(failure(job.case, result, events, DONE) if failed else result)

    try:
        on_every_rank(work)
    finally:
        results += [result for part in gather(done) for result in part]
        results.sort(key=lambda r: r["case"])
        on_first_rank(lambda: _write_summary(summary, table, package, results))
    return results


def _write_summary(summary: Path, table: Path, package: Package, results: list[dict[str, Any]]) -> None:
    data = {
        "version": SUMMARY_VERSION,
        "model": package.card.name,
        "segmented": sum("error" not in r for r in results),
        "failed": sum("error" in r for r in results),
        "cases": results,
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    write_atomically(summary, lambda p: p.write_text(text, encoding="utf-8"))
    done = [r for r in results if "error" not in r]
    text_table = cohort_csv(done, package.card.modalities)
    write_atomically(table, lambda p: p.write_text(text_table, encoding="utf-8"))
