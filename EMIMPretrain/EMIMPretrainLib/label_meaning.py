"""What the values of exported label maps stand for: beside each map lies the list of its structures.

The map holds bare numbers, and the table of structures goes with its scene. Of a map without a list, as
earlier versions made them, nothing is known and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slicer.i18n import tr as _

from emim.training.structures import read_structures
from emim.volumes.segments import same_name
from EMIMLib import EmimError

from .run_inputs import writeStructures
from .structures import Structure, structuresFromCore


def meaningFile(label: Path) -> Path:
    """The list of structures of an exported label map."""
    return label.with_name(label.name + ".json")


def writeMeaning(label: Path, structures: Sequence[Structure]) -> None:
    """Keep what the values of a label map stand for.

    Raises:
        EmimError: when the file cannot be written.
    """
    writeStructures(meaningFile(label), structures)


def readMeaning(label: Path) -> list[Structure]:
    """The structures of an exported label map; none where it has no list.

    Raises:
        EmimError: when the list is damaged.
    """
    file = meaningFile(label)
    if not file.exists():
        return []
    structures, _overlapping = read_structures(file)
    return structuresFromCore(structures)


def knownStructures(labels: Iterable[Path]) -> list[Structure]:
    """The structures of these exported label maps; of two that contradict each other, the first."""
    found: list[Structure] = []
    for label in labels:
        for structure in readMeaning(label):
            name, values = same_name(structure["name"]), structure["values"]
            if all(name != same_name(s["name"]) and values != s["values"] for s in found):
                found.append(structure)
    return found


def refuseOtherMeaning(structures: Sequence[Structure], labels: Mapping[str, Path]) -> None:
    """Raise :class:`EmimError` when a name or a value stands for something else in one of the label maps.

    Args:
        structures: as they are now.
        labels: exported label maps by case id.
    """
    for caseId, label in labels.items():
        if problem := _contradiction(structures, readMeaning(label)):
            raise EmimError(
                _("The structures do not fit the exported labels of case {id}: {problem}").format(
                    id=caseId, problem=problem
                ),
                label,
                _(
                    "Give the structures the names and values they have there. To change them for good, load "
                    "the case, remove its exported label map, and export it again."
                ),
            )


def _contradiction(structures: Sequence[Structure], drawn: Sequence[Structure]) -> str:
    """What stands for something else than it was drawn as, in words; empty where nothing does."""
    earlier = {same_name(s["name"]): frozenset(s["values"]) for s in drawn}
    present = frozenset().union(*earlier.values())
    names = {same_name(s["name"]) for s in structures}
    for structure in structures:
        name, values = structure["name"], frozenset(structure["values"])
        was = earlier.get(same_name(name))
        if was is not None:
            if (was ^ values) & present:
                return _("{name!r} has the label value {was} there, and {now} in the table.").format(
                    name=name, was=_text(was), now=_text(values)
                )
            continue
        parts = [v for v in earlier.values() if v < values]
        if values & present == frozenset().union(*parts):
            continue  # several structures taken together, under a name of their own
        for other in drawn:
            shared = values & frozenset(other["values"])
            if shared and same_name(other["name"]) not in names:
                return _("the label value {value} is {other!r} there, and {name!r} in the table.").format(
                    value=_text(shared), other=other["name"], name=name
                )
    return ""


def _text(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)))
