"""Find the cases of a cohort, read every file, and say which cases can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emim.cohort.case import Case, Cohort
from emim.cohort.checks import check_case, check_copies, check_label_names, check_label_values
from emim.cohort.coding import common_coding, recoding
from emim.cohort.datalist import read_datalist
from emim.cohort.dicom import find_dicom
from emim.cohort.folder import NOT_UTF8, find_in_folder, is_utf8
from emim.cohort.found import Found, FoundCase
from emim.cohort.patterns import (
    EXTENSIONS,
    PATTERNS,
    Patterns,
    canonical,
    canonical_patterns,
    check_patterns,
    fits,
)
from emim.cohort.volume import VolumeFacts, file_stamp, inspect
from emim.errors import EmimError
from emim.events import Events
from emim.volumes.segments import Segment

SCAN_VERSION = 1


@dataclass
class CaseRow:
    """One case found, usable or not.

    Attributes:
        images: modality to the path of its image, where there is exactly one.
        duplicates: modality, or "label", to its paths, where there are several.
        files: what every file holds, by path.
        problems: why the case is left out; empty: it is used.
        notes: what a person should know about it nevertheless.
        recode: label value in the file to the cohort's, where they differ.
        drawn: its label was drawn in EMIM Pretrain, with the values that the datalist gives the segments.
        segments: those that the label is known to have, with the values in the file.
        label_problem: why the label cannot be used although its file is sound, also among ``problems``.
    """

    id: str
    subject: str
    images: dict[str, str]
    label: str | None
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, VolumeFacts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recode: dict[int, int] = field(default_factory=dict)
    drawn: bool = False
    segments: tuple[Segment, ...] = ()
    label_problem: str = ""

    @property
    def usable(self) -> bool:
        return not self.problems

    @property
    def usable_label(self) -> str | None:
        """The path of the label, or None where there is none that can be used."""
        sound = self.label and not self.label_problem and not self.files[self.label].problems
        return self.label if sound else None

    @property
    def label_values(self) -> tuple[int, ...] | None:
        """The cohort's values other than 0 in the label, or None without one that can be read."""
        values = self.files[self.label].values if self.label and not self.label_problem else None
        return None if values is None else tuple(sorted(self.recode.get(v, v) for v in values))

    def facts(self, modality: str) -> VolumeFacts | None:
        """What the image of a modality holds, or None where it is missing."""
        return self.files[self.images[modality]] if modality in self.images else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "subject": self.subject,
            "usable": self.usable,
            "images": self.images,
            "label": self.label,
            "label_values": None if self.label_values is None else list(self.label_values),
            **({"recode": self.recode} if self.recode else {}),
            **({"drawn": True} if self.drawn else {}),
            **({"duplicates": self.duplicates} if self.duplicates else {}),
            "problems": self.problems,
            "notes": self.notes,
            "files": {path: facts.to_dict() for path, facts in self.files.items()},
        }


@dataclass
class Scan:
    """Everything a scan found.

    Attributes:
        source: folder or datalist.
        cohort: the usable cases.
        rows: every case, in order of its id.
        ignored: files that are not used, each with the reason.
        patterns: the user's patterns of names, by modality; without the built-in ones.
        segments: those that labels name, with the cohort's values (:mod:`emim.cohort.coding`), or none.
    """

    source: str
    cohort: Cohort
    rows: list[CaseRow]
    ignored: list[tuple[str, str]] = field(default_factory=list)
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.cohort.modalities

    @property
    def left_out(self) -> set[str]:
        """Ids and subjects of the cases that are not usable."""
        return {name for row in self.rows if not row.usable for name in (row.id, row.subject)}

    @property
    def label_values(self) -> tuple[int, ...]:
        """All values other than 0 in the labels of usable cases."""
        return tuple(sorted({v for r in self.rows if r.usable for v in r.label_values or ()}))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``cohort.json``; :func:`scan` reads it again as a datalist."""
        return {
            "version": SCAN_VERSION,
            "source": self.source,
            "modalities": list(self.modalities),
            "label_values": list(self.label_values),
            **({"segments": [s.to_dict() for s in self.segments]} if self.segments else {}),
            "patterns": self.patterns,
            "cases": [r.to_dict() for r in self.rows],
            "ignored": [{"path": p, "why": w} for p, w in self.ignored],
        }


def scan(
    source: str | Path,
    modalities: Sequence[str] | None = None,
    patterns: Patterns | None = None,
    label: str | Sequence[str] | None = None,
    events: Events | None = None,
    workers: int | None = None,
    coding: Sequence[Segment] = (),
) -> Scan:
    """Find all cases of ``source``, read all their files, and tell usable cases from others.

    See :func:`survey` for the arguments.

    Raises:
        EmimError: when there is no image, or no case that can be used, or an option makes no sense.
    """
    found = survey(source, modalities, patterns, label, events, workers, coding)
    if not found.cohort.cases:
        raise EmimError(
            f"None of the {len(found.rows)} cases can be used.",
            found.source,
            "Put right what was found:\n"
            + "\n".join(f"         {r.id}: {'; '.join(r.problems)}" for r in found.rows[:5])
            + ("\n         …" if len(found.rows) > 5 else ""),
        )
    return found


def survey(
    source: str | Path,
    modalities: Sequence[str] | None = None,
    patterns: Patterns | None = None,
    label: str | Sequence[str] | None = None,
    events: Events | None = None,
    workers: int | None = None,
    coding: Sequence[Segment] = (),
) -> Scan:
    """As :func:`scan`, but a cohort without any usable case is told of like any other.

    Args:
        source: a folder (see :mod:`emim.cohort.folder`), or a ``.json`` or ``.csv`` datalist (see
            :mod:`emim.cohort.datalist`), or the ``cohort.json`` of an earlier scan, of which only
            files that have changed since are read again.
        modalities: which to use, in this order; None: all found, in the order of
            :data:`emim.cohort.patterns.PATTERNS` and then of the alphabet.
        patterns: modality to one or several patterns of names (folders only); see
            :mod:`emim.cohort.patterns`.
        label: patterns of label files (folders only); None: recognised by usual names.
        events: told of the progress.
        workers: threads that read; None: one per processor, at most 8.
        coding: segments that have these values where labels name them, such as a model's; see
            :mod:`emim.cohort.coding`.

    Raises:
        EmimError: when there is no image, or an option makes no sense.
    """
    events = events or Events()
    path = Path(source).expanduser().absolute()
    if not is_utf8(path):
        raise EmimError("The path is not in UTF-8.", path, "Rename the folder or file.")
    found = _find(path, modalities, patterns, label)
    if found.assumed:
        events.warning(
            found.assumed,
            path,
            "If they are not, put that right in the column subject of a datalist, such as the "
            "cohort.csv that `emim scan --out` writes.",
        )
    if lost := sum(why == NOT_UTF8 for _, why in found.ignored):
        hint = "Rename them; `emim scan` lists them."
        events.warning(f"Images are left out, as their paths are not in UTF-8: {lost}.", path, hint)
    found.modalities, left_out = _choose_modalities(found, modalities, path)
    found.ignored += left_out
    for case in found.cases:
        case.images = {m: case.images[m] for m in found.modalities if m in case.images}
    facts = _inspect_all(found, events, workers)
    rows = [_row(c, facts) for c in found.cases]
    copies = check_copies(found.cases, facts)
    for row in rows:
        row.problems += copies.get(row.id, [])
    segments = _match_segments(rows, coding, found.segments)
    values = check_label_values(
        {r.id: r.label_values for r in rows if r.usable and r.label_values is not None}
    )
    for row in rows:
        row.notes += values.get(row.id, [])
    usable = tuple(Case(r.id, r.subject, r.images, r.label, r.recode) for r in rows if r.usable)
    cohort = Cohort(found.modalities, usable, {r.id: r.subject for r in rows})
    return Scan(str(path), cohort, rows, found.ignored, found.patterns, segments)


def _find(
    path: Path, modalities: Sequence[str] | None, patterns: Patterns | None, label: str | Sequence[str] | None
) -> Found:
    check_patterns(patterns)
    patterns = canonical_patterns(patterns)
    label = (label,) if isinstance(label, str) else tuple(label or ())
    for text in label:
        fits(text, "")
    if not path.exists():
        raise EmimError("There is no such folder or datalist.", path, "Check the spelling of the path.")
    if path.is_dir():
        found = find_in_folder(path, patterns, label)
        found.patterns = patterns
        if not any(c.images for c in found.cases):
            raise _nothing_found(path, found, patterns)
        return found
    if path.suffix.lower() not in (".json", ".csv"):
        raise EmimError("This is neither a folder nor a .json or .csv datalist.", path)
    if patterns or label:
        raise EmimError("Patterns are for folders; a datalist names its files itself.", path)
    found = read_datalist(path, tuple(modalities) if modalities else None)
    found.cases.sort(key=lambda c: c.id)
    return found


def _nothing_found(folder: Path, found: Found, patterns: Patterns) -> EmimError:
    images = [p for p, why in found.ignored if p.lower().endswith(EXTENSIONS) and why != NOT_UTF8]
    if not images and any(why == NOT_UTF8 for _, why in found.ignored):
        return EmimError("The paths of the images are not in UTF-8.", folder, "Rename files and folders.")
    if images:
        shown = ", ".join(os.path.relpath(p, folder) for p in images[:4])
        return EmimError(
            f"None of the {len(images)} image files has a name that tells its modality.",
            folder,
            f"Looked for words such as {', '.join([*patterns, *PATTERNS][:6])}; saw {shown}. "
            "Give a pattern for each modality, for example --pattern 'T1=*_0000.nii.gz'.",
        )
    if dicom := find_dicom([p for p, _ in found.ignored]):
        return EmimError(
            "The folder holds DICOM files, which are to be converted first.",
            folder,
            f"Saw {os.path.relpath(dicom, folder)}. Load the examinations with 3D Slicer's DICOM module and "
            "save their volumes as .nii.gz, or convert the folder with dcm2niix; then give the new folder.",
        )
    seen = sorted({Path(p).name for p, _ in found.ignored})
    hint = f"Looked for {', '.join(EXTENSIONS)} in it and below"
    hint += f"; saw {', '.join(seen[:4])}." if seen else "; it holds no file."
    return EmimError("The folder holds no image.", folder, hint)


def _choose_modalities(
    found: Found, wanted: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """The modalities to use, in order; images of others are taken out of the cases and returned."""
    present = {m for c in found.cases for m in c.images}
    if not wanted:
        order = [*(found.modalities or ()), *PATTERNS]
        rank = {m: n for n, m in reversed(list(enumerate(order)))}
        return tuple(sorted(present, key=lambda m: (rank.get(m, len(order)), m))), []
    names = tuple(w if w in present else canonical(w) for w in wanted)
    if len(set(names)) < len(names):
        raise EmimError("A modality is named twice.", ", ".join(wanted))
    if not present & set(names):
        raise EmimError(
            f"No image of {', '.join(wanted)} was found.",
            path,
            f"Found were: {', '.join(sorted(present)) or 'none'}.",
        )
    left_out = []
    for case in found.cases:
        for modality in [m for m in case.images if m not in names]:
            left_out += [
                (p, f"{modality} is not among the modalities asked for") for p in case.images.pop(modality)
            ]
    return names, left_out


def _inspect_all(found: Found, events: Events, workers: int | None) -> dict[str, VolumeFacts]:
    """What every file of every case holds, by path."""
    tasks = {p: False for c in found.cases for paths in c.images.values() for p in paths}
    tasks |= {p: True for c in found.cases for p in c.labels}
    facts = {
        p: found.known[p]
        for p, label in tasks.items()
        if p in found.known
        and found.known[p].stamp == file_stamp(p)
        and found.known[p].stamp
        and not found.known[p].outdated
        and (found.known[p].values is not None) == label == (found.known[p].segments is not None)
    }
    todo = {p: label for p, label in tasks.items() if p not in facts}
    if not todo:
        return facts
    events.status(f"Reading {len(todo)} files of {len(found.cases)} cases.")
    events.progress(0, len(todo), "file")
    # Threads are enough: unpacking and numpy release Python's lock.
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        running = {pool.submit(inspect, p, label): p for p, label in todo.items()}
        for done, task in enumerate(as_completed(running), start=1):
            facts[running[task]] = task.result()
            events.progress(done, len(todo), "file", Path(running[task]).name)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return facts


def _row(case: FoundCase, facts: dict[str, VolumeFacts]) -> CaseRow:
    problems, notes = check_case(case, facts)
    paths = [p for paths in (*case.images.values(), case.labels) for p in paths]
    several = {m: paths for m, paths in (*case.images.items(), ("label", case.labels)) if len(paths) > 1}
    return CaseRow(
        id=case.id,
        subject=case.subject,
        images={m: p[0] for m, p in case.images.items() if len(p) == 1},
        label=case.labels[0] if len(case.labels) == 1 else None,
        duplicates=several,
        files={p: facts[p] for p in paths},
        problems=problems,
        notes=notes,
        drawn=case.drawn,
    )


def _match_segments(
    rows: Sequence[CaseRow], given: Sequence[Segment], recorded: Sequence[Segment]
) -> tuple[Segment, ...]:
    """The segments that labels name, by which those are recoded that number them differently."""
    for row in rows:
        row.segments = _segments(row, recorded)
    coding = common_coding([row.segments for row in rows], given, recorded)
    for row in rows:
        row.recode = recoding(row.segments, coding)
    moved = any(row.recode for row in rows if row.drawn)  # the coding they were drawn with is not this one
    named = {}
    for row in (r for r in rows if r.label_values and r.usable_label):
        if row.drawn and moved and not set(row.files[row.label].values) <= {s.value for s in row.segments}:
            row.segments, row.recode, named[row.id] = (), {}, ()
        elif not row.drawn:
            named[row.id] = row.segments
    problems, notes = check_label_names(named, {row.id: row.recode for row in rows}, coding)
    for row in rows:
        row.label_problem = "; ".join(problems.get(row.id, []))
        row.problems += problems.get(row.id, [])
        row.notes += notes.get(row.id, [])
    return coding


def _segments(row: CaseRow, recorded: Sequence[Segment]) -> tuple[Segment, ...]:
    """Those that the label names; one drawn in EMIM Pretrain, which names none, has those ``recorded``."""
    facts = row.files[row.label] if row.usable_label else None
    if facts is None or not facts.values:
        return ()
    if facts.segments or not row.drawn:
        return facts.segments
    return tuple(s for s in recorded if s.value in facts.values)
