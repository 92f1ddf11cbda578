"""Pre-training from a cohort to a run folder."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from emim.cohort.case import Cohort
from emim.cohort.scan import Scan, scan
from emim.config import PreprocessConfig, PretrainConfig
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.masking.patterns import PATTERNS
from emim.objectives.verdict import judge
from emim.run import RunFolder, write_json
from emim.training.split import Split, split_by_subject

REPORT_EVERY = 60.0  # seconds between reports of a running run


def check_settings(config: PretrainConfig) -> None:
    """Refuse settings that cannot work together, before any long work.

    Raises:
        EmimError: naming the setting and what it may be.
    """
    from emim.objectives.reconstruction import LOSSES
    from emim.objectives.regulariser import REGULARISERS

    mask, train, network, regulariser = config.mask, config.train, config.network, config.regulariser

    def refuse(setting: str, value: Any, rule: str) -> None:
        raise EmimError(f"Setting {setting} cannot be {value!r}.", hint=rule)

    for setting, value, known in (
        ("mask.pattern", mask.pattern, tuple(PATTERNS)),
        ("regulariser.name", regulariser.name, REGULARISERS),
        ("loss", config.loss, LOSSES),
    ):
        if value not in known:
            refuse(setting, value, f"Choose one of: {', '.join(known)}.")
    if not 0 < mask.ratio < 1:
        refuse("mask.ratio", mask.ratio, "It is a share between 0 and 1.")
    if not 0 <= mask.position_share <= 1:
        refuse("mask.position_share", mask.position_share, "It is a share from 0 to 1.")
    if mask.max_dropped < 0:
        refuse("mask.max_dropped", mask.max_dropped, "It is a number of modalities.")
    if len(network.blocks) < 3 or min(network.blocks) < 1 or network.filters < 1:
        refuse("network.blocks", network.blocks, "At least three levels of at least one block each.")
    check_training(config)
    if mask.unit < 1 or train.crop % mask.unit or train.crop // mask.unit < 2:
        refuse("mask.unit", mask.unit, f"train.crop ({train.crop}) must hold it twice or more, exactly.")
    if any(not 0 <= level < len(network.blocks) for level in regulariser.levels or ()):
        refuse("regulariser.levels", regulariser.levels, f"Levels are 0 to {len(network.blocks) - 1}.")
    if regulariser.cells < 1 or regulariser.width < 2 or regulariser.weight < 0:
        refuse("regulariser", regulariser, "cells and width are positive, weight is not negative.")


def check_training(config: Any) -> None:
    """The rules that pre-training and fine-tuning share; see :func:`check_settings`."""
    train, network = config.train, config.network

    def refuse(setting: str, value: Any, rule: str) -> None:
        raise EmimError(f"Setting {setting} cannot be {value!r}.", hint=rule)

    for name in ("steps", "batch", "crop"):
        if getattr(train, name) < 1:
            refuse(f"train.{name}", getattr(train, name), "It is a positive number.")
    if train.validate_every is not None and train.validate_every < 1:
        refuse("train.validate_every", train.validate_every, "It is a positive number of steps.")
    for name in ("learning_rate", "grad_clip"):
        if getattr(train, name) <= 0:
            refuse(f"train.{name}", getattr(train, name), "It is positive.")
    if train.crop % network.divisor or train.crop // network.divisor < 2:
        refuse("train.crop", train.crop, f"A multiple of {network.divisor}, at least {2 * network.divisor}.")
    if config.preprocess.spacing is not None and min(config.preprocess.spacing) <= 0:
        refuse("preprocess.spacing", config.preprocess.spacing, "Three positive numbers, in mm.")


def pretrain(
    cohort: str | Path | Scan | None,
    out: str | Path,
    config: PretrainConfig | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    cache: str | Path | None = None,
    events: Events | None = None,
) -> Path:
    """Pre-train on a cohort without labels.

    Args:
        cohort: folder, datalist, or a scan; None with ``resume``: the cohort of the run.
        out: the run folder.
        config: settings; ignored with ``resume``, which continues with those of the run.
        overwrite: replace an earlier run in ``out``.
        cache: folder of preprocessed volumes; None for the user's cache folder.
        events: where to tell what happens.

    Returns:
        The run folder.

    Raises:
        EmimError: for bad input, before anything long begins.
        Cancelled: when asked to stop; continue with ``resume``.
    """
    events = events or Events()
    config = config or PretrainConfig()
    if not resume:
        check_settings(config)
    found = open_cohort(cohort, out, resume, events)
    if not resume:
        check_cohort(found, config)
    with RunFolder(out, "pretrain", config, resume=resume, overwrite=overwrite, events=events) as run:
        config = run.config
        cohort, split = check_cohort(found, config)
        write_json(run.path / "cohort.json", found.to_dict())
        write_json(run.path / "split.json", split.to_dict())
        return _train(run, cohort, split, cache)


def open_cohort(cohort: str | Path | Scan | None, out: str | Path, resume: bool, events: Events) -> Scan:
    """Scan ``cohort``, or read the one a resumed run in ``out`` began with."""
    if isinstance(cohort, Scan):
        return cohort
    recorded = Path(out) / "cohort.json"
    if resume and not recorded.is_file():
        raise EmimError("There is no run to resume.", out, "Start it without --resume.")
    if cohort is None and not resume:
        raise EmimError("No cohort was given.", hint="Give the folder of the images, or a datalist.")
    return scan(cohort if cohort is not None else recorded, events=events)


def check_cohort(found: Scan, config: PretrainConfig) -> tuple[Cohort, Split]:
    """The cohort with the chosen modalities, and its split.

    Raises:
        EmimError: when it cannot be trained on.
    """
    cohort = found.cohort.with_modalities(config.modalities or found.cohort.modalities)
    check_reference(cohort, config.preprocess)
    return cohort, split_by_subject(cohort, config.train)


def check_reference(cohort: Cohort, preprocess: PreprocessConfig) -> None:
    """Refuse a reference modality that the cohort does not have."""
    if preprocess.reference is not None and preprocess.reference not in cohort.modalities:
        raise EmimError(
            f"Setting preprocess.reference cannot be {preprocess.reference!r}.",
            hint=f"The cohort has {', '.join(cohort.modalities)}.",
        )


def _train(run: RunFolder, cohort: Cohort, split: Split, cache: str | Path | None) -> Path:
    from emim.volumes.cache import build_cache
    from emim.volumes.preprocess import resolve_spacing

    events, config = run.events, run.config
    started = time.time()
    used = cohort.without(split.excluded)
    if config.preprocess.spacing is None or config.modalities is None:
        config = dataclasses.replace(
            config, modalities=used.modalities, preprocess=resolve_spacing(used, config.preprocess)
        )
        run.save_config("pretrain", config)
    folder = Path(cache) if cache else None
    cases = {c.id: c for c in build_cache(used, config.preprocess, folder, events)}
    training = [cases[i] for i in split.training]
    validation = [cases[i] for i in split.validation]

    events.status("Loading torch.")
    import torch

    from emim.training.augmentation import for_pretraining
    from emim.training.device import choose_device
    from emim.training.heap import keep_large_blocks
    from emim.training.loop import train
    from emim.training.pretrain_model import PretrainModel
    from emim.training.pretrain_watch import PretrainWatch, cohort_collapse_lines
    from emim.training.sampling import PretrainBatches

    keep_large_blocks()
    device = choose_device(config.train.device)
    lines_file = run.path / "collapse_lines.json"
    if lines_file.exists():
        lines = json.loads(lines_file.read_text())
    else:
        events.status("Computing the collapse lines of the cohort.")
        lines = cohort_collapse_lines(config, training)
        write_json(lines_file, lines)

    torch.manual_seed(config.train.seed)
    model = PretrainModel(len(used.modalities), config).to(device)
    watch = PretrainWatch(config, training, validation)
    data = PretrainBatches(
        training,
        config.train.crop,
        config.train.batch,
        config.mask,
        config.train.seed,
        config.train.steps,
        for_pretraining(),
    )
    size = sum(p.numel() for p in model.network.parameters()) / 1e6
    events.status(
        f"Pre-training on {device}: {len(training)} cases, {len(validation)} for validation, "
        f"{config.train.steps} steps of {config.train.batch} crops of {config.train.crop}³, "
        f"{size:.1f} million parameters."
    )
    history = _earlier_validations(run)
    reported = [time.monotonic()]

    def validate(step: int) -> None:
        values = watch.measure(model, device)
        history[step] = values
        events.metric(step, "validation", **values)
        preview = run.report / "preview.npz"
        watch.save_preview(preview, model, device, step)
        events.preview(preview, "reconstruction")
        _write_verdict(run, history, lines)
        if step < config.train.steps and time.monotonic() - reported[0] > REPORT_EVERY:
            update_report(run)
            reported[0] = time.monotonic()

    try:
        train(run, model, data, config.train, device, model, validate)
    except Cancelled:
        update_report(run)
        raise
    verdict = _write_verdict(run, history, lines)
    report = update_report(run)
    last = history[max(history)]
    events.status(f"Verdict: {verdict.state}. {verdict.why[0]}")
    events.result(
        run=run.path,
        verdict=verdict.state,
        report=report,
        lines=lines,
        validation=last,
        seconds=round(time.time() - started, 1),
    )
    return run.path


def _earlier_validations(run: RunFolder) -> dict[int, dict[str, Any]]:
    """Validation metrics that an interrupted run has recorded, by step."""
    checkpoint = run.load_checkpoint("last.pt")
    reached = checkpoint["step"] if checkpoint else -1
    history = {}
    for line in (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the line a kill cut short
            continue
        if event.get("type") == "metric" and event.get("split") == "validation" and event["step"] <= reached:
            history[event["step"]] = event
    return history


def _write_verdict(run: RunFolder, history: dict[int, dict[str, Any]], lines: dict[str, float]):
    steps = sorted(history)
    progress = steps[-1] / run.config.train.steps
    verdict = judge([history[s] for s in steps if s > 0], lines, progress)
    write_json(run.report / "verdict.json", verdict.to_dict())
    return verdict


def update_report(run: RunFolder) -> Path | None:
    """Write the report; a picture that cannot be drawn must not cost the training."""
    from emim.report.page import write_report

    try:
        return write_report(run.path)
    except Exception as error:  # see above
        run.events.warning(f"The report could not be written: {error!r}.", run.path)
        return None
