"""What to segment: from a user's words, or from the label values of a cohort."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emim.config import Structure
from emim.errors import EmimError
from emim.volumes.segments import Segment, same_name

# Okabe and Ito's colours, told apart with any kind of colour vision.
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

# Whole words that tell a side. l' is a French article, and "droit" a muscle's name, too.
_SIDE = re.compile(
    r"(?<![^\W\d_])(?:l(?!['’])|r|lt|rt|lh|rh|left|right|li|re|link(?:e[mnrs]?|s)|recht(?:e[mnrs]?|s)"
    r"|(?:links|rechts)seitig\w*|gauches?|droites?|izq\w*|der|dch[oa]|derech[oa]s?)(?![^\W\d_])",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_FORM = 'It looks like [{"name": "edema", "values": [2], "color": [86, 180, 233]}, …].'


def named_by_side(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that tell left from right, such as "left hippocampus" or "Thalamus_R"."""
    return [name for name in names if _SIDE.search(_CAMEL.sub(" ", name))]


def parse_structures(texts: Sequence[str]) -> tuple[tuple[Structure, ...], bool]:
    """Structures from texts such as ``"WT=1,2,3"``, ``"TC=1,3"``, ``"ET=3"``.

    Returns:
        The structures, larger ones first where they overlap, and whether any overlap.

    Raises:
        EmimError: for a text of another form, a repeated name, or two equal structures.
    """
    values: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            found = tuple(sorted({int(n) for n in numbers.split(",")}))
        except ValueError:
            found = ()
        if not name.strip() or not found or min(found) < 1:
            raise EmimError(f"{text!r} is not a structure.", hint="Write NAME=VALUE,…, such as WT=1,2,3.")
        _add(values, name, found)
    return make_structures(values)


def read_structures(file: str | Path) -> tuple[tuple[Structure, ...], bool]:
    """Structures from a JSON list of ``{"name", "values", "color", "terminology"}``.

    ``values`` are whole numbers, ``color`` is [red, green, blue] from 0 to 255 and ``terminology`` a
    Slicer terminology string; the last two may be left out.

    Raises:
        EmimError: when the file is no such list, naming the entry.
    """
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise EmimError(f"The file of structures cannot be read: {error}.", file, _FORM) from error
    if not isinstance(entries, list) or not entries:
        raise EmimError("The file holds no list of structures.", file, _FORM)
    values: dict[str, tuple[int, ...]] = {}
    looks: dict[str, dict[str, Any]] = {}
    for n, entry in enumerate(entries, start=1):
        where = f"{file}, structure {n}"
        if not isinstance(entry, dict) or set(entry) - {"name", "values", "color", "terminology"}:
            raise EmimError(f"{entry!r} is not a structure.", where, _FORM)
        name, color, terminology = entry.get("name"), entry.get("color"), entry.get("terminology")
        if not isinstance(name, str) or not name.strip():
            raise EmimError("The structure has no name.", where, _FORM)
        if color is not None and not (_are_numbers(color, 0, 255) and len(color) == 3):
            raise EmimError(f"{color!r} is not a color.", where, "Give [red, green, blue] from 0 to 255.")
        # In a .seg.nrrd it stands between these signs.
        if not isinstance(terminology, str | None) or set(terminology or "") & set("|\r\n"):
            raise EmimError(f"{terminology!r} is not a terminology.", where, "Give Slicer's, as text.")
        numbers = entry.get("values")
        if not _are_numbers(numbers, 1, 32767):
            raise EmimError(f"The structure {name!r} has no label values.", where, _FORM)
        _add(values, name, numbers, where)
        looks[name] = {"terminology": terminology} | ({"color": tuple(color)} if color is not None else {})
    structures, overlapping = make_structures(values)
    return tuple(dataclasses.replace(s, **looks[s.name]) for s in structures), overlapping


def structures_of_values(
    values: Iterable[int], segments: Iterable[Segment] = ()
) -> tuple[tuple[Structure, ...], bool]:
    """One structure for every label value but 0, with name, colour and term of the segment of this value.

    Raises:
        EmimError: when a segment is called as a value without one would be.
    """
    named = {s.value: s for s in segments}
    found: dict[str, tuple[int, ...]] = {}
    for value in sorted(set(values) - {0}):
        _add(found, named[value].name if value in named else f"label {value}", (value,))
    structures, overlapping = make_structures(found)
    return tuple(_like(s, named.get(s.values[0])) for s in structures), overlapping


def _like(structure: Structure, segment: Segment | None) -> Structure:
    if segment is None:
        return structure
    color = segment.color or structure.color
    return dataclasses.replace(structure, color=color, terminology=segment.terminology)


def make_structures(values: dict[str, tuple[int, ...]]) -> tuple[tuple[Structure, ...], bool]:
    """Structures of the given names and label values, with colours and the values they are painted with.

    Overlapping structures are painted one over the other, larger ones first, so each is painted with
    a value that only it, and none painted later, has: a map of nested regions thus comes out in the
    coding of the labels it was trained on. Where there is no such value, they are numbered.
    """
    overlapping = sum(len(v) for v in values.values()) > len(set().union(*values.values()))
    names = sorted(values, key=lambda n: -len(values[n])) if overlapping else list(values)
    painted: dict[str, int] = {}
    for i, name in enumerate(names):
        later = set().union(*(values[n] for n in names[i + 1 :]))
        own = sorted(set(values[name]) - later)
        if own:
            painted[name] = own[0]
    if len(set(painted.values())) < len(names):
        painted = {name: i + 1 for i, name in enumerate(names)}
    return (
        tuple(
            Structure(name, values[name], painted[name], COLORS[i % len(COLORS)])
            for i, name in enumerate(names)
        ),
        overlapping,
    )


def _add(
    values: dict[str, tuple[int, ...]], name: str, numbers: Iterable[int], where: str | None = None
) -> None:
    """Add a structure that is unlike those before."""
    found = tuple(sorted(set(numbers)))
    if same_name(name) in map(same_name, values):
        raise EmimError(f"The structure {name!r} is given twice.", where, "Give each a name of its own.")
    if found in values.values():
        raise EmimError(f"The structure {name!r} is the same as another one.", where, "Leave one out.")
    values[name] = found


def _are_numbers(value: Any, low: int, high: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(v, int) and not isinstance(v, bool) and low <= v <= high for v in value)
    )
