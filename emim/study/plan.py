"""What a study is to do, fixed before it begins and written to its folder.

================== ==========================================================================
``study.json``     the study, its cohort, preset and settings, spacing, modalities, structures
``cohort.json``    the cohort as it was found, which every run uses
``split.json``     who is for the test and who validates
``runs/``          run folders: pre-trainings and fine-tunings
``tests/``         segmentations and scores of the test cases, by model
``logs/``          what each run said
``results.md``     tables, verdict and figures, as far as the runs are; ``results.json`` the same as data
================== ==========================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emim import __version__
from emim.cohort.case import Cohort
from emim.cohort.scan import Scan
from emim.errors import EmimError
from emim.folder_content import folder_content
from emim.run import write_json
from emim.study.arm import Arm, Study
from emim.study.settings import arm_settings, base_config
from emim.training.split import subjects_of

PLAN_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """See :func:`emim.study.planning.make_plan`.

    Attributes:
        out: the study's folder.
        arms: those that take part; ``left_out`` names the others with the reason.
        settings: of "pretrain" and "finetune" runs, by dotted name; arms change them.
        spacing: mm, of all runs, unless an arm sets another.
        labelled: numbers of labelled cases to fine-tune on.
        structures: ``NAME=VALUES``; empty: each label value.
        classes_file: the class of each case, for a study that classifies.
    """

    study: Study
    out: Path
    found: Scan
    split: dict[str, list[str]]
    arms: tuple[Arm, ...]
    left_out: dict[str, str]
    seeds: tuple[int, ...]
    preset: str
    settings: dict[str, dict[str, Any]]
    spacing: tuple[float, float, float]
    modalities: tuple[str, ...]
    labelled: tuple[int, ...]
    structures: tuple[str, ...]
    compute_device: str | None = None
    cache: Path | None = None
    classes_file: Path | None = None

    @property
    def cohort_file(self) -> Path:
        return self.out / "cohort.json"

    @property
    def split_file(self) -> Path:
        return self.out / "split.json"

    @property
    def tests(self) -> Path:
        return self.out / "tests"

    def run(self, name: str) -> Path:
        return self.out / "runs" / name

    def log(self, name: str) -> Path:
        return self.out / "logs" / f"{name}.txt"

    def device(self) -> tuple[str, ...]:
        return (f"--device={self.compute_device}",) if self.compute_device else ()

    def where(self) -> tuple[str, ...]:
        return (*((f"--cache={self.cache}",) if self.cache else ()), *self.device())

    def base(self, kind: str) -> Any:
        """The configuration that arms change."""
        return self._bases[kind]

    @cached_property
    def _bases(self) -> dict[str, Any]:
        given = {"preprocess.spacing": self.spacing, "modalities": self.modalities}
        return {k: base_config(k, self.preset, {**given, **self.settings[k]}) for k in self.settings}

    def spacings(self) -> list[tuple[float, float, float]]:
        """All voxel sizes that the arms use."""
        kinds = ("pretrain", "finetune") if self.study.finetunes else ("pretrain",)
        own = [arm_settings(a, k, self.base("pretrain")) for a in self.arms for k in kinds]
        return sorted({tuple(s.get("preprocess.spacing", self.spacing)) for s in own})

    def cohort(self) -> Cohort:
        """The cases that are trained or validated on."""
        out = subjects_of(self.found.cohort, self.split["test"])
        usable = self.found.cohort.with_modalities(self.modalities)
        return Cohort(usable.modalities, tuple(c for c in usable.cases if c.subject not in out))

    def record(self) -> dict[str, Any]:
        """What may not change when the study is continued; seeds, arms and labelled counts may."""
        return {
            "version": PLAN_VERSION,
            "study": self.study.name,
            "cohort": self.found.source,
            "preset": self.preset,
            "settings": {k: {n: str(v) for n, v in s.items()} for k, s in self.settings.items()},
            "spacing": list(self.spacing),
            "modalities": list(self.modalities),
            "structures": list(self.structures),
            "split": self.split,
        }

    def write(self) -> None:
        """Write what the runs need, or check that it is what an interrupted study began with.

        Raises:
            EmimError: when the folder holds another study or anything else.
        """
        file = self.out / "study.json"
        record = self.record()
        if before := read_record(self.out):
            changed = [k for k in record if before.get(k) != record[k]]
            if changed:
                raise EmimError(
                    f"The study in this folder differs in its {', '.join(changed)}.",
                    file,
                    "Give the same command to continue it, or choose another --out.",
                )
        elif self.out.exists() and folder_content(self.out):
            raise EmimError("The folder is not empty and holds no study.", self.out, "Choose another --out.")
        for folder in ("runs", "tests", "logs"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        if not before:
            write_json(self.cohort_file, self.found.to_dict())
            write_json(self.split_file, self.split)
            write_json(file, {**record, "emim": __version__})


def read_record(out: Path) -> dict[str, Any]:
    """What an earlier call wrote of the study in ``out``; empty when there is none."""
    try:
        data = json.loads((out / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
