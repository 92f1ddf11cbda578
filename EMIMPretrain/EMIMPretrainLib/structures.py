"""What fine-tuning shall segment: a list of ``{"name", "values", "color", "terminology"}``.

``values`` are label values, ``color`` is red, green, blue from 0 to 255, and ``terminology`` is the text
that Slicer keeps in a segment's tag, or None.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from emim.training.structures import COLORS, structures_of_values
from emim.volumes.segments import same_name
from EMIMLib import EmimError

from .cohort_table import CohortTable

Structure = dict[str, Any]


def structuresFromCohort(table: CohortTable) -> list[Structure]:
    """One structure for each value in the label maps of the cases that are used, named as its segment is."""
    named = {s["value"]: s for s in table.segments}
    structures, _overlapping = structures_of_values(table.labelValues)
    return [_ofValue(s.values[0], named.get(s.values[0]), s.color) for s in structures]


def _ofValue(value: int, segment: dict[str, Any] | None, color: Sequence[int]) -> Structure:
    segment = segment or {"name": _("label {n}").format(n=value)}
    return {
        "name": segment["name"],
        "values": [value],
        "color": list(segment.get("color") or color),
        "terminology": segment.get("terminology"),
    }


def structuresFromCore(structures: Sequence[Any]) -> list[Structure]:
    """The structures of a model's card, or of a file that the core has read."""
    return [
        {"name": s.name, "values": list(s.values), "color": list(s.color), "terminology": s.terminology}
        for s in structures
    ]


def structuresFromSegmentation(
    segmentation: Any,
    structures: Sequence[Structure] | None = None,
    known: Sequence[Structure] = (),
) -> list[Structure]:
    """``structures`` and, for each segment whose name none of them has, one more.

    It is the one of that name in ``known``; else a new one, with a value that none has. Names are compared
    without regard to case.
    """
    found = [dict(s) for s in structures or ()]
    names = {same_name(s["name"]) for s in found}
    earlier = {same_name(s["name"]): s for s in known}
    used = {v for s in (*found, *known) for v in s["values"]}
    for segment in segments(segmentation):
        name = segment.GetName()
        if same_name(name) in names:
            continue
        if same_name(name) in earlier:
            names.add(same_name(name))
            found.append(dict(earlier[same_name(name)]))
            continue
        value = next(v for v in range(1, 32768) if v not in used)
        names.add(same_name(name))
        used.add(value)
        color = [round(255 * c) for c in segment.GetColor()]
        found.append({"name": name, "values": [value], "color": color, "terminology": terminologyOf(segment)})
    return found


def segments(segmentation: Any) -> list[Any]:
    """The segments of a segmentation node, in order."""
    content = segmentation.GetSegmentation()
    return [content.GetNthSegment(i) for i in range(content.GetNumberOfSegments())]


def terminologyOf(segment: Any) -> str | None:
    """Slicer's terminology text of a segment, or None where it has none."""
    text = vtk.reference("")
    found = segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text)
    return str(text) or None if found else None


def ownValues(structures: Sequence[Structure]) -> dict[str, frozenset[int]]:
    """By name, the values of each structure that are of none of the smaller ones it consists of."""
    values = {s["name"]: frozenset(s["values"]) for s in structures}
    return {name: own.difference(*(v for v in values.values() if v < own)) for name, own in values.items()}


def structuresProblem(structures: Sequence[Structure]) -> str:
    """Why these structures cannot be trained, in words; empty when they can."""
    if not structures:
        return _("There is no structure yet: take them from the cohort's labels, or add some.")
    names = [str(s.get("name", "")).strip() for s in structures]
    values = [frozenset(s.get("values", ())) for s in structures]
    if not all(names):
        return _("A structure has no name.")
    for name, own in zip(names, values, strict=True):
        if not own or not all(isinstance(v, int) and 1 <= v <= 32767 for v in own):
            return _("{name}: label values are whole numbers from 1 to 32767.").format(name=name)
    for i, name in enumerate(names):
        if same_name(name) in {same_name(n) for n in names[:i]}:
            return _("Two structures are named {name!r}.").format(name=name)
        if values[i] in values[:i]:
            return _("{name!r} has the same label values as {other!r}.").format(
                name=name, other=names[values.index(values[i])]
            )
    return ""


def readStructures(text: str) -> list[Structure]:
    """The structures kept as text in the parameter node; an unreadable text counts as none."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def structuresText(structures: Sequence[Structure]) -> str:
    """``structures`` as text for the parameter node, or for the core's ``--structures``."""
    return json.dumps(list(structures), ensure_ascii=False)


def checkStructures(structures: Sequence[Structure]) -> None:
    """Raise :class:`EmimError` with the reason of :func:`structuresProblem`, if there is one."""
    if problem := structuresProblem(structures):
        raise EmimError(problem, hint=_("Put it right in the table of structures."))


def nextColor(structures: Sequence[Structure]) -> list[int]:
    """A colour for one more structure, told apart from the others with any kind of colour vision."""
    used = [tuple(s.get("color", ())) for s in structures]
    return list(next((c for c in COLORS if c not in used), COLORS[len(used) % len(COLORS)]))
