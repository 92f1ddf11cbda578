"""Which cases of a cohort are done, so that a batch can go on where an earlier one ended.

``summary.json`` in the folder of the results tells the cases of a batch that has ended or was cancelled.
Until it is written, each process appends to a file of its own, ``.segmented-RANK.jsonl``, what it is going to
do and what it has done; these files tell of a batch that was killed, and go with the next summary.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emim.errors import EmimError
from emim.inference.job import Job, Options
from emim.package.archive import CHECKSUMS, PackageFiles
from emim.package.bundle import Package

SUMMARY = "summary.json"
Result = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What earlier batches of the same model and settings left in a folder.

    Attributes:
        results: of cases that are asked for and need not be computed again, by id.
        others: of cases that are not asked for now.
        inputs: fingerprints of the files of both, by id.
        begun: ids of cases some of whose files may be there.
    """

    results: dict[str, Result] = field(default_factory=dict)
    others: list[Result] = field(default_factory=list)
    inputs: dict[str, str | None] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()


def fingerprint(package: Package, options: Options) -> str:
    """A text that is the same for the same model and settings."""
    effort = list(options.effort)
    settings = [effort, options.probabilities, options.overlay, options.align]
    return _digest(PackageFiles(package.path).read(CHECKSUMS).decode("utf-8"), settings)


def inputs_fingerprint(job: Job) -> str | None:
    """A text that is the same for the same files, unchanged, on the same grid; None where one is missing."""
    try:
        files = {m: (p, (s := os.stat(p)).st_size, s.st_mtime_ns) for m, p in sorted(job.images.items())}
    except OSError:
        return None
    return _digest(job.reference, files)


def find_done(folder: Path, jobs: Sequence[Job], made_with: str) -> Done:
    """Look for what is done of ``jobs``.

    Raises:
        EmimError: when the results in the folder are of another model or of other settings.
    """
    records = [*_of_summary(folder), *_of_logs(folder)]
    if any(r["made_with"] != made_with for r in records):
        raise EmimError(
            "The folder holds results of another model or of other settings.",
            folder,
            "Choose another folder, or overwrite them.",
        )
    known = {r["case"]: r for r in records if r["result"] is not None and "error" not in r["result"]}
    asked = {job.case: job for job in jobs}
    results = {
        name: _as_named_by(job, known[name]["result"])
        for name, job in asked.items()
        if name in known and _is_there(job, known[name])
    }
    others = [r["result"] for name, r in known.items() if name not in asked]
    inputs = {n: r["inputs"] for n, r in known.items() if n in results or n not in asked}
    return Done(results, others, inputs, frozenset(r["case"] for r in records))


class DoneLog:
    """Appends what a process does.

    Args:
        folder: of the results.
        rank: of the process.
        made_with: see :func:`fingerprint`.
    """

    def __init__(self, folder: Path, rank: int, made_with: str) -> None:
        self._file, self._made_with = folder / f".segmented-{rank}.jsonl", made_with

    def begin(self, cases: Iterable[str]) -> None:
        """Tell what is going to be done."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._append([{"case": case, "inputs": None, "result": None} for case in cases])

    def end(self, result: Result, inputs: str | None) -> None:
        """Tell that a case is done, and the fingerprint its files had before."""
        self._append([{"case": result["case"], "inputs": inputs, "result": result}])

    def _append(self, records: list[dict[str, Any]]) -> None:
        lines = [json.dumps({"made_with": self._made_with, **r}, ensure_ascii=False) for r in records]
        with open(self._file, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)


def remove_logs(folder: Path) -> None:
    """Remove what a summary tells now."""
    for file in folder.glob(".segmented-*.jsonl"):
        file.unlink(missing_ok=True)


def _of_summary(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        data = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        made_with, inputs = data.get("made_with"), data.get("inputs", {})
        for result in data["cases"]:
            yield {"made_with": made_with, "case": result["case"], "inputs": inputs.get(result["case"]),
                   "result": result}  # fmt: skip
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmimError(
            "What the folder holds cannot be told: its summary is damaged.",
            folder / SUMMARY,
            "Choose another folder, or overwrite the results.",
        ) from error


def _of_logs(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob(".segmented-*.jsonl")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                yield {name: record.get(name) for name in ("made_with", "case", "inputs", "result")}
            except (ValueError, AttributeError):  # the line at which the process was killed
                continue


def _is_there(job: Job, record: Mapping[str, Any]) -> bool:
    wanted = job.outputs.all()
    if record["result"].get("overlay") is None:  # it could not be painted
        wanted = [f for f in wanted if f != job.outputs.overlay]
    unchanged = record["inputs"] is not None and record["inputs"] == inputs_fingerprint(job)
    return unchanged and all(f.is_file() for f in wanted)


def _as_named_by(job: Job, result: Result) -> Result:
    """``result`` with the paths of ``job``: the folder may have been moved."""
    outputs = job.outputs
    return {
        **result,
        "output": str(outputs.label),
        "table": str(outputs.table),
        "overlay": None if result.get("overlay") is None else str(outputs.overlay),
        "probabilities": {n: str(p) for n, p in outputs.probabilities.items()},
    }


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
