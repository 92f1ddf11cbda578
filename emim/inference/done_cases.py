"""Which cases of a cohort are done, so that a batch can go on where an earlier one ended.

Beside the results lie files ``.segmented-RANK.jsonl``, one for each process, to which a line is appended
before a case is begun and after it is done or has failed; of a case the latest line counts. They survive a
kill, and tell what the results were made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emim.cohort.folder import DONE_LOG
from emim.errors import EmimError
from emim.inference.job import Job, Options
from emim.inference.outputs import file_checksum
from emim.package.archive import CHECKSUMS, PackageFiles
from emim.package.bundle import Package

Result = dict[str, Any]
# time, case, made_with, inputs (fingerprints), result (None: it was begun)
Record = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What earlier batches left in a folder.

    Attributes:
        results: of cases that are asked for and need not be computed again, by id.
        others: of cases that are not asked for now.
        redone: ids of cases that were begun and not ended, that failed, or whose segmentation was removed
            since: what there is of their files is EMIM's own.
        begun: whether an earlier batch has worked in the folder, so that the tables are EMIM's own.
    """

    results: dict[str, Result] = field(default_factory=dict)
    others: list[Result] = field(default_factory=list)
    redone: frozenset[str] = frozenset()
    begun: bool = False


def fingerprint(package: Package, options: Options, extension: str) -> str:
    """A text that is the same for the same model and settings."""
    model = PackageFiles(package.path).read(CHECKSUMS).decode("utf-8")
    settings = [*options.effort, options.probabilities, options.overlay, options.align, extension]
    return _digest(model, settings)


def inputs_fingerprint(job: Job) -> str | None:
    """A text that is the same for files of the same size and time of change; None where one is missing."""
    try:
        files = {m: ((s := os.stat(p)).st_size, s.st_mtime_ns) for m, p in sorted(job.images.items())}
    except OSError:
        return None
    return _digest(job.reference, files)


def find_done(folder: Path, jobs: Sequence[Job], made_with: str) -> Done:
    """Look for what is done of ``jobs``.

    Raises:
        EmimError: when the folder holds results of another model or of other settings, or the result of a
            case whose images have changed since.
    """
    latest = _latest(folder)
    done = _done(latest)
    asked = {job.case: job for job in jobs}
    redone = {
        case
        for case, record in latest.items()
        if case not in done and not (record["result"] and _drawn_since(asked.get(case), record["time"]))
    }
    results, others = {}, []
    for case, record in done.items():
        job, label = asked.get(case), _label(folder, record)
        if not label.is_file():
            redone.add(case)
            continue
        if record["made_with"] != made_with:
            raise EmimError(
                "The folder holds results of another model or of other settings.",
                label,
                "Choose another folder, or move the results away.",
            )
        if job is None:
            others.append(record["result"])
        elif record["inputs"] is None or record["inputs"] != inputs_fingerprint(job):
            raise EmimError(
                f"The images of case {case} are not those that its result in the folder was made of.",
                label,
                "Choose another folder, or move the results away.",
            )
        else:
            results[case] = _as_it_is(job, record["result"])
    return Done(results, others, frozenset(redone), bool(latest))


def changed_results(folder: Path, cases: Collection[str]) -> list[Path]:
    """The segmentations of ``cases`` that are not what a batch wrote, as somebody has corrected them."""
    done = _done(_latest(folder))
    files = [(_label(folder, record), record) for case, record in sorted(done.items()) if case in cases]
    return [file for file, record in files if file.is_file() and _is_another(file, record)]


class DoneLog:
    """Appends what a process does.

    Args:
        folder: of the results.
        rank: of the process.
        made_with: see :func:`fingerprint`.
    """

    def __init__(self, folder: Path, rank: int, made_with: str) -> None:
        self._file, self._made_with = folder / DONE_LOG.replace("*", str(rank)), made_with

    def begin(self, cases: Iterable[str]) -> None:
        """Tell what is going to be done.

        Raises:
            EmimError: when the folder cannot be written to.
        """
        self._append({"case": case, "inputs": None, "result": None} for case in cases)

    def end(self, result: Result, inputs: str | None) -> None:
        """Tell that a case is done or has failed, and the fingerprint that its files had before.

        Raises:
            EmimError: when the folder cannot be written to.
        """
        self._append([{"case": result["case"], "inputs": inputs, "result": result}])

    def _append(self, records: Iterable[Record]) -> None:
        common = {"time": time.time(), "made_with": self._made_with}
        # A line that a killed process began must not swallow the next one.
        text = "".join("\n" + json.dumps({**common, **record}) for record in records)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            reason = error.strerror or error
            raise EmimError(
                f"The folder of the results cannot be written to: {reason}.", self._file
            ) from error


def _latest(folder: Path) -> dict[str, Record]:
    return {r["case"]: r for r in sorted(_records(folder), key=lambda r: r["time"])}


def _done(latest: dict[str, Record]) -> dict[str, Record]:
    return {case: r for case, r in latest.items() if r["result"] and "error" not in r["result"]}


def _label(folder: Path, record: Record) -> Path:
    """The segmentation of a case that was done; the folder may have been moved since."""
    return folder / Path(record["result"]["output"]).name


def _records(folder: Path) -> Iterator[Record]:
    for file in folder.glob(DONE_LOG):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                yield {name: record[name] for name in ("time", "case", "made_with", "inputs", "result")}
            except (ValueError, KeyError, TypeError):  # empty, or cut off when the process was killed
                continue


def _drawn_since(job: Job | None, failed: float) -> bool:
    """Whether somebody has put a result there since the case had ``failed``."""
    return job is not None and any(f.is_file() and f.stat().st_mtime > failed for f in job.outputs.all())


def _as_it_is(job: Job, result: Result) -> Result:
    """``result`` with the paths of ``job``, as the folder may have been moved; without files now gone."""

    def there(path: Path | None) -> str | None:
        return str(path) if path is not None and path.is_file() else None

    outputs = job.outputs
    return {
        **result,
        "inputs": job.images,
        "output": str(outputs.label),
        "table": there(outputs.table),
        "overlay": there(outputs.overlay),
        "probabilities": {n: str(p) for n, p in outputs.probabilities.items() if p.is_file()},
    }


def _is_another(file: Path, record: Record) -> bool:
    written = record["result"].get("checksum")
    if written is None:  # of an earlier version
        return file.stat().st_mtime > record["time"]
    return file_checksum(file) != written


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
