"""Which cases a model, or the weights it began with, has seen in training: no fair judgement rests on those.

An image is known again under another name by a digest of its voxels (:mod:`emim.evaluation.lineage`). One
that was resampled, cropped or otherwise computed anew since is not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from emim.evaluation.lineage import LearnedCase, LearnedRun, read_lineage

if TYPE_CHECKING:
    from emim.cohort.scan import CaseRow, Scan

NAMED = 20  # cases in a sentence


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

    def of(self, ids: Collection[str]) -> Seen:
        """What the model has seen of the cases ``ids`` among these."""
        learned = {i: where for i, where in self.learned.items() if i in ids}
        return Seen(learned, tuple(i for i in self.pretrained if i in ids), self.doubts)

    def sentences(self, scored: Collection[str]) -> list[str]:
        """What is to be told beside the scores of the cases ``scored``."""
        told = []
        if inside := {i: where for i, where in self.learned.items() if i in scored}:
            told.append(f"Not new to the model, and thus no test of it: {_by_place(inside)}.")
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
    lineage = read_lineage(model)
    doubts = list(lineage.doubts)
    learned: dict[str, str] = {}
    pretrained: set[str] = set()
    for run in lineage.runs:
        hits = _places(run, found.rows)
        if run.command == "pretrain":
            pretrained |= hits.keys()
            continue
        learned = {**hits, **learned}
        subjects = {case.subject for case in run.cases}
        alike = [r.id for r in found.rows if r.subject in subjects and r.id in ids and r.id not in learned]
        if alike:
            what = f"In {run.name}, subjects of other images have the names of these: {_names(alike)}."
            doubts.append(f"{what} Make sure that they are other people.")
    return Seen(
        {i: where for i, where in sorted(learned.items()) if i in ids},
        tuple(sorted(i for i in pretrained if i in ids and i not in learned)),
        tuple(doubts),
    )


def subjects_seen(model: str | Path, found: Scan) -> dict[str, set[str]]:
    """The subjects of a scan that weights were trained ("training") and validated on ("validation").

    They are known by their images or, as these may have been computed anew, by the id of a case.

    Args:
        model: as :func:`cases_seen` takes it, or a pre-training run folder.
    """
    subjects = found.cohort.subjects()
    seen: dict[str, set[str]] = {"training": set(), "validation": set()}
    for run in read_lineage(model).runs:
        for case in run.cases:
            if case.id in subjects:
                seen[case.part].add(subjects[case.id])
        for row, case in _known_again(run, found.rows).items():
            seen[case.part].add(subjects[row])
    return seen


def _known_again(run: LearnedRun, rows: Sequence[CaseRow]) -> dict[str, LearnedCase]:
    """Ids of the rows of which the run has an image, by its voxels or its path, with the run's case."""
    known = {}
    for case in run.cases:
        for path, digest in case.images:
            known |= {key: case for key in (digest, os.path.normcase(path)) if key}
    hits = {}
    for row in rows:
        keys = [k for p in row.images.values() for k in (row.files[p].digest, os.path.normcase(p))]
        case = next((known[k] for k in keys if k in known), None)
        if case is not None:
            hits[row.id] = case
    return hits


def _places(run: LearnedRun, rows: Sequence[CaseRow]) -> dict[str, str]:
    """Ids of the rows that a run has seen, and of others of their subjects, with where."""
    hits, subjects = {}, {}
    known = _known_again(run, rows)
    for row in rows:
        if row.id in known:
            case = known[row.id]
            name = "" if case.id == row.id else f" as {case.id}"
            hits[row.id] = f"{case.part} of {run.name}{name}"
            subjects[row.subject] = row.id
    others = {r.id: subjects[r.subject] for r in rows if r.subject in subjects and r.id not in hits}
    return {**hits, **{i: f"same subject as {seen}: {hits[seen]}" for i, seen in others.items()}}


def _by_place(learned: Mapping[str, str]) -> str:
    places: dict[str, list[str]] = {}
    for case, where in learned.items():
        places.setdefault(where, []).append(case)
    return "; ".join(f"{_names(ids)} ({where})" for where, ids in places.items())


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
