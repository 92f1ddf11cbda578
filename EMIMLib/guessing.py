"""Which loaded volume is which modality, told from names and DICOM series descriptions.

Volumes are first sorted into examinations, so that the T1 of one patient is never put beside the FLAIR
of another: by their study or folder in the subject hierarchy, else by what their names say beside the
modality (``pat07`` in ``pat07_t1``); by both where a folder holds several cases.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Any, NamedTuple

import slicer
from slicer.i18n import tr as _

from emim.cohort.patterns import canonical, find_modality
from EMIMLib.made_volumes import REVIEW, isResult
from EMIMLib.patient import (
    folderItem,
    itemName,
    patientItem,
    patientNumber,
    seriesDescription,
    studyItem,
    studyUID,
)
from EMIMLib.sequence_frame import sequenceFrame

# Words beside the modality that differ between the series of one examination.
_OF_THE_SERIES = {
    "2d",
    "3d",
    "ax",
    "axial",
    "tra",
    "trans",
    "transversal",
    "sag",
    "sagittal",
    "cor",
    "coronal",
}


class Guess(NamedTuple):
    """A volume taken for a modality, and why, in words for people."""

    node: Any
    reason: str


class Study(NamedTuple):
    """Loaded volumes of one examination.

    Attributes:
        name: of the case, also in files: that of a study in DICOM does not tell who the patient is.
        inputs: modality to volume.
        missing: modalities the model cannot do without that were not found.
        title: of the examination, for the screen only: it may tell that. "": the name.
    """

    name: str
    inputs: dict
    missing: tuple[str, ...]
    title: str = ""


class LoadedExamination(NamedTuple):
    """All volumes of one examination that the user sees in the scene.

    Attributes:
        name: of the examination.
        volumes: those of which the modality is recognised, each as a :class:`Recognised`.
        others: volume nodes of which it is not, or that hold something else than an image.
    """

    name: str
    volumes: list[Recognised]
    others: list


class Examination(NamedTuple):
    """What tells examinations apart.

    Attributes:
        item: subject hierarchy item of the study or folder; 0 at the top of the scene.
        words: what the names say beside the modality; "" where the item says enough.
    """

    item: int
    words: str


_LOOSE = Examination(0, "")  # what lies at the top of the scene under a name that tells no examination


class Recognised(NamedTuple):
    """A volume whose modality is told, and why, in words for people."""

    volume: Any
    modality: str
    reason: str
    examination: Examination
    case: str  # what the name says beside the modality


def guessInputs(card, chosen: Collection = ()) -> dict[str, Guess]:
    """The volumes of the most complete examination; of equal ones that in the slice views, else the last.

    A volume is never taken twice. Modalities that no volume fits are absent.

    Args:
        chosen: volumes that the user has chosen; where there are any, only those of their examination are
            guessed. A case of a batch that was loaded to be looked at is guessed only where it is theirs.
    """
    reviews = {volume.GetAttribute(REVIEW) for volume in chosen} or {None}
    if len(reviews) > 1:
        return {}
    recognised = _recognise(card, *reviews)
    examinations = _byExamination(recognised)
    if chosen:
        examinations = _besides(chosen, examinations)
    if not examinations:
        return {}
    shown = _shownVolumes()
    best = max(
        examinations.values(),
        key=lambda found: (
            len({r.modality for r in found}),
            any(r.volume.GetID() in shown for r in found),
            [r.volume.GetID() for r in recognised].index(found[-1].volume.GetID()),
        ),
    )
    return _choose(card, best)


def loadedStudies(card) -> list[Study]:
    """Every examination in the scene that has a volume for the model, in the order of loading."""
    studies = []
    for examination, found in _byExamination(_recognise(card)).items():
        inputs = {m: guess.node for m, guess in _choose(card, found).items()}
        missing = tuple(m for m in card.modalities if m not in inputs and m not in card.optional)
        title = _name(examination, found[0].volume, found[0].case)
        studies.append(Study(_caseName(title, found[0].volume), inputs, missing, title))
    return studies


def loadedExaminations(card) -> list[LoadedExamination]:
    """Every examination in the scene, in the order of loading; those with no recognised volume come last.

    Args:
        card: of a model, or anything else with ``modalities`` and ``patterns``.
    """
    examinations = _byExamination(_recognise(card))
    known = {one.volume.GetID() for found in examinations.values() for one in found}
    others: dict[Examination, list] = {examination: [] for examination in examinations}
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if volume.GetID() in known or volume.GetHideFromEditors() or isResult(volume):
            continue
        if volume.GetAttribute(REVIEW) is not None:
            continue
        examination = _examinationOf(volume, examinations) or Examination(0, _words(_ownName(volume)))
        others.setdefault(examination, []).append(volume)
    loaded = []
    for examination, volumes in others.items():
        found = examinations.get(examination, [])
        name = _name(examination, *((found[0].volume, found[0].case) if found else (volumes[0], "")))
        loaded.append(LoadedExamination(name, found, volumes))
    return loaded


def examinationsOf(card, volumes: Iterable) -> set[Examination]:
    """Those that the volumes are of; a volume of which nothing tells it counts for nothing."""
    byReview: dict[str | None, list] = {}
    for volume in volumes:
        byReview.setdefault(volume.GetAttribute(REVIEW), []).append(volume)
    told = set()
    for review, ofIt in byReview.items():
        examinations = _byExamination(_recognise(card, review))
        told |= {_examinationOf(volume, examinations) for volume in ofIt}
    return told - {None}


def examinationNumbers(volume, card) -> set[str]:
    """Numbers before the modality in the volume's name, such as a case number.

    Single digits are not, nor is the number of a DICOM series.
    """
    match = find_modality(volume.GetName(), patterns=card.patterns or None)
    return set(re.findall(r"\d\d+", _withoutSeriesNumber(match.rest, volume))) if match else set()


def _recognise(card, review: str | None = None) -> list[Recognised]:
    """The user's volumes; else those of a case with the attribute :data:`REVIEW` ``review``."""
    wanted = {canonical(m): m for m in card.modalities} | {m: m for m in card.modalities}
    recognised = []
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        # A label map or a colour image is a scalar volume, too, as far as classes go.
        if volume.GetClassName() != "vtkMRMLScalarVolumeNode" or volume.GetHideFromEditors():
            continue
        if isResult(volume) or volume.GetImageData() is None or volume.GetAttribute(REVIEW) != review:
            continue
        for text, reason in _texts(volume):
            match = find_modality(text, patterns=card.patterns or None)
            if match is not None and match.modality in wanted:
                ofSeries = text == seriesDescription(volume)  # it names no patient
                case = "" if ofSeries else _withoutSeriesNumber(match.rest, volume)
                examination = _examination(volume, case)
                recognised.append(Recognised(volume, wanted[match.modality], reason, examination, case))
                break
    return _toldApart(recognised)


def _toldApart(recognised: list[Recognised]) -> list[Recognised]:
    """The words tell examinations apart, too, where a plain folder holds several."""
    mixed = {examination for examination, found in _byExamination(recognised).items() if _areSeveral(found)}
    return [
        one._replace(examination=Examination(one.examination.item, _words(one.case)))
        if one.examination in mixed
        else one
        for one in recognised
    ]


def _areSeveral(found: list[Recognised]) -> bool:
    """Whether one modality comes with different words in a folder that is no patient's."""
    if patientItem(found[0].volume) or studyItem(found[0].volume):
        return False
    words: dict[str, set[str]] = {}
    for one in found:
        words.setdefault(one.modality, set()).add(_words(one.case))
    return any(len(cases) > 1 for cases in words.values())


def _texts(volume) -> list[tuple[str, str]]:
    """What a volume is called, most telling first, each with the words for a reason."""
    name, description = volume.GetName() or "", seriesDescription(volume)
    storage = volume.GetStorageNode()
    file = PurePath(storage.GetFileName() or "").name if storage else ""
    texts = [
        (name, _("its name is “{text}”").format(text=name)),
        (description, _("its DICOM series description is “{text}”").format(text=description)),
        (file, _("its file is “{text}”").format(text=file)),
    ]
    return [(text, reason) for text, reason in texts if text]


def _ownName(volume) -> str:
    return _withoutSeriesNumber(volume.GetName() or "", volume)


def _withoutSeriesNumber(text: str, volume) -> str:
    """``text`` without the number of a DICOM series at its beginning, by which Slicer names volumes."""
    # "12: t1_km"; a name of a file, "12 t1_km", has lost the colon: there 12 may as well be a case.
    fromDicom = volume.GetAttribute("DICOM.instanceUIDs")
    return re.sub(r"^\d+:? " if fromDicom else r"^\d+: ", "", text)


def _words(text: str) -> str:
    """The words of a text that tell examinations apart, in small letters."""
    words = re.split(r"[\W_]+", text.casefold())
    return " ".join(w for w in words if w and w not in _OF_THE_SERIES)


def _examination(volume, case: str) -> Examination:
    item = studyItem(volume) or folderItem(volume)
    return Examination(item, "" if item else _words(case))


def _byExamination(recognised: list[Recognised]) -> dict[Examination, list[Recognised]]:
    examinations: dict[Examination, list[Recognised]] = {}
    for one in recognised:
        examinations.setdefault(one.examination, []).append(one)
    return examinations


def _besides(chosen: Collection, examinations: dict) -> dict:
    """Of the ``examinations`` that of the ``chosen`` volumes; none where they are of several."""
    told = {_examinationOf(volume, examinations) for volume in chosen} - {None}
    others = {key: found for key, found in examinations.items() if key != _LOOSE}
    alone = all(one.volume in chosen for one in examinations.get(_LOOSE, []))
    if told <= {_LOOSE} and alone and len(others) == 1:
        return others  # such as the output of another module: it may be of the only patient there is
    return {key: found for key, found in examinations.items() if told == {key}}


def _examinationOf(volume, examinations: dict) -> Examination | None:
    """That which the volume was recognised as part of, else the one whose place and words it shares."""
    for examination, found in examinations.items():
        if any(one.volume is volume for one in found):
            return examination
    item, words = studyItem(volume) or folderItem(volume), set(_words(_ownName(volume)).split())
    fitting = [e for e in examinations if e.item == item and words.issuperset(e.words.split())]
    other = Examination(item, "") if item else None
    return max(fitting, key=lambda examination: len(examination.words), default=other)


def _choose(card, found: list[Recognised]) -> dict[str, Guess]:
    """Of several volumes of one modality the one with most voxels: scouts and reformats are small.

    A frame of a sequence is taken only where there is nothing else.
    """
    guesses = {}
    for modality in card.modalities:
        fitting = [r for r in found if r.modality == modality]
        fitting = [r for r in fitting if sequenceFrame(r.volume) is None] or fitting
        if fitting:
            sizes = [r.volume.GetImageData().GetNumberOfPoints() for r in fitting]
            best = fitting[sizes.index(max(sizes))]
            reason = best.reason
            if sizes.count(max(sizes)) > 1:
                text = _("; {count} fit, the largest of one size: check that it is the right one")
                reason += text.format(count=len(fitting))
            elif len(fitting) > 1:
                reason += _("; the largest of {count} that fit").format(count=len(fitting))
            guesses[modality] = Guess(best.volume, reason)
    return guesses


def _name(examination: Examination, volume, case: str) -> str:
    """Told from one of its volumes, and from what that one's name says beside the modality."""
    if studyItem(volume):
        names = [itemName(patientItem(volume)), itemName(studyItem(volume))]
        return " / ".join(n for n in names if n)
    case = case.strip(" _-.:") or volume.GetName()
    if examination.item:
        return f"{itemName(examination.item)} / {case}" if examination.words else itemName(examination.item)
    return case


def _caseName(title: str, volume) -> str:
    """The title; where a patient item stands above the volume, a code in its place.

    The code is the same another day, so that what is done is found again: a fingerprint of the Study Instance
    UID, which is unique and names nobody; where there is none, of Patient ID and title, which somebody who
    knows both can tell again.
    """
    if not patientItem(volume) and not studyItem(volume):
        return title
    study = studyUID(volume) or f"{patientNumber(volume)} {title}"
    return f"case-{hashlib.sha256(study.encode()).hexdigest()[:8]}"


def _shownVolumes() -> set[str]:
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {view.GetBackgroundVolumeID() for view in views} - {None}
