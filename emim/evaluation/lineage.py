"""What weights have learned from: the cases of the run that made them, and of the runs before it.

A run folder records its cases with a digest of the voxels of every image. A run that begins with the weights
of another keeps what is recorded of that one in its ``transfer.json``, as it may be replaced or removed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emim.cohort.volume import DIGEST
from emim.errors import EmimError
from emim.run_state import RunState, read_run

CHECK = "Make sure yourself that none of these cases was among it."
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class LearnedCase:
    """A case of a run.

    Attributes:
        part: "training" or "validation".
        images: paths, each with the digest of its voxels, or None where none, or one of the earlier kind, was
            recorded; of a run that was resumed also images that had changed since.
    """

    id: str
    subject: str
    part: str
    images: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class LearnedRun:
    """A run, its command ("pretrain" or "finetune"), and the cases it has trained and validated on."""

    name: str
    command: str
    cases: tuple[LearnedCase, ...]


@dataclass(frozen=True)
class Lineage:
    """The runs that weights come from, the latest first.

    Attributes:
        doubts: what is not known of them, in sentences.
    """

    runs: tuple[LearnedRun, ...] = ()
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Lineage:
        """What :meth:`to_dict` made; JSON has turned its tuples into lists."""
        runs = []
        for run in data["runs"]:
            cases = (
                LearnedCase(c["id"], c["subject"], c["part"], tuple((p, digest) for p, digest in c["images"]))
                for c in run["cases"]
            )
            runs.append(LearnedRun(run["name"], run["command"], tuple(cases)))
        return Lineage(tuple(runs), tuple(data["doubts"]))


def read_lineage(model: str | Path) -> Lineage:
    """What is recorded of a run folder, its ``model``, or a package, which tells nothing: a doubt."""
    runs: list[LearnedRun] = []
    doubts: list[str] = []
    passed: list[RunState] = []
    path: str | Path | None = model
    while path is not None:
        run = _run_of(Path(path))
        if run is None:
            doubts.append(f"What {Path(path).name} has learned from is not recorded at {path}. {CHECK}")
            break
        if run.folder in [before.folder for before in passed]:
            break
        if passed and run.started > passed[-1].started:
            doubts.append(
                f"What the weights that {passed[-1].name} began with have learned from is not recorded any "
                f"more: the run at {run.folder} was begun later. {CHECK}"
            )
        passed.append(run)
        cases, doubt = _recorded_cases(run.folder)
        runs.append(LearnedRun(run.name, run.command, cases))
        doubts += [doubt] if doubt else []
        path = run.init
        if path is not None and (before := _kept(run.folder)) is not None:
            runs += before.runs
            doubts += before.doubts
            break
    return Lineage(tuple(runs), tuple(dict.fromkeys(doubts)))


def _run_of(path: Path) -> RunState | None:
    for folder in (path, path.parent) if path.name == "model" else (path,):
        try:
            return read_run(folder)
        except (EmimError, OSError):
            continue
    return None


def _kept(run: Path) -> Lineage | None:
    """What the run has kept of the runs before it; None where it has begun with an earlier version."""
    try:
        return Lineage.from_dict(json.loads((run / "transfer.json").read_text(encoding="utf-8"))["lineage"])
    except _UNREADABLE:
        return None


def _recorded_cases(run: Path) -> tuple[tuple[LearnedCase, ...], str]:
    """The cases that a run has trained or validated on; and a doubt, or ""."""
    try:
        split, cohort = (
            json.loads((run / name).read_text(encoding="utf-8")) for name in ("split.json", "cohort.json")
        )
        parts = {i: part for part in ("training", "validation") for i in split[part]}
        cases = tuple(
            LearnedCase(case["id"], case["subject"], parts[case["id"]], _images(case))
            for case in cohort["cases"]
            if case["id"] in parts
        )
    except _UNREADABLE:
        return (), f"The cases of {run.name} cannot be read from its folder, {run}. {CHECK}"
    if {c.id for c in cases} == parts.keys() and all(digest for c in cases for _, digest in c.images):
        return cases, ""
    return cases, f"{run.name} has no record of its voxels: copies under other names are not known again."


def _images(case: dict[str, Any]) -> tuple[tuple[str, str | None], ...]:
    states = [case, *case.get("changed", ())]  # see emim.training.start
    return tuple((path, _digest(state, path)) for state in states for path in state["images"].values())


def _digest(state: dict[str, Any], path: str) -> str | None:
    digest = state.get("files", {}).get(path, {}).get("digest")
    return digest if digest and digest.startswith(DIGEST) else None
