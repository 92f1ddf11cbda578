"""What to segment: from a user's words, or from the label values of a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emim.config import Structure
from emim.errors import EmimError

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
        if name in values:
            raise EmimError(f"The structure {name!r} is given twice.", hint="Give each a name of its own.")
        if found in values.values():
            raise EmimError(f"The structure {name!r} is the same as another one.", hint="Leave one out.")
        values[name] = found
    return make_structures(values)


def structures_of_values(values: Iterable[int]) -> tuple[tuple[Structure, ...], bool]:
    """One structure for every label value but 0."""
    return make_structures({f"label {v}": (v,) for v in sorted(set(values) - {0})})


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
