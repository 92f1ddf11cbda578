"""Whether the chosen volumes can be segmented together, said before anything is started."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from slicer.i18n import tr as _

from emim.inference.inputs import modality_called
from EMIMLib import EmimError
from EMIMLib.guessing import examinationNumbers
from EMIMLib.patient import itemName, patientItem, patientKey, studyItem
from EMIMLib.sequence_frame import sequenceFrame
from EMIMLib.volume_problem import volumeProblem


class Problem(NamedTuple):
    """Something that is wrong with the inputs.

    Attributes:
        modality: "" when it concerns all.
        what, hint: what is wrong, and what to do.
        blocking: the model cannot be run; else it is a warning.
    """

    modality: str
    what: str
    hint: str
    blocking: bool


def byModality(card, inputs: dict) -> dict:
    """``inputs`` by the model's own names of its modalities, without those that are None.

    As on the command line, any case and any other usual name will do; a name that the model does not know
    stays, to be refused by :func:`checkInputs`.

    Raises:
        EmimError: when two volumes are given for one modality.
    """
    named: dict = {}
    for name, node in inputs.items():
        if node is None:
            continue
        modality = modality_called(card, name) or name
        if modality in named:
            raise EmimError(
                _("Two volumes are given for {modality}.").format(modality=modality),
                node.GetName(),
                _("Give one volume per modality."),
            )
        named[modality] = node
    return named


def checkInputs(card, inputs: dict) -> list[Problem]:
    """All that is wrong with ``inputs`` (modality to volume); what blocks comes first."""
    given = {m: node for m, node in inputs.items() if node is not None}
    problems = _missing(card, given)
    problems += _duplicates(given)
    usable = {}
    for modality, node in given.items():
        found = volumeProblem(node)
        if found:
            problems.append(Problem(modality, *found))
        if not (found and found.blocking):
            usable[modality] = node
    problems += _frames(usable)
    problems += _apart(usable)
    problems += _patients(card, usable)
    return sorted(problems, key=lambda p: not p.blocking)


def _missing(card, given: dict) -> list[Problem]:
    problems = [
        Problem(
            modality,
            _("The model {model} has no input {modality}.").format(model=card.name, modality=modality),
            _("It takes: {names}.").format(names=", ".join(card.modalities)),
            True,
        )
        for modality in given
        if modality not in card.modalities
    ]
    for modality in card.modalities:
        if modality not in given and modality not in card.optional:
            can = ", ".join(card.optional) or _("none")
            problems.append(
                Problem(
                    modality,
                    _("The model needs {modality}.").format(modality=modality),
                    _("Choose its volume. The model can do without: {names}.").format(names=can),
                    True,
                )
            )
    if not given:
        what = _("No volume is chosen.")
        problems.append(Problem("", what, _("Choose the volume of at least one modality."), True))
    return problems


def _duplicates(given: dict) -> list[Problem]:
    problems, seen = [], {}
    for modality, node in given.items():
        first = seen.setdefault(node.GetID(), modality)
        if first != modality:
            what = _("“{volume}” is chosen both as {first} and as {second}.")
            problems.append(
                Problem(
                    modality,
                    what.format(volume=node.GetName(), first=first, second=modality),
                    _("Choose another volume, or say that {modality} is not available.").format(
                        modality=modality
                    ),
                    True,
                )
            )
    return problems


def _frames(usable: dict) -> list[Problem]:
    """What is shown of sequences, of which the model sees no more than that."""
    problems = []
    for modality, node in usable.items():
        frame = sequenceFrame(node)
        if frame is not None:
            what = _("“{volume}” shows frame {number} of {count} of the sequence “{sequence}”.")
            hint = _(
                "Only this frame is used, and the result stays that of this frame when another is shown."
            )
            problems.append(
                Problem(modality, what.format(volume=node.GetName(), **frame._asdict()), hint, False)
            )
    return problems


def _apart(usable: dict) -> list[Problem]:
    if len(usable) < 2:
        return []
    boxes = {modality: _box(node) for modality, node in usable.items()}
    problems = []
    first = next(iter(boxes))
    for modality, box in list(boxes.items())[1:]:
        low, high = np.maximum(boxes[first][0], box[0]), np.minimum(boxes[first][1], box[1])
        if (low > high).any():
            what = _("{modality} and {first} do not overlap in space.").format(modality=modality, first=first)
            hint = _("They are of different patients or examinations, or a transform is missing.")
            problems.append(Problem(modality, what, hint, True))
    return problems


def _box(volume) -> np.ndarray:
    """Lowest and highest corner, RAS mm in world coordinates: parent transforms are applied."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    return np.reshape(bounds, (3, 2)).T


def _patients(card, usable: dict) -> list[Problem]:
    problems = []
    for (first, a), (second, b) in itertools.combinations(usable.items(), 2):
        ofA, ofB = patientKey(a), patientKey(b)
        pair = {"first": first, "second": second}
        if ofA and ofB and ofA != ofB:
            names = {"a": itemName(patientItem(a)), "b": itemName(patientItem(b))}
            what = _("{first} and {second} are of different patients.").format(**pair)  # goes into files
            hint = _("Choose volumes of one patient: these are of {a} and {b}.").format(**names)
            return [Problem(second, what, hint, True)]
        studyA, studyB = studyItem(a), studyItem(b)
        if studyA and studyB and studyA != studyB:
            names = {"a": itemName(studyA), "b": itemName(studyB)}
            what = _("{first} and {second} are of different studies: {a} and {b}.").format(**pair, **names)
            hint = _("Check that both show the same state of the disease; align them if the head moved.")
            if not (ofA and ofB):
                hint = _("Not both have a Patient ID: check that they are of one patient.") + " " + hint
            problems.append(Problem(second, what, hint, False))
        elif not (ofA and ofB) and not (studyA and studyB):
            caseA, caseB = examinationNumbers(a, card), examinationNumbers(b, card)
            if caseA - caseB and caseB - caseA:
                names = {"a": a.GetName(), "b": b.GetName()}
                what = _("By their names {first} and {second} are of different cases: “{a}” and “{b}”.")
                hint = _("Choose volumes of one case.")
                problems.append(Problem(second, what.format(**pair, **names), hint, False))
    return problems[:1]
