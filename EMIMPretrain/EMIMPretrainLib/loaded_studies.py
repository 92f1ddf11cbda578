"""What is loaded in the scene, study by study, and what of it goes into a cohort under which name.

Names of cases tell nothing about the patient: ``case-001``, and ``case-001_ses-2`` for a second study of the
same patient, which a scan keeps on the same side of a split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from slicer.i18n import tr as _

from emim.cohort.patterns import canonical_patterns
from emim.cohort.vocabulary import PATTERNS
from EMIMLib import EmimError
from EMIMLib.guessing import LoadedExamination, loadedExaminations
from EMIMLib.patient import patientKey, studyUID
from EMIMLib.sequence_frame import sequenceFrame
from EMIMLib.volume_problem import volumeProblem

from .added_cases import addedAs
from .case_loader import CASE
from .patients_table import PatientRow, readPatients

_NUMBERED = re.compile(r"case-(\d+)", re.IGNORECASE)
SESSION = re.compile(r"_ses-[^\W_]+$")  # at the end of the name of a further study of a patient


@dataclass
class StudyVolume:
    """A volume of a study.

    Attributes:
        nodeID, name: of the volume node.
        modality: as which it is written; "" leaves it out.
        reason: why, in words for people.
        usable: it may be given a modality.
    """

    nodeID: str
    name: str
    modality: str
    reason: str
    usable: bool = True


@dataclass
class LoadedStudy:
    """A study in the scene. Its name, whether it is included, and modalities may be changed before writing.

    Attributes:
        title: for the screen only; it may tell who the patient is.
        name: of the case folder.
        volumes: all volumes of the study.
        included: it is written.
        patient: equal for studies of one patient; "" when that is not known.
        added: the case that it is in the cohort folder already; "" where it is not.
    """

    title: str
    name: str
    volumes: list[StudyVolume]
    included: bool
    patient: str
    added: str

    @property
    def proposed(self) -> bool:
        """Whether to write it, where the user has not said."""
        return not self.added and any(volume.modality for volume in self.volumes)

    @property
    def note(self) -> str:
        """Why it is not proposed to be written, or what to know about its patient; else empty."""
        if self.added:
            return _("in the folder already, as {case}").format(case=self.added)
        if not self.proposed:
            return _("no volume of it is chosen")
        if self.patient:
            return ""
        return _("patient not known (no Patient ID): counts as one more, unless named like case-001_ses-2")


class _Sought(NamedTuple):
    """What volumes may be, as :func:`EMIMLib.guessing.loadedExaminations` takes it."""

    modalities: tuple[str, ...]
    patterns: Mapping[str, Sequence[str]]


def modalityNames(patterns: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What a volume may be taken for: the usual modalities, and those of the user's name patterns."""
    return list(dict.fromkeys([*PATTERNS, *canonical_patterns(patterns)]))


def loadedStudies(
    folder: str | Path, patterns: Mapping[str, Sequence[str]] | None = None
) -> list[LoadedStudy]:
    """Every study in the scene, with a proposal what of it goes into the cohort ``folder``.

    Args:
        folder: cohort folder, which need not exist yet; names are proposed that are free in it.
        patterns: the user's name patterns by modality, by which volumes are recognised, too.

    Raises:
        EmimError: when no volume is loaded, or the list of patients in the folder cannot be read.
    """
    sought = _Sought(tuple(modalityNames(patterns)), canonical_patterns(patterns))
    folder = Path(folder).absolute()
    listed = readPatients(folder)
    studies = [_study(examination, folder, listed) for examination in loadedExaminations(sought)]
    if not studies:
        raise EmimError(
            _("No volume is loaded."),
            hint=_("Load examinations with the module DICOM, or files with File > Add Data; then try again."),
        )
    _nameCases(studies, folder, listed)
    return studies


def namesOf(folder: Path) -> set[str]:
    """Names of all that is in a folder; empty where there is none.

    Raises:
        EmimError: when it cannot be looked into.
    """
    try:
        return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise EmimError(
            _("The folder cannot be read: {reason}.").format(reason=error.strerror or error), folder
        ) from error


def _study(examination: LoadedExamination, folder: Path, listed: Sequence[PatientRow]) -> LoadedStudy:
    volumes = [_recognised(one) for one in examination.volumes]
    _chooseLargest(volumes, {one.volume.GetID(): one.volume for one in examination.volumes})
    volumes += [_leftOut(node, _("no modality is recognised in its name")) for node in examination.others]
    nodes = [*(one.volume for one in examination.volumes), *examination.others]
    cases = [
        *(addedAs(node, folder) for node in nodes),
        *(r.case for r in listed if r.study and r.study == studyUID(nodes[0])),
    ]
    added = next((case for case in cases if case and (folder / case).is_dir()), "")
    study = LoadedStudy(examination.name, added, volumes, False, patientKey(nodes[0]), added)
    study.included = study.proposed
    return study


def _recognised(one) -> StudyVolume:
    left = _leftOut(one.volume, "")
    return left if left.reason else StudyVolume(left.nodeID, left.name, one.modality, one.reason)


def _leftOut(node: Any, reason: str) -> StudyVolume:
    """A volume that is left out; what is wrong with the volume itself comes before ``reason``."""
    problem, case, frame = volumeProblem(node), node.GetAttribute(CASE), sequenceFrame(node)
    if frame:
        reason = _("it is only frame {number} of {count} of the sequence “{sequence}”").format(
            **frame._asdict()
        )
    if case:
        reason = _("it was loaded from a cohort, case {case}").format(case=case)
    usable = not (problem and problem.blocking)
    return StudyVolume(node.GetID(), node.GetName(), "", problem.what if problem else reason, usable)


def _chooseLargest(volumes: list[StudyVolume], nodes: Mapping[str, Any]) -> None:
    """Of several volumes of one modality keep the one with most voxels, and say so; none if two are equal."""
    for modality, count in Counter(v.modality for v in volumes if v.modality).items():
        if count == 1:
            continue
        same = [v for v in volumes if v.modality == modality]
        sizes = [nodes[v.nodeID].GetImageData().GetNumberOfPoints() for v in same]
        for volume, size in zip(same, sizes, strict=True):
            if size == max(sizes) and sizes.count(size) == 1:
                volume.reason = _("the largest of {n} that are {modality}").format(n=count, modality=modality)
                continue
            volume.modality = ""
            equal = _("{n} are {modality}, the largest of one size: choose one")
            larger = _("another one that is {modality} is larger")
            text = equal if sizes.count(max(sizes)) > 1 else larger
            volume.reason = text.format(n=count, modality=modality)


def _nameCases(studies: Sequence[LoadedStudy], folder: Path, listed: Sequence[PatientRow]) -> None:
    """Give the studies that have no name yet the next free ones; a known patient keeps the number."""
    taken = namesOf(folder) | {row.case for row in listed}
    number = max((int(found[1]) for name in taken if (found := _NUMBERED.match(name))), default=0)
    subjects = {row.patient: SESSION.sub("", row.case) for row in reversed(listed) if row.patient}
    subjects |= {s.patient: SESSION.sub("", s.name) for s in studies if s.name and s.patient}
    for study in sorted(studies, key=lambda s: not s.included):
        if study.name:
            continue
        if study.patient in subjects:
            session = 2
            while (name := f"{subjects[study.patient]}_ses-{session}") in taken:
                session += 1
        else:
            number += 1
            name = f"case-{number:03d}"
            if study.patient:
                subjects[study.patient] = name
        study.name = name
        taken.add(name)
