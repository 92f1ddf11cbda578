"""Deciding all that a study will do, and refusing what cannot work, before anything is run."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emim.cohort.classes import read_classes
from emim.cohort.scan import Scan
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.study.arm import Study
from emim.study.plan import Plan
from emim.study.settings import arm_settings, base_config
from emim.study.split import draw_split, labelled_for_training
from emim.volumes.preprocess import resolve_spacing


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
        settings: see :func:`emim.study.settings.parse_settings`; models are of the last step unless
            ``keep`` is set.
        arms: names of those to take part; None: all.
        labelled: numbers of labelled cases; None: the study's fractions of those there are.
        classes_file: CSV or JSON with the class of each case, for a study that classifies.

    Raises:
        EmimError: for what cannot work, or when no arm is left.
    """
    if study.finetunes:
        # The best of few validation cases is luck that would differ between arms.
        settings = {**settings, "finetune": {"keep": "last", **settings["finetune"]}}
    classes = _classes(study, found, classes_file)
    if classes is not None:
        given = {"task": "classification", "classification.labels": str(classes_file)}
        settings = {**settings, "finetune": {**settings["finetune"], **given}}
    split = draw_split(found, given_split, study.finetunes, classes)
    base = base_config("pretrain", preset, settings["pretrain"])
    modalities = found.cohort.with_modalities(base.modalities or found.cohort.modalities).modalities
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
        modalities=modalities,
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
        _check_equal(plan)
    return plan


def _check_equal(plan: Plan) -> None:
    """Refuse settings by which arms that are pre-trained would differ from others in more than their weights.

    Fine-tuning takes over network, preprocessing and crop from the pre-training.
    """
    if len({arm.pretraining is None for arm in plan.arms}) < 2:
        return
    before, after = plan.base("pretrain"), plan.base("finetune")
    for name in plan.settings["pretrain"]:
        # Fine-tuning may have another crop and preprocessing where it is told so, but no other network.
        may_differ = name in plan.settings["finetune"] and not name.startswith("network.")
        if may_differ or not (name == "train.crop" or name.startswith(("network.", "preprocess."))):
            continue
        get = operator.attrgetter(name)
        if get(before) != get(after):
            raise EmimError(
                f"The setting {name} is {get(before)} in pre-training and {get(after)} in fine-tuning.",
                "--set",
                f"Arms with and without pre-training would have different ones. Give it for both: {name}=…",
            )


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
    if file is None:
        hint = "Give --classes FILE: CSV with the columns case and class."
        raise EmimError("Nothing says to which class each case belongs.", hint=hint)
    return read_classes(file, found.cohort, found.left_out)


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
