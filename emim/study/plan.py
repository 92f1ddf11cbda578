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

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emim import __version__
from emim.cohort.case import Cohort
from emim.cohort.scan import Scan
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.run import write_json
from emim.study.arm import Arm, Study
from emim.study.settings import arm_settings, base_config
from emim.study.split import draw_split, labelled_for_training
from emim.volumes.preprocess import resolve_spacing

PLAN_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """See :func:`make_plan`.

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
        out = {c.subject for c in self.found.cohort.select(self.split["test"]).cases}
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
        elif self.out.exists() and any(self.out.iterdir()):
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


def make_plan(
    study: Study,
    found: Scan,
    out: Path,
    *,
    given_split: dict[str, Any],
    seeds: Sequence[int],
    preset: str,
    settings: dict[str, dict[str, Any]],
    arms: Sequence[str] | None = None,
    labelled: Sequence[int] | None = None,
    structures: Sequence[str] = (),
    device: str | None = None,
    cache: Path | None = None,
    classes_file: Path | None = None,
) -> Plan:
    """Decide all that a study will do.

    Args:
        found: the cohort.
        given_split: of a split file, see :func:`emim.training.split.read_split`.
        settings: see :func:`emim.study.settings.parse_settings`.
        arms: names of those to take part; None: all.
        labelled: numbers of labelled cases; None: the study's fractions of those there are.
        classes_file: CSV or JSON with the class of each case, for a study that classifies.

    Raises:
        EmimError: for what cannot work, or when no arm is left.
    """
    classes = _classes(study, found, classes_file)
    if classes is not None:
        given = {"task": "classification", "classification.labels": str(classes_file)}
        settings = {**settings, "finetune": {**settings["finetune"], **given}}
    split = draw_split(found, given_split, study.finetunes, classes)
    base = base_config("pretrain", preset, settings["pretrain"])
    modalities = base.modalities or found.cohort.modalities
    plan = Plan(
        study=study,
        out=out.absolute(),
        found=found,
        split=split,
        arms=tuple(study.arm(name) for name in arms) if arms else study.arms,
        left_out={},
        seeds=tuple(dict.fromkeys(seeds)),
        preset=preset,
        settings={
            k: {n: v for n, v in s.items() if n not in ("preprocess.spacing", "modalities")}
            for k, s in settings.items()
        },
        spacing=(1.0, 1.0, 1.0),
        modalities=tuple(modalities),
        labelled=(),
        structures=tuple(structures),
        compute_device=device,
        cache=cache,
        classes_file=classes_file,
    )
    preprocess: PreprocessConfig = resolve_spacing(plan.cohort(), base.preprocess)
    plan = dataclasses.replace(plan, spacing=preprocess.spacing)
    if study.finetunes:
        there = len(labelled_for_training(found, split, classes))
        plan = dataclasses.replace(plan, labelled=_counts(study, labelled, there))
    elif labelled:
        raise EmimError(f"The study {study.name} uses no labels.", "--labelled", "Leave it out.")
    plan = _without_impossible(plan)
    if study.finetunes:
        _check_finetuning(plan)
    return plan


def _check_finetuning(plan: Plan) -> None:
    """Refuse now what every fine-tuning would refuse after hours of pre-training."""
    from emim.training.finetune import check_cohort, plan_finetuning
    from emim.training.structures import parse_structures

    split, config = plan.split, plan.base("finetune")
    if plan.structures:
        structures, overlapping = parse_structures(plan.structures)
        config = dataclasses.replace(config, structures=structures, overlapping=overlapping)
    roles = {"exclude": split["test"], "validation": split["validation"], "cases": split.get("training")}
    train = dataclasses.replace(
        config.train, **{k: None if v is None else tuple(v) for k, v in roles.items()}
    )
    config = dataclasses.replace(config, train=train)
    plan_finetuning(plan.found, config)
    for labelled in plan.labelled:
        for seed in plan.seeds:
            drawn = dataclasses.replace(train, seed=seed)
            check_cohort(plan.found, dataclasses.replace(config, train=drawn, labelled=labelled))


def _classes(study: Study, found: Scan, file: Path | None) -> dict[str, str] | None:
    """Case id to class, for a study that classifies."""
    if not study.classifies:
        if file is not None:
            raise EmimError(f"The study {study.name} uses no classes.", "--classes", "Leave it out.")
        return None
    if find_spec("emim.cohort.classes") is None:
        raise EmimError(f"The study {study.name} needs classification, which this EMIM does not have.")
    if file is None:
        hint = "Give --classes FILE: CSV with the columns case and class."
        raise EmimError("Nothing says to which class each case belongs.", hint=hint)
    from emim.cohort.classes import read_classes

    return read_classes(file, found.cohort)


def _counts(study: Study, given: Sequence[int] | None, there: int) -> tuple[int, ...]:
    """Numbers of labelled cases, most first."""
    if there < 1:
        raise EmimError("No labelled case is left to train on.", hint="Label more, or test on fewer.")
    counts = set(given or (max(1, math.ceil(f * there)) for f in study.fractions))
    if bad := [n for n in counts if not 1 <= n <= there]:
        raise EmimError(f"There are {there} labelled cases to train on, not {max(bad)}.", "--labelled")
    return tuple(sorted(counts, reverse=True))


def _without_impossible(plan: Plan) -> Plan:
    """``plan`` without the arms that this EMIM, network or crop cannot do, with the reason of each."""
    from emim.training.preflight import check_pretraining, check_training

    kept, left_out = [], {}
    for arm in plan.arms:
        try:
            own = {k: arm_settings(arm, k, plan.base("pretrain")) for k in plan.settings}
            if arm.pretraining is not None:
                given = {**plan.settings["pretrain"], **own["pretrain"]}
                check_pretraining(base_config("pretrain", plan.preset, given))
            if plan.study.finetunes:
                given = {**plan.settings["finetune"], **own["finetune"]}
                check_training(base_config("finetune", plan.preset, given))
        except EmimError as error:
            left_out[arm.name] = " ".join(filter(None, (error.what, error.hint)))
            continue
        kept.append(arm)
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise EmimError("No arm of the study can be run.", hint=reasons)
    return dataclasses.replace(plan, arms=tuple(kept), left_out=left_out)
