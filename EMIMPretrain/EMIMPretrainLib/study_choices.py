"""What the user changes of the proposal which loaded studies go into a cohort, kept for the next proposal."""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _

from .loaded_studies import SESSION, LoadedStudy, StudyVolume


class StudyChoices:
    """Changes studies as the user says, and does the same to proposals for another folder.

    Volumes are known again by their nodes, studies by their volumes. What the user has not touched follows
    the proposal.
    """

    def __init__(self) -> None:
        self._modalities: dict[str, str] = {}  # by node ID
        self._ticks: dict[frozenset[str], bool] = {}
        self._names: dict[frozenset[str], str] = {}

    def choose(self, study: LoadedStudy, volume: StudyVolume, modality: str) -> None:
        """Write a volume of the study as this modality; "" leaves it out."""
        self._modalities[volume.nodeID] = modality
        self._applyModality(volume)
        if _key(study) not in self._ticks:
            study.included = study.proposed

    def tick(self, study: LoadedStudy, included: bool) -> None:
        """Include the study, or do not."""
        self._ticks[_key(study)] = study.included = included

    def rename(self, study: LoadedStudy, name: str, studies: Sequence[LoadedStudy]) -> None:
        """Name a study; of ``studies``, others of the patient follow, so that ``a1_ses-2`` goes with ``a1``.

        Those that the user has named, and those in the folder already, keep their names.
        """
        self._names[_key(study)] = study.name = name
        subject = SESSION.sub("", name)
        same = [other for other in studies if study.patient and other.patient == study.patient]
        for other in same:
            if other.added or _key(other) in self._names:
                continue
            session = SESSION.search(other.name)
            following = subject + (session.group() if session else "")
            if following != name:
                other.name = following

    def applyTo(self, studies: Sequence[LoadedStudy]) -> None:
        """Change new proposals as the user has changed those before; what is in the folder stays unticked."""
        for study in studies:
            for volume in study.volumes:
                self._applyModality(volume)
            study.included = self._ticks.get(_key(study), study.proposed) and not study.added
        proposed = {_key(study): study for study in studies if not study.added}
        for key, name in self._names.items():
            if key in proposed:
                self.rename(proposed[key], name, studies)

    def _applyModality(self, volume: StudyVolume) -> None:
        if volume.nodeID in self._modalities:
            volume.modality, volume.reason = self._modalities[volume.nodeID], _("chosen by you")


def _key(study: LoadedStudy) -> frozenset[str]:
    return frozenset(volume.nodeID for volume in study.volumes)
