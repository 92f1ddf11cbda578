"""Which cases a model, or the weights it began with, has seen in training: no fair judgement rests on those.

A run folder records its cases with a digest of the voxels of every image, by which an image is known again
under another name. An image that was resampled, cropped or otherwise computed anew since is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.volume import DIGEST
from emim.errors import EmimError
from emim.run_state import RunState, read_run

if TYPE_CHECKING:
    from emim.cohort.scan import CaseRow, Scan

NAMED = 20  # cases in a sentence
CHECK = "Make sure yourself that none of these cases was among it."


@dataclass(frozen=True)
class Seen:
    """What a model has seen of some cases.

    Attributes:
        learned: id to where, of cases that training or validation has seen with labels or classes, and of
            other examinations of their subjects.
        pretrained: ids of others that only pre-training has seen, without labels.
        doubts: what could not be told, in sentences.
    """

    learned: dict[str, str] = field(default_factory=dict)
    pretrained: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def sentences(self, scored: Collection[str]) -> list[str]:
        """What is to be told beside the scores of the cases ``scored``."""
        told = []
        if inside := {i: where for i, where in self.learned.items() if i in scored}:
            told.append(f"Not new to the model, so that their scores flatter it: {_by_place(inside)}.")
        if outside := {i: where for i, where in self.learned.items() if i not in scored}:
            told.append(f"Left out, as they are not new to the model: {_by_place(outside)}.")
        if self.pretrained:
            told.append(f"Seen in pre-training, without labels: {_names(self.pretrained)}.")
        return [*told, *self.doubts]


def cases_seen(model: str | Path, found: Scan, ids: Collection[str]) -> Seen:
    """What the model has seen of the cases ``ids`` of a scan.

    Args:
        model: a fine-tuning run folder, its ``model``, or a package, which does not tell: a doubt.
        found: the whole scan, as a case that was seen tells of the other ones of its subject.
    """
    runs, doubts = _ancestry(model)
    learned: dict[str, str] = {}
    pretrained: set[str] = set()
    for run in runs:
        cases, doubt = _recorded_cases(run.folder)
        doubts += [doubt] if doubt else []
        hits = _known_again(cases, run.name, found.rows)
        if run.command == "pretrain":
            pretrained |= hits.keys()
            continue
        learned = {**hits, **learned}
        subjects = {case["subject"] for case in cases.values()}
        alike = [r.id for r in found.rows if r.subject in subjects and r.id in ids and r.id not in learned]
        if alike:
            what = f"In {run.name}, subjects of other images have the names of these: {_names(alike)}."
            doubts.append(f"{what} Make sure that they are other people.")
    return Seen(
        {i: where for i, where in sorted(learned.items()) if i in ids},
        tuple(sorted(i for i in pretrained if i in ids and i not in learned)),
        tuple(doubts),
    )


def _ancestry(model: str | Path) -> tuple[list[RunState], list[str]]:
    """The run that made a model, that whose weights it began with, and so on; and where this is not known."""
    runs: list[RunState] = []
    path: str | Path | None = model
    while path is not None and Path(path).absolute() not in [run.folder for run in runs]:
        run = _run_of(Path(path))
        if run is None:
            return runs, [f"What {Path(path).name} has learned from is not recorded at {path}. {CHECK}"]
        runs.append(run)
        path = run.init
    return runs, []


def _run_of(path: Path) -> RunState | None:
    for folder in (path, path.parent) if path.name == "model" else (path,):
        try:
            return read_run(folder)
        except (EmimError, OSError):
            continue
    return None


def _recorded_cases(run: Path) -> tuple[dict[str, Any], str]:
    """The cases that a run has trained or validated on, by id, with their ``part``; and a doubt, or ""."""
    try:
        split, cohort = (
            json.loads((run / name).read_text(encoding="utf-8")) for name in ("split.json", "cohort.json")
        )
        parts = {i: part for part in ("training", "validation") for i in split[part]}
        cases = {c["id"]: {**c, "part": parts[c["id"]]} for c in cohort["cases"] if c["id"] in parts}
        digests = [_digest(case, path) for case in cases.values() for path in case["images"].values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}, f"The cases of {run.name} cannot be read from its folder, {run}. {CHECK}"
    if all(digests) and cases.keys() == parts.keys():
        return cases, ""
    return cases, f"{run.name} has no record of its voxels: copies under other names are not known again."


def _known_again(cases: dict[str, Any], run: str, rows: Sequence[CaseRow]) -> dict[str, str]:
    """Ids of the rows that a run has seen, and of others of their subjects, with where."""
    known = {}
    for case in cases.values():
        for path in case["images"].values():
            known |= {key: case for key in (_digest(case, path), os.path.normcase(path)) if key}
    hits, subjects = {}, {}
    for row in rows:
        keys = [k for p in row.images.values() for k in (row.files[p].digest, os.path.normcase(p))]
        case = next((known[k] for k in keys if k in known), None)
        if case is not None:
            name = "" if case["id"] == row.id else f" as {case['id']}"
            hits[row.id] = f"{case['part']} of {run}{name}"
            subjects[row.subject] = row.id
    others = {r.id: subjects[r.subject] for r in rows if r.subject in subjects and r.id not in hits}
    return {**hits, **{i: f"same subject as {seen}: {hits[seen]}" for i, seen in others.items()}}


def _digest(case: dict[str, Any], path: str) -> str | None:
    """Of the voxels of an image; None where none, or one of the earlier kind, was recorded."""
    digest = case.get("files", {}).get(path, {}).get("digest")
    return digest if digest and digest.startswith(DIGEST) else None


def _by_place(learned: Mapping[str, str]) -> str:
    places: dict[str, list[str]] = {}
    for case, where in learned.items():
        places.setdefault(where, []).append(case)
    return "; ".join(f"{_names(ids)} ({where})" for where, ids in places.items())


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
