"""Writing loaded studies into a cohort folder: a folder for each study, an NRRD file for each modality."""

from __future__ import annotations

import filecmp
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from emim.cohort.folder import subjects_of
from emim.cohort.patterns import canonical, canonical_patterns, match_modality
from emim.replace import replace_file
from EMIMLib import EmimError
from EMIMLib.export_volume import exportVolume
from EMIMLib.models import folderName
from EMIMLib.patient import patientNumber, studyUID

from .added_cases import noteAdded
from .loaded_studies import LoadedStudy, StudyVolume, namesOf
from .patients_table import PatientRow, addPatients, readPatients

Patterns = Mapping[str, Sequence[str]]


def addStudies(
    studies: Sequence[LoadedStudy],
    folder: str | Path,
    patterns: Patterns | None = None,
    keepPatients: bool = False,
) -> list[Path]:
    """Write the included ``studies`` into a cohort folder, each volume as it is seen: transforms are applied.

    Nothing is replaced. All files are written into a hidden folder first, whose content is then moved into
    place, so that a case is there as a whole or not at all. The files hold voxels and position, no name.

    Args:
        folder: made where it does not exist.
        patterns: the user's name patterns, with which the folder is going to be scanned.
        keepPatients: append case, DICOM Patient ID and Study Instance UID to ``patients.csv`` in the folder,
            by which later studies of these patients are recognised.

    Returns:
        The new case folders.

    Raises:
        EmimError: see :func:`checkStudies`; also when a case of the folder has the same image, a transform
            cannot be applied, or the disk is full: no case has been added then. Where a finished folder
            cannot be moved into place, those before it have been.
    """
    folder = Path(folder).absolute()
    checkStudies(studies, folder, patterns)
    chosen = [study for study in studies if study.included]
    stage = folder / f".part-{uuid.uuid4().hex[:8]}"
    try:
        stage.mkdir(parents=True)
        for study in chosen:
            (stage / study.name).mkdir()
            for volume in _written(study):
                exportVolume(_node(volume), stage / study.name / fileName(volume.modality))
        _refuseCopies(stage, folder)
        if keepPatients:
            addPatients(folder, [_patientRow(study) for study in chosen])
        for study in chosen:
            replace_file(stage / study.name, folder / study.name)
            for volume in _written(study):
                noteAdded(_node(volume), folder, study.name)
    except OSError as error:
        raise EmimError(
            _("The studies cannot be written: {reason}.").format(reason=error.strerror or error),
            error.filename or folder,
            _("Check the rights and the free space of the folder, and close programs that use it."),
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return [folder / study.name for study in chosen]


def checkStudies(
    studies: Sequence[LoadedStudy], folder: str | Path, patterns: Patterns | None = None
) -> None:
    """Raise an :class:`EmimError` where the ``studies`` cannot be written as they are.

    That is when none is included, a name is taken or no folder name, a scan would take one patient for
    several, a study has no or several volumes of a modality, a scan would not recognise the modality, or the
    folder is that of the practice cohort.
    """
    from emim.phantom.generate import DESCRIPTION  # loads SimpleITK

    folder = Path(folder)
    if (folder / DESCRIPTION).exists():
        raise EmimError(
            _("This is a practice cohort, which is replaced when it is made again."),
            folder,
            _("Choose another folder for your own data."),
        )
    chosen = [study for study in studies if study.included]
    if not chosen:
        raise EmimError(_("No study is chosen."), hint=_("Tick the studies to add."))
    present = namesOf(folder)
    taken = {name.casefold() for name in present}
    for study in chosen:
        _checkName(study.name, taken)
        taken.add(study.name.casefold())
        _checkModalities(study, canonical_patterns(patterns))
    _checkPatients(studies, folder, present)


def fileName(modality: str) -> str:
    """Of the image of a modality in its case folder."""
    return f"{modality}.nrrd"


def _checkName(name: str, taken: set[str]) -> None:
    if not name or folderName(name) != name or name.startswith("."):
        raise EmimError(
            _("“{name}” cannot be the name of a folder.").format(name=name), hint=_("Choose another name.")
        )
    if name.casefold() in taken:
        raise EmimError(
            _("“{name}” is taken; nothing is overwritten.").format(name=name), hint=_("Choose another name.")
        )


def _checkPatients(studies: Sequence[LoadedStudy], folder: Path, present: set[str]) -> None:
    """Refuse names by which a scan would take one patient for two, who may fall on both sides of a split."""
    there = {row.case: row.patient for row in readPatients(folder)}
    there |= {study.added: study.patient for study in studies if study.added and study.patient}
    cases = [(case, patient) for case, patient in there.items() if case in present]
    subjects = subjects_of([*present, *(study.name for study in studies if study.included)])
    for study in studies:
        if not study.included or not study.patient:
            continue
        others = [case for case, patient in cases if patient == study.patient]
        if others and subjects[study.name] not in {subjects[case] for case in others}:
            raise EmimError(
                _(
                    "“{first}” and “{second}” are one patient, but by these names a scan would take them for "
                    "two, one perhaps for training and one for testing."
                ).format(first=others[0], second=study.name),
                hint=_("Name them like case-001 and case-001_ses-2: alike, with a number, before _ses-."),
            )
        cases.append((study.name, study.patient))


def _checkModalities(study: LoadedStudy, patterns: Patterns) -> None:
    counts = Counter(volume.modality for volume in _written(study))
    if not counts:
        raise EmimError(
            _("{name}: no volume is chosen.").format(name=study.name),
            hint=_("Say which modality its volumes are, or untick the study."),
        )
    for modality, count in counts.items():
        if count > 1:
            raise EmimError(
                _("{name}: {n} volumes are chosen as {modality}.").format(
                    name=study.name, n=count, modality=modality
                ),
                hint=_("Leave all but one of them out."),
            )
        file = fileName(modality)
        if folderName(modality) != modality:
            raise EmimError(
                _("“{name}” cannot be the name of a file.").format(name=modality),
                hint=_("Give the modality another name in the name patterns."),
            )
        if match_modality(file, patterns) != canonical(modality):
            raise EmimError(
                _("With the name patterns, {file} is not recognised as {modality}.").format(
                    file=file, modality=modality
                ),
                hint=_("Add the name pattern {modality} for {modality}.").format(modality=modality),
            )


def _written(study: LoadedStudy) -> list[StudyVolume]:
    return [volume for volume in study.volumes if volume.modality]


def _node(volume: StudyVolume) -> Any:
    node = slicer.mrmlScene.GetNodeByID(volume.nodeID)
    if node is None:
        raise EmimError(_("The volume “{name}” is not in the scene any more.").format(name=volume.name))
    return node


def _refuseCopies(stage: Path, folder: Path) -> None:
    """Refuse what was added before: a scan would leave out both cases. Equal volumes give equal files."""
    new = list(stage.glob("*/*.nrrd"))
    bySize = defaultdict(list)
    for file in (*folder.glob("*/*.nrrd"), *new):
        bySize[file.stat().st_size].append(file)
    for file in new:
        for other in bySize[file.stat().st_size]:
            if other != file and filecmp.cmp(file, other, shallow=False):
                raise EmimError(
                    _("{name}: its {modality} is the same image as {other}.").format(
                        name=file.parent.name, modality=file.stem, other=f"{other.parent.name}/{other.name}"
                    ),
                    hint=_("Leave it out: it was added before, or is loaded twice."),
                )


def _patientRow(study: LoadedStudy) -> PatientRow:
    node = _node(_written(study)[0])
    return PatientRow(study.name, patientNumber(node), studyUID(node))
