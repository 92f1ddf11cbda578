"""Pre-training from a cohort to a run folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Cohort
from emim.cohort.scan import Scan
from emim.config import PretrainConfig
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.machine.device import open_device
from emim.machine.distributed import joined, on_first_rank, on_ranks
from emim.masking.patterns import only_drops
from emim.objectives.verdict import judge
from emim.report.page import update_report
from emim.run import RunFolder, write_json
from emim.training.preflight import check_pretraining, check_reference, open_cohort, refuse, refuse_inside
from emim.training.split import Split, split_by_subject
from emim.training.start import (
    check_ranks,
    first_rank_events,
    open_run,
    prepare_cases,
    record_cohort,
    resume_cohort,
)

if TYPE_CHECKING:
    from emim.volumes.cache import CachedCase

REPORT_EVERY = 60.0  # seconds between reports of a running run


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
    """Pre-train on a cohort without labels, with all processes that torchrun started.

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
    config = config or PretrainConfig()
    with joined():
        events = first_rank_events(events)
        if not resume:
            check_pretraining(config)
            check_ranks(config.train)
            open_device(config.train.device)  # what cannot compute is told before hours of preparation
        found = on_first_rank(lambda: open_cohort(cohort, out, resume, events))
        if not resume:
            used, split = check_cohort(found, config)
            refuse_inside(out, overwrite, [found.source, cache])
        with open_run(out, "pretrain", config, resume=resume, overwrite=overwrite, events=events) as run:
            if resume:
                used, split = resume_cohort(run, found, config.train.device)
            else:
                on_first_rank(lambda: record_cohort(run, found, split))
            return _train(run, used, split, cache)


def check_cohort(found: Scan, config: PretrainConfig) -> tuple[Cohort, Split]:
    """The cases to train and validate on, with the chosen modalities, and their split.

    Raises:
        EmimError: when they cannot be trained on.
    """
    cohort = found.cohort.with_modalities(config.modalities or found.cohort.modalities)
    check_reference(cohort, config.preprocess)
    contrastive, mask = config.objective == "contrastive", config.mask
    if not contrastive and mask.pattern == "modal" and (len(cohort.modalities) < 2 or mask.max_dropped < 1):
        raise EmimError(
            "The mask pattern 'modal' would hide nothing.",
            hint="It needs two modalities and mask.max_dropped of 1 or more; use 'position' or 'patch'.",
        )
    split = split_by_subject(cohort, config.train)
    if contrastive:
        subjects = {c.subject for c in cohort.select(split.training).cases}
        if len(subjects) < config.train.batch:
            refuse(
                "train.batch",
                config.train.batch,
                f"At most the number of subjects, {len(subjects)}: "
                "the contrastive objective tells each from the others.",
            )
    return cohort.select([*split.training, *split.validation]), split


def _train(run: RunFolder, cohort: Cohort, split: Split, cache: str | Path | None) -> Path:
    events = run.events
    started = time.time()
    if not split.validation:
        events.warning(
            "No subject validates: the run cannot be judged.",
            hint="Three subjects or more, or train.validation, give it one.",
        )
    masks = run.config.objective != "contrastive"
    if masks and only_drops(run.config.mask, modalities := len(cohort.modalities)):
        events.warning(
            f"Each mask hides one of {modalities} modalities and nothing else: "
            f"that is all of mask.ratio {run.config.mask.ratio:g}.",
            hint="A higher ratio, such as 0.75, hides positions and patches, too, as hybrid masks should.",
        )
    training, validation = prepare_cases(run, cohort, split, cache)
    config = run.config

    events.status("Loading torch.")
    from emim.machine.heap import keep_large_blocks
    from emim.training.loop import train
    from emim.training.tasks import pretraining_task

    keep_large_blocks()
    device = open_device(config.train.device, events)
    run.record_environment(device)
    lines = on_first_rank(lambda: _collapse_lines(run, training))
    task = pretraining_task(config, training, validation, device)
    millions = sum(p.numel() for p in task.model.network.parameters()) / 1e6
    events.status(
        f"Pre-training on {device}: {len(training)} cases, {len(validation)} for validation, "
        f"{config.train.steps} steps of {config.train.batch} crops of {config.train.crop}³, "
        f"{millions:.1f} million parameters{on_ranks()}."
    )
    history = _earlier_validations(run) if run.leads else {}
    reported = [time.monotonic()]

    def validate(step: int) -> None:
        values = task.measure(run.cancel_requested)
        run.stop_if_asked()
        history[step] = values
        events.metric(step, "validation", **values)
        with run.dispensable("The preview"):
            task.write_preview(run, step)
        _write_verdict(run, history, lines)
        if step < config.train.steps and time.monotonic() - reported[0] > REPORT_EVERY:
            update_report(run)
            reported[0] = time.monotonic()

    try:
        train(run, task.optimisation(), task.data, validate)
    except Cancelled as stop:
        events.status(f"{stop} Writing the report.")
        on_first_rank(lambda: update_report(run))
        raise
    on_first_rank(lambda: _finish(run, history, lines, started))
    return run.path


def _finish(
    run: RunFolder, history: dict[int, dict[str, Any]], lines: dict[str, float], started: float
) -> None:
    events = run.events
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


def _collapse_lines(run: RunFolder, training: list[CachedCase]) -> dict[str, float]:
    """The collapse lines of the training cases, computed once a run; none where nothing is reconstructed."""
    if run.config.objective == "contrastive":
        return {}
    from emim.training.pretrain_watch import cohort_collapse_lines

    file = run.path / "collapse_lines.json"
    if file.exists():
        return json.loads(file.read_text())
    run.events.status("Computing the collapse lines of the cohort.")
    lines = cohort_collapse_lines(run.config, training, run.events, run.cancel_requested)
    write_json(file, lines)
    return lines


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
    with run.dispensable("The verdict"):
        write_json(run.report / "verdict.json", verdict.to_dict())
    return verdict
