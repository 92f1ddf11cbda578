"""Reading references by the label values of a model, as far as the names of their segments tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emim.config import Structure
from emim.errors import EmimError
from emim.events import Events
from emim.package.archive import METADATA
from emim.package.model import ModelCard
from emim.volumes.segments import Segment, read_coding, same_name

if TYPE_CHECKING:
    from emim.cohort.scan import CaseRow


def model_coding(card: ModelCard, model: str | Path) -> tuple[Segment, ...]:
    """The segments of the labels that a model was trained on, as far as its card tells.

    Raises:
        EmimError: when what the package ``model`` says of them makes no sense.
    """
    trained = card.training.get("segments", {})  # a package may come from anywhere
    entries = trained.items() if isinstance(trained, dict) else [(None, trained)]
    where = f"{model}: {METADATA}, training.segments"
    segments = read_coding([{"name": name, "value": value} for name, value in entries], where)
    names = {same_name(s.name) for s in segments}
    whole = [s for s in card.structures if len(s.values) == 1 and same_name(s.name) not in names]
    return (*segments, *(Segment(s.name, s.values[0]) for s in whole))


def check_names(
    rows: Sequence[CaseRow], coding: Sequence[Segment], structures: Sequence[Structure], events: Events
) -> None:
    """Refuse references of which nothing tells whether a segment is one of the model's under another name.

    Args:
        rows: those to be scored, of a scan with this coding.
        coding: see :func:`model_coding`.
        structures: of the model, with its label values.
        events: told of segments whose values are those of the model, which has no names for them.

    Raises:
        EmimError: naming the first such segment.
    """
    known = {same_name(s.name): s.value for s in coding}
    meant = {v for s in structures for v in s.values}
    labels = {row.usable_label: row for row in rows if row.usable_label}
    others = defaultdict(set)  # name to values that are another segment's, as both lie in one label
    for row in labels.values():
        names = {same_name(s.name) for s in row.segments}
        for name in names - known.keys():
            others[name].update(known[n] for n in names & known.keys())
    again = " ".join(f'--structure "{s.name}={",".join(map(str, s.values))}"' for s in structures)
    hint = f"Give their values as `emim scan` tells them; if they are the model's: {again}"
    rename = (
        f"Rename it if it is one of the model's ({', '.join(s.name for s in coding)}). " if coding else ""
    )
    taken = set()
    for file, row in labels.items():
        filled = row.files[file].values
        for segment in (s for s in row.segments if s.value in filled):
            name, value = same_name(segment.name), row.recode.get(segment.value, segment.value)
            if name in known or meant <= others[name] or meant.isdisjoint((value, segment.value)):
                continue
            if value != segment.value or value in known.values():
                raise EmimError(
                    f"The model knows no segment {segment.name!r} (label value {segment.value}), and nothing "
                    "tells whether it is one of the model's under another name.",
                    file,
                    rename + hint,
                )
            taken.add(f"{segment.value} ({segment.name})")
    if taken:
        what = f"The model has no names for label values of the references: {', '.join(sorted(taken))}."
        events.warning(what, hint=f"They are taken for the model's values. If they are not: {hint}")
