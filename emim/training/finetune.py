"""Fine-tuning a network to segment or to classify, from pre-trained weights or from scratch, to a package."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Cohort
from emim.cohort.coding import refuse_other_values, warn_of_recoding
from emim.cohort.scan import Scan
from emim.config import FinetuneConfig
from emim.errors import Cancelled, EmimError
from emim.evaluation.lineage import read_lineage
from emim.evaluation.seen import subjects_seen
from emim.events import Events
from emim.machine.device import open_device
from emim.machine.distributed import joined, on_first_rank, on_ranks
from emim.package.model import ModelCard
from emim.report.page import update_report
from emim.report.record import is_number, read_run
from emim.run import RunFolder, write_json
from emim.training.card import make_card
from emim.training.classes import (
    check_classification,
    classes_of,
    completed,
    nested_order,
    reached_scores,
    record_classes,
    recorded_classes,
    usable,
)
from emim.training.preflight import check_reference, check_training, open_cohort, refuse_inside
from emim.training.source import Source, read_source
from emim.training.split import Split, exclude_subjects, split_by_subject
from emim.training.start import (
    check_ranks,
    first_rank_events,
    open_run,
    prepare_cases,
    record_cohort,
    resume_cohort,
)
from emim.training.structures import named_by_side, structures_of_values

if TYPE_CHECKING:
    import torch
    from torch import nn

    from emim.training.classification import Classification
    from emim.training.sampling import Batches
    from emim.training.tasks import Finetuning


def with_plan(config: FinetuneConfig, plan: str | Path) -> FinetuneConfig:
    """``config`` with network, preprocessing, modalities and crop of the run or package ``plan``."""
    source = read_source(plan)
    return dataclasses.replace(
        config,
        network=source.network,
        preprocess=source.preprocess,
        modalities=source.modalities,
        train=dataclasses.replace(config.train, crop=source.crop),
    )


def finetune(
    cohort: str | Path | Scan | None,
    out: str | Path,
    init: str | Path | None = None,
    config: FinetuneConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    cache: str | Path | None = None,
    events: Events | None = None,
) -> Path:
    """Train a network to segment, on the labelled cases of a cohort, or to classify (``config.task``).

    Args:
        cohort: folder, datalist, or a scan; None with ``resume``: the cohort of the run.
        out: the run folder.
        init: run folder or model package to take weights from; None: ``config.init``, or from scratch.
        config: settings; None: defaults with the plan of ``init``. Ignored with ``resume``.
        resume, overwrite, cache, events: as in :func:`emim.training.pretrain.pretrain`.

    Returns:
        The model package.

    Raises:
        EmimError: for bad input, before anything long begins.
        Cancelled: when asked to stop; continue with ``resume``.
    """
    with joined():
        events = first_rank_events(events)
        if config is None:
            config = FinetuneConfig()
            if init is not None:
                config = on_first_rank(lambda: with_plan(FinetuneConfig(), init))
        if init is not None:
            config = dataclasses.replace(config, init=str(Path(init).absolute()))
        found = on_first_rank(lambda: open_cohort(cohort, out, resume, events))
        if not resume:
            planned = config
            config, used, split, warnings = on_first_rank(lambda: plan_finetuning(found, planned))
            check_ranks(config.train)
            open_device(config.train.device)  # what cannot compute is told before hours of preparation
            refuse_inside(out, overwrite, [found.source, cache, config.init])
        with open_run(out, "finetune", config, resume=resume, overwrite=overwrite, events=events) as run:
            if resume:
                used, split = resume_cohort(run, found, config.train.device)
            else:
                on_first_rank(lambda: record_cohort(run, found, split))
                on_first_rank(lambda: record_classes(run, found))
                for what, hint in warnings:
                    events.warning(what, config.init, hint)
                if planned.structures:
                    warn_of_recoding(found, events, "Values given for structures mean these.")
            return _train(run, used, split, cache)


def plan_finetuning(
    found: Scan, config: FinetuneConfig
) -> tuple[FinetuneConfig, Cohort, Split, list[tuple[str, str | None]]]:
    """What is to be done with a cohort.

    Returns:
        ``config`` with structures or classes, modalities and patterns of the cohort; the cases to use; their
        split; and warnings (what, hint).

    Raises:
        EmimError: when it cannot be done.
    """
    _check(config)
    used, split = check_cohort(found, config)
    absent = _absent(config, found.cohort)
    patterns, segments = {**found.patterns, **config.card.patterns}, {s.name: s.value for s in found.segments}
    card = dataclasses.replace(config.card, patterns=patterns, segments=segments)
    complete = _complete if config.task == "segmentation" else completed
    config = dataclasses.replace(complete(config, found), modalities=used.modalities, card=card)
    config = _with_mirroring(config)
    _check_card(config, split)
    config, warnings = _check_source(config, split, found) if config.init is not None else (config, [])
    if absent:
        what = f"The weights know {', '.join(absent)}, which the cohort lacks: the training goes without."
        warnings.append((what, f"The cohort has {', '.join(found.cohort.modalities)}."))
    return config, used, split, warnings


def check_cohort(found: Scan, config: FinetuneConfig) -> tuple[Cohort, Split]:
    """The cases to use, those with labels or with a class, with the chosen modalities, and their split.

    Raises:
        EmimError: when they cannot be trained on.
    """
    cohort, _ = exclude_subjects(found.cohort, config.train.exclude)
    classes = classes_of(found, config)
    labelled = Cohort(cohort.modalities, cohort.labelled()) if classes is None else usable(cohort, classes)
    if not labelled.cases:
        raise EmimError(
            "No case of the cohort has labels.",
            hint="Put a label map beside the images, such as sub-01/sub-01_seg.nii.gz, or give a datalist.",
        )
    names = config.modalities or labelled.modalities
    absent = _absent(config, labelled)
    if absent and config.init is not None:  # what the weights know may be lacking, nothing else
        known = set(read_source(config.init).modalities)
        names = [m for m in names if labelled.name_of(m) not in known.intersection(absent)]
    if not names:
        raise EmimError(
            "The weights and the cohort share no modality.",
            hint=f"Expected {', '.join(config.modalities)}; the cohort has {', '.join(labelled.modalities)}.",
        )
    labelled = labelled.with_modalities(tuple(names))
    check_reference(labelled, config.preprocess)
    everyone = found.cohort.with_modalities(labelled.modalities)
    split = split_by_subject(everyone, config.train, classes, {c.id for c in labelled.cases})
    training = split.training
    if config.labelled is not None:
        if not 1 <= config.labelled <= len(training):
            raise EmimError(
                f"Setting labelled cannot be {config.labelled}.",
                hint=f"{len(training)} labelled cases are there for training.",
            )
        training = tuple(sorted(nested_order(training, config.train.seed, classes)[: config.labelled]))
    wanted = config.train.validation or (config.train.validation is None and len(training) > 2)
    if wanted and not split.validation:
        raise EmimError("There is no labelled validation case.", hint="Name one with train.validation.")
    if classes is not None and (absent := set(classes.values()) - {classes[i] for i in training}):
        raise EmimError(
            f"No training case has the class {', '.join(map(repr, sorted(absent)))}.",
            hint="Give more cases of it, or leave the class out of the file.",
        )
    return labelled.select([*training, *split.validation]), dataclasses.replace(split, training=training)


def _absent(config: FinetuneConfig, cohort: Cohort) -> list[str]:
    """The modalities that ``config`` names and ``cohort`` lacks, by their usual names."""
    return [n for n in map(cohort.name_of, config.modalities or ()) if n not in cohort.modalities]


def _complete(config: FinetuneConfig, found: Scan) -> FinetuneConfig:
    """``config`` with the structures filled in from the labels that may be looked at."""
    usable = {c.id for c in exclude_subjects(found.cohort, config.train.exclude)[0].cases}
    values: set[int] = set()
    for row in found.rows:
        if row.id in usable:
            values |= set(row.label_values or ())
    if not config.structures:
        structures, overlapping = structures_of_values(values, found.segments)
        config = dataclasses.replace(config, structures=structures, overlapping=overlapping)
    refuse_other_values(config.structures, found.segments)
    for structure in config.structures:
        if not set(structure.values) & values:
            raise EmimError(
                f"No label map has the structure {structure.name!r} (values {list(structure.values)}).",
                hint=f"The labels have the values {sorted(values - {0})}.",
            )
    return config


def _check_card(config: FinetuneConfig, split: Split) -> None:
    """Refuse now what could not be written as a model after the last step."""
    card = make_card(config, split, "model")
    if card.preprocess.spacing is None:  # chosen when the cohort is prepared
        preprocess = dataclasses.replace(card.preprocess, spacing=(1.0, 1.0, 1.0))
        card = dataclasses.replace(card, preprocess=preprocess)
    if (wrong := card.contradiction()) is not None:
        raise EmimError(
            f"No model could be written with these settings: {wrong}.",
            hint="Correct the settings, or the names in the datalist.",
        )


def _with_mirroring(config: FinetuneConfig) -> FinetuneConfig:
    """``config`` that says whether crops are mirrored, which exchanges structures named by their side."""
    if config.train.mirror is not None:
        return config
    return dataclasses.replace(config, train=dataclasses.replace(config.train, mirror=not _sided(config)))


def _sided(config: FinetuneConfig) -> list[str]:
    """Structures or classes that are named by their side."""
    return named_by_side([s.name for s in config.structures] + list(config.classification.classes))


def _check_source(
    config: FinetuneConfig, split: Split, found: Scan
) -> tuple[FinetuneConfig, list[tuple[str, str | None]]]:
    """Refuse a plan that the initial weights do not fit.

    Returns:
        ``config`` with the spacing of the source where it names none, and warnings (what, hint).
    """
    warnings: list[tuple[str, str | None]] = []
    source = read_source(config.init)
    if config.network.essence != source.network.essence:
        raise EmimError(
            f"The network {config.network.essence} is not that of the weights, {source.network.essence}.",
            config.init,
            "Take the plan of the run the weights come from: --plan, or no config in Python.",
        )
    if not set(config.modalities) & set(source.modalities):
        raise EmimError(
            "The weights and the cohort share no modality.",
            config.init,
            f"Weights: {', '.join(source.modalities)}; cohort: {', '.join(config.modalities)}.",
        )
    preprocess, spacing = config.preprocess, source.preprocess.spacing
    if preprocess.spacing is None:
        preprocess = dataclasses.replace(preprocess, spacing=spacing)
    elif preprocess.spacing != spacing:
        warnings.append((f"Voxels of {preprocess.spacing} mm; the weights know {spacing} mm.", None))
    if source.warning:
        warnings.append((source.warning, None))
    subjects = found.cohort.subjects()
    known = subjects_seen(config.init, found)
    trained, looked_at = known["training"], known["training"] | known["validation"]
    leaks = {i for i in split.validation if subjects[i] in trained}  # to validate on the same ones is sound
    if leaks := sorted(leaks | {i for i in split.excluded if subjects[i] in looked_at}):
        warnings.append(
            (
                f"The initial weights have seen the subjects of {', '.join(leaks)}, here for validation "
                "or excluded.",
                "Pre-train with the same --split, or do not call the result held out.",
            )
        )
    return dataclasses.replace(config, preprocess=preprocess), warnings


def _check(config: FinetuneConfig) -> None:
    check_training(config)
    check_classification(config)
    for name in ("foreground_share", "modality_dropout", "transferred_rate", "head_start"):
        if not 0 <= getattr(config, name) <= 1:
            raise EmimError(f"Setting {name} cannot be {getattr(config, name)!r}.", hint="It is a share.")
    if config.keep not in ("best", "last"):
        raise EmimError(f"Setting keep cannot be {config.keep!r}.", hint="It is best or last.")


def _train(run: RunFolder, cohort: Cohort, split: Split, cache: str | Path | None) -> Path:
    events = run.events
    started = time.time()
    labels = on_first_rank(lambda: recorded_classes(run)) if run.config.task == "classification" else None
    if labels is not None:
        cohort = usable(cohort, labels)
    training, validation = prepare_cases(run, cohort, split, cache)
    config = run.config

    events.status("Loading torch.")
    from emim.machine.heap import keep_large_blocks
    from emim.training.loop import train
    from emim.training.tasks import finetuning_task

    keep_large_blocks()
    device = open_device(config.train.device, events)
    run.record_environment(device)
    card = make_card(config, split, run.path.name)
    task = finetuning_task(config, card, labels, training, validation, device)
    # The others get the weights when the first step is prepared.
    few = range(min(2, config.train.batch))
    rates = {}
    if config.init:
        rates = on_first_rank(lambda: _transfer(run, task.network, _with_content(task.data, few)))
    if labels is not None:
        on_first_rank(lambda: _prepare(run, task))
    events.status(
        f"Fine-tuning on {device}: {len(training)} labelled cases, {len(validation)} for validation, "
        f"{config.train.steps} steps of {config.train.batch} crops of {config.train.crop}³"
        f"{on_ranks()}."
    )
    if config.train.mirror is False:
        sided = ", ".join(_sided(config))
        why = f"these names tell left from right: {sided}" if sided else "train.mirror is false"
        events.status(f"Crops are not mirrored; {why}.")

    def validate(step: int) -> float | None:
        if not validation or step == 0:  # an untrained decoder has nothing to show
            return None
        values = task.measure(run.cancel_requested)
        events.metric(step, "validation", **values)
        with run.dispensable("The preview"):
            task.write_preview(run, step)
        score = task.score(values)
        return score if math.isfinite(score) else None

    try:
        if task.trains:
            train(run, task.optimisation(rates), task.data, validate)
        else:
            on_first_rank(lambda: _without_training(run, task, validate))
    except Cancelled as stop:
        events.status(f"{stop} Writing the report.")
        on_first_rank(lambda: update_report(run))
        raise
    on_first_rank(lambda: _finish(run, card, started))
    return run.model


def _with_content(data: Batches, few: range) -> dict[str, torch.Tensor]:
    """These samples of a step, of the first steps one at which they are not all air, which has no scale."""
    for step in range(20):
        batch = data.samples(step, few)
        if (batch["input"] * batch["present"][:, :, None, None, None]).any():
            break
    return batch


def _finish(run: RunFolder, card: ModelCard, started: float) -> None:
    """Make the model package of the weights that are kept."""
    from emim.package.bundle import write_package

    events = run.events
    kept = _kept(run)
    step = kept["step"]
    if card.task == "classification":
        reached, said = reached_scores(run, step)
    else:
        score = read_run(run.path).metrics.get("validation", {}).get(step, {}).get("dice")
        score = score if is_number(score) else None
        reached = {"validation_dice": score}
        said = "" if score is None else f", validation Dice {score:.3f}"
    made = {"date": time.strftime("%Y-%m-%d"), "step": step, **reached}
    card = dataclasses.replace(card, training={**card.training, **made})
    write_package(run.model, card, kept["model"], overwrite=run.model.exists())
    report_page = update_report(run)
    events.status(f"Model of step {step}{said}: {run.model}")
    events.result(
        run=run.path,
        model=run.model,
        step=step,
        **reached,
        report=report_page,
        seconds=round(time.time() - started, 1),
    )


def _kept(run: RunFolder) -> dict[str, Any]:
    """The checkpoint that becomes the model."""
    first, second = ("last", "best") if run.config.keep == "last" else ("best", "last")
    return run.load_checkpoint(f"{first}.pt") or run.load_checkpoint(f"{second}.pt")


def _prepare(run: RunFolder, task: Classification) -> None:
    if (run.checkpoints / "last.pt").exists():
        return
    # What a model of the same classes has learned about its features stays.
    learned = json.loads(file.read_text("utf-8")) if (file := run.path / "transfer.json").exists() else {}
    if "output.head.weight" in learned.get("loaded", ()):
        return
    run.events.status("Computing the features of training cases.")
    try:
        task.prepare(run.cancel_requested)
    except Cancelled:
        raise Cancelled("Stopped before the first step.") from None


def _same_outputs(source: Source, config: FinetuneConfig) -> bool:
    """Whether the output layer of the source means the same; a probe learns its own."""
    if config.task == "classification":
        return config.classification.mode == "full" and source.classes == config.classification.classes
    return source.structures == config.structures


def _without_training(
    run: RunFolder, task: Finetuning | Classification, validate: Callable[[int], float | None]
) -> None:
    """One step, the features that were computed already."""
    score = validate(1)
    state = {"step": 1, "score": score, "model": task.network.state_dict()}
    run.save_checkpoint("best.pt", state)
    run.events.progress(1, 1)


def _transfer(run: RunFolder, network: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Load the initial weights, report what became of them, return the learning rates they need, as shares.

    Weights of a pre-training are brought to the scale of fresh ones, measured on ``batch``.
    """
    from emim.networks.rescale import match_fresh_scale, rates_by_size
    from emim.networks.transfer import transfer

    file = run.path / "transfer.json"
    if run.load_checkpoint("last.pt") is None or not file.exists():
        source = read_source(run.config.init)
        modalities = run.config.modalities
        fresh = copy.deepcopy(network)
        report = transfer(
            source.load_state(),
            network,
            source.modalities,
            modalities,
            source.name,
            same_structures=_same_outputs(source, run.config),
        )
        segments = run.config.task == "segmentation"
        learns = segments or run.config.classification.mode == "full"
        if learns and not source.structures and run.config.network.backbone == "resunet":
            factors = match_fresh_scale(network, fresh, batch["input"], batch["present"])
            levels = ", ".join(f"{f:.3g}" for f in factors)
            report.adapted.append(
                ("scale of the weights", f"levels times {levels}: features as in a fresh network")
            )
        if not segments:  # measured: see emim.networks.rescale
            names = [*report.loaded, *(name for name, _ in report.adapted)]
            report.rates = rates_by_size(network, fresh, names)
        write_json(file, {**report.to_dict(), "lineage": read_lineage(run.config.init).to_dict()})
        run.events.status(report.text())
    # Resumed: the weights are in the checkpoint, and the source may be gone.
    report = json.loads(file.read_text(encoding="utf-8"))
    names = [*report["loaded"], *(name for name, _ in report["adapted"])]
    shares = report.get("rates", {})  # runs begun before had none
    return {name: run.config.transferred_rate * shares.get(name, 1.0) for name in names}
