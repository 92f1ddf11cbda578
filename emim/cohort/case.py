"""A cohort: subjects, the image file of each modality, and optionally a label file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from emim.cohort.patterns import canonical
from emim.errors import EmimError


@dataclass(frozen=True)
class Case:
    """One examination of one subject.

    Attributes:
        id: unique within the cohort; names output files.
        subject: who was examined; cases of one subject never fall on both sides of a split.
        images: modality name to absolute file path; a modality that is missing has no entry.
        label: path of the label map, or None.
        recode: label value in the file to the cohort's, where they differ; see :mod:`emim.cohort.coding`.
    """

    id: str
    subject: str
    images: dict[str, str]
    label: str | None = None
    recode: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """The usable cases, in order of their id, and the modalities in the order networks see them.

    Attributes:
        scanned: id to subject of every case that a scan found, usable or not; empty: not known.
    """

    modalities: tuple[str, ...]
    cases: tuple[Case, ...] = field(default_factory=tuple)
    scanned: dict[str, str] = field(default_factory=dict, compare=False)

    def subjects(self) -> dict[str, str]:
        """Id to subject of all cases, usable or not."""
        return {**self.scanned, **{c.id: c.subject for c in self.cases}}

    def labelled(self) -> tuple[Case, ...]:
        return tuple(c for c in self.cases if c.label)

    def select(self, ids: list[str] | tuple[str, ...]) -> Cohort:
        """The cohort of the named cases, in the order given.

        Raises:
            EmimError: when an id is not in the cohort.
        """
        by_id = {c.id: c for c in self.cases}
        for i in ids:
            if i not in by_id:
                raise EmimError(
                    f"There is no usable case {i!r} in the cohort.",
                    hint="`emim scan` lists the cases, and those left out with the reason.",
                )
        return replace(self, cases=tuple(by_id[i] for i in ids))

    def without(self, ids: list[str] | tuple[str, ...]) -> Cohort:
        out = set(ids)
        return replace(self, cases=tuple(c for c in self.cases if c.id not in out))

    def name_of(self, modality: str) -> str:
        """The usual name of a modality (``T1ce`` for ``t1gd``), unless the cohort has it by this one."""
        return modality if modality in self.modalities else canonical(modality)

    def with_modalities(self, names: tuple[str, ...]) -> Cohort:
        """The cohort with only these modalities, in this order, and the cases that have any of them.

        Raises:
            EmimError: when no case has one of them, or one is named twice.
        """
        names = tuple(self.name_of(n) for n in names)
        if len(set(names)) < len(names):
            raise EmimError("A modality is named twice.", ", ".join(names))
        for name in names:
            if name not in self.modalities:
                raise EmimError(
                    f"No case of the cohort has the modality {name!r}.",
                    hint=f"The cohort has {', '.join(self.modalities)}.",
                )
        cases = (replace(c, images={n: c.images[n] for n in names if n in c.images}) for c in self.cases)
        return replace(self, modalities=names, cases=tuple(c for c in cases if c.images))

    def to_dict(self) -> dict:
        return {"modalities": list(self.modalities), "cases": [asdict(c) for c in self.cases]}

    @staticmethod
    def from_dict(data: dict) -> Cohort:
        return Cohort(tuple(data["modalities"]), tuple(_case(c) for c in data["cases"]))

    def save(self, file: str | Path) -> None:
        Path(file).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")


def _case(data: dict) -> Case:
    """The case that ``asdict`` made; JSON has turned numbers that are keys into text."""
    return Case(**{**data, "recode": {int(k): v for k, v in data.get("recode", {}).items()}})
