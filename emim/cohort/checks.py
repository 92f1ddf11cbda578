"""Whether the files of a case fit each other, and the cases of a cohort.

A problem leaves the case out; a note is something a person should know about a case that is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emim.cohort.coding import in_words
from emim.cohort.found import FoundCase
from emim.cohort.volume import VolumeFacts
from emim.volumes.segments import Segment

LITTLE_OVERLAP = 0.5  # of the smaller of two fields of view
SHORT_CONTENT = 0.6  # of the extent of the other modalities, along one axis


def check_case(case: FoundCase, facts: Mapping[str, VolumeFacts]) -> tuple[list[str], list[str]]:
    """Problems and notes of one case; ``facts`` holds those of every file of it, by path."""
    problems, notes = [], []
    for what, paths in [*case.images.items(), ("the label", case.labels)]:
        if len(paths) > 1:
            problems.append(f"{len(paths)} files for {what}: {', '.join(_short(paths))}")
        for path in paths:
            name = f" ({Path(path).name})" if len(paths) > 1 else ""
            problems += [f"{what}{name}: {p}" for p in facts[path].problems]
            notes += [f"{what}: {n}" for n in facts[path].notes]
    if not case.images:
        problems.append("no image")
    if not problems:
        images = {m: facts[p[0]] for m, p in case.images.items()}
        label = facts[case.labels[0]] if case.labels else None
        for part, found in zip((problems, notes), _check_geometry(images, label), strict=True):
            part += found
    return problems, notes


def check_copies(cases: list[FoundCase], facts: Mapping[str, VolumeFacts]) -> dict[str, list[str]]:
    """Problems by case id: the same voxels under two modalities or in two cases."""
    places = defaultdict(list)
    for case in cases:
        for modality, paths in case.images.items():
            for path in paths:
                if facts[path].digest and not facts[path].problems:
                    places[facts[path].digest].append((case.id, modality))
    problems = defaultdict(list)
    for same in places.values():
        for here, modality in same:
            others = [f"{m} of {c}" if c != here else m for c, m in same if (c, m) != (here, modality)]
            if others:
                problems[here].append(f"{modality} is a copy of {', '.join(others[:3])}")
    return problems


def check_label_values(values: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Notes by case id: label values that one case alone has, among three or more labelled cases."""
    counts = Counter(v for own in values.values() for v in own)
    filled = sum(1 for own in values.values() if own)
    notes = defaultdict(list)
    if filled >= 3:
        for case, own in values.items():
            notes[case] += [f"no other case has the label value {v}" for v in own if counts[v] == 1]
    return notes


def check_label_names(
    labels: Mapping[str, Sequence[Segment]],
    recodes: Mapping[str, Mapping[int, int]],
    coding: Sequence[Segment],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Problems and notes by case id: labels whose segments have other values, or no names, where others have.

    Args:
        labels: the segments that each label names.
        recodes: value in the file to the cohort's, where they differ.
        coding: the cohort's values.
    """
    problems, notes = defaultdict(list), defaultdict(list)
    for case, segments in labels.items():
        if recode := recodes.get(case):
            moved = (s for s in segments if s.value in recode)
            told = ", ".join(f"{s.value} ({s.name}) is read as {recode[s.value]}" for s in moved)
            notes[case].append(f"the label numbers its segments in a way of its own: {told}")
        elif not segments and any(recodes.values()):
            problems[case].append(
                "the label does not name its values, and labels of other cases that do number theirs "
                "differently: save it from 3D Slicer as .seg.nrrd with their names, or number those alike"
            )
        elif not segments and any(labels.values()):
            taken = f"taken for {in_words(coding)}"
            notes[case].append(f"the label does not name its values, as those of other cases do: {taken}")
    return problems, notes


def _check_geometry(images: dict[str, VolumeFacts], label: VolumeFacts | None) -> tuple[list[str], list[str]]:
    problems, notes = [], []
    first, *others = images
    for other in others:
        share = _overlap(images[first], images[other])
        if share == 0:
            problems.append(f"{other} and {first} do not overlap in space")
        elif share < LITTLE_OVERLAP:
            notes.append(f"{other} and {first} overlap in space only in part")
    grids: list[VolumeFacts] = []
    for image in images.values():
        if not any(image.same_grid(g) for g in grids):
            grids.append(image)
    if len(grids) > 1:
        notes.append(f"its {len(images)} images lie on {len(grids)} grids")
    if label:
        if all(_overlap(label, i) == 0 for i in images.values()):
            problems.append("the label does not overlap the images in space")
        elif not any(label.same_grid(i) for i in images.values()):
            notes.append("the label's grid is that of no image: was it drawn on one of these images?")
    if len(grids) == 1:
        notes += _short_content(images)
    return problems, notes


def _overlap(a: VolumeFacts, b: VolumeFacts) -> float:
    """Volume that both boxes share, as a part of the smaller one."""
    (a_low, a_high), (b_low, b_high) = a.box(), b.box()
    shared = np.clip(np.minimum(a_high, b_high) - np.maximum(a_low, b_low), 0, None).prod()
    return float(shared / min((a_high - a_low).prod(), (b_high - b_low).prod()))


def _short_content(images: dict[str, VolumeFacts]) -> list[str]:
    """Notes on images that show much less of the body than the others on the same grid."""
    extents = {m: np.subtract(*f.content[::-1]) for m, f in images.items() if f.content}
    notes = []
    for modality, extent in extents.items():
        others = [e for m, e in extents.items() if m != modality]
        if len(others) >= 2 and (extent < SHORT_CONTENT * np.median(others, axis=0)).any():
            notes.append(f"{modality} shows only a part of what the others show")
    return notes


def _short(paths: list[str]) -> list[str]:
    names = [Path(p).name for p in paths]
    return names if len(set(names)) == len(names) else paths
