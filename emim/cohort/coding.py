"""One label value for each segment of a cohort, whatever value each file gives it.

3D Slicer numbers the segments of each file in the order they were drawn in, so only their names tell what the
values mean. The cohort's coding takes for each name the value that most files give it, and files that give it
another are recoded as they are read (:mod:`emim.volumes.case_label`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from emim.config import Structure
from emim.errors import EmimError
from emim.events import Events
from emim.volumes.segments import Segment, same_name


def common_coding(
    files: Sequence[Sequence[Segment]], given: Sequence[Segment] = (), recorded: Sequence[Segment] = ()
) -> tuple[Segment, ...]:
    """The segments that the files name, each once, in order of the values they are to have in all of them.

    Where the files agree, these are the values in them.

    Args:
        files: the segments of each label file.
        given: segments whose values are fixed, as far as the files name them.
        recorded: the coding that an earlier scan found, which settings made since then rely on.
    """
    counts = Counter(_key(s) for segments in files for s in segments)
    ranked = [*map(_key, recorded), *(key for key, _ in counts.most_common())]
    # Spelling, colour and term are those of the first that has the value.
    known: dict[tuple[str, int], Segment] = {}
    for segment in itertools.chain(recorded, *files, given):
        known.setdefault(_key(segment), segment)
    named = {name for name, _ in counts}
    coding = {same_name(s.name): known[_key(s)] for s in given if same_name(s.name) in named}
    taken = {s.value for s in coding.values()}
    for name, value in ranked:
        if name not in coding and value not in taken:
            coding[name] = known[name, value]
            taken.add(value)
    free = (v for v in itertools.count(1) if v not in taken.union(value for _, value in ranked))
    for name, value in ranked:
        if name not in coding:
            coding[name] = replace(known[name, value], value=next(free))
    found = (replace(s, layer=0) for name, s in coding.items() if name in named)
    return tuple(sorted(found, key=lambda s: s.value))


def _key(segment: Segment) -> tuple[str, int]:
    return same_name(segment.name), segment.value


def recoding(segments: Iterable[Segment], coding: Iterable[Segment]) -> dict[int, int]:
    """Value in a file with these segments to the cohort's, where they differ."""
    values = {same_name(s.name): s.value for s in coding}
    pairs = ((s.value, values[same_name(s.name)]) for s in segments)
    return {value: meant for value, meant in pairs if value != meant}


def in_words(segments: Iterable[Segment]) -> str:
    """``1 tumour, 2 edema``."""
    return ", ".join(f"{s.value} {s.name}" for s in segments)


def warn_of_recoding(found: Any, events: Events, hint: str) -> None:
    """Tell with which values labels are read, where files of the scan number their segments differently."""
    if any(row.recode and row.label for row in found.rows):
        what = f"Labels number their segments differently; they are read as {in_words(found.segments)}."
        events.warning(what, found.source, hint)


def refuse_other_values(structures: Iterable[Structure], coding: Sequence[Segment]) -> None:
    """Raise :class:`EmimError` when a structure has the name of a segment but not its label value."""
    values = {same_name(s.name): s.value for s in coding}
    for structure in structures:
        value = values.get(same_name(structure.name))
        if value is not None and value not in structure.values:
            raise EmimError(
                f"The structure {structure.name!r} is given the label values {list(structure.values)}, "
                f"but in the labels the segment of this name has the value {value}.",
                hint=f"The labels have {in_words(coding)}; `emim scan` tells them, too.",
            )
