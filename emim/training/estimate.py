"""How long a run would take on this machine, and how much memory and disk: by trying parts of it.

A few cases are prepared and a few steps, a validation and a checkpoint are done as in the run itself,
in a temporary folder; what takes long is broken off and extrapolated.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Cohort
from emim.cohort.scan import Scan
from emim.config import FinetuneConfig, PreprocessConfig, PretrainConfig
from emim.errors import Cancelled
from emim.events import Events
from emim.run import RunFolder, refuse_existing
from emim.training.split import Split

if TYPE_CHECKING:
    from emim.training.tasks import Classification, Finetuning, Pretraining
    from emim.volumes.cache import CachedCase

# Seconds after which a trial is broken off.
LINES_BUDGET, STEPS_BUDGET, MEASURE_BUDGET = 3.0, 8.0, 8.0
WARM_UP = 2  # steps that take longer than the later ones
SLOW_CASE = 1.5  # seconds; of faster ones, more are tried


@dataclass(frozen=True)
class Estimate:
    """What a run would need, beside the seconds in which programs load and images are scanned.

    Attributes:
        seconds: the whole run.
        seconds_preprocess: of these, for cases that are not prepared yet.
        seconds_per_step, steps: of the training.
        seconds_per_validation, validations: with preview.
        memory_bytes: the peak: on a GPU of its memory, else of the process; None: cannot be told.
        memory_total_bytes: what the GPU or the machine has.
        disk_bytes: that the run folder and the cache will grow by.
        disk_free_bytes: where less is free.
        device: that would be trained on.
        cases: to train and to validate on.
        cases_prepared: of these, in the cache already.
    """

    seconds: float
    seconds_preprocess: float
    seconds_per_step: float
    steps: int
    seconds_per_validation: float
    validations: int
    memory_bytes: int | None
    memory_total_bytes: int | None
    disk_bytes: int
    disk_free_bytes: int
    device: str
    cases: int
    cases_prepared: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def text(self) -> str:
        """For a person."""
        gib = 2**30
        memory = f"{(self.memory_bytes or 0) / gib:.1f} of {(self.memory_total_bytes or 0) / gib:.0f} GiB"
        return (
            f"Time:   about {_duration(self.seconds)} on {self.device}: {self.steps} steps of "
            f"{self.seconds_per_step:.2g} s, {self.validations} validations of "
            f"{self.seconds_per_validation:.2g} s, {_duration(self.seconds_preprocess)} to prepare "
            f"{self.cases - self.cases_prepared} of {self.cases} cases\n"
            f"Memory: {memory}\n"
            f"Disk:   {self.disk_bytes / gib:.1f} of {self.disk_free_bytes / gib:.0f} GiB that are free"
        )


def estimate_pretraining(
    cohort: str | Path | Scan,
    config: PretrainConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: str | Path | None = None,
    events: Events | None = None,
) -> Estimate:
    """Estimate :func:`emim.training.pretrain.pretrain`, after all the checks it does; the arguments are its.

    Nothing is written but temporary files.

    Raises:
        EmimError: for what the run itself would refuse.
    """
    from emim.training.preflight import check_pretraining, open_cohort
    from emim.training.pretrain import check_cohort

    events = events or Events()
    check_pretraining(config)
    found = open_cohort(cohort, out or "", False, events)
    used, split = check_cohort(found, config)

    def make(config: PretrainConfig, *cases: Any) -> Pretraining:
        from emim.training.tasks import pretraining_task

        return pretraining_task(config, *cases)

    return _estimate("pretrain", config, used, split, make, out, overwrite, cache, events)


def estimate_finetuning(
    cohort: str | Path | Scan,
    init: str | Path | None,
    config: FinetuneConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: str | Path | None = None,
    events: Events | None = None,
) -> Estimate:
    """As :func:`estimate_pretraining`, of :func:`emim.training.finetune.finetune`."""
    from emim.training.card import make_card
    from emim.training.classes import classes_of
    from emim.training.finetune import plan_finetuning
    from emim.training.preflight import open_cohort

    events = events or Events()
    if init is not None:
        config = dataclasses.replace(config, init=str(Path(init).absolute()))
    found = open_cohort(cohort, out or "", False, events)
    config, used, split, warnings = plan_finetuning(found, config)
    for what, hint in warnings:
        events.warning(what, config.init, hint)

    def make(config: FinetuneConfig, *cases: Any) -> Finetuning | Classification:
        from emim.training.tasks import finetuning_task

        card = make_card(config, split, "estimate")
        return finetuning_task(config, card, classes_of(found, config), *cases)

    return _estimate("finetune", config, used, split, make, out, overwrite, cache, events)


def _estimate(
    command: str,
    config: Any,
    cohort: Cohort,
    split: Split,
    make: Callable[..., Pretraining | Finetuning | Classification],
    out: str | Path | None,
    overwrite: bool,
    cache: str | Path | None,
    events: Events,
) -> Estimate:
    from emim.inference.outputs import existing_part
    from emim.machine.device import open_device
    from emim.machine.heap import keep_large_blocks
    from emim.machine.memory import peak_memory, total_memory
    from emim.volumes.cache import default_folder
    from emim.volumes.preprocess import resolve_spacing

    if out is not None:
        refuse_existing(Path(out), overwrite)
    cache = Path(cache) if cache else default_folder()
    keep_large_blocks()
    device = open_device(config.train.device, events)
    config = dataclasses.replace(
        config, modalities=cohort.modalities, preprocess=resolve_spacing(cohort, config.preprocess)
    )
    with tempfile.TemporaryDirectory(prefix="emim-estimate-", ignore_cleanup_errors=True) as folder:
        events.status("Preparing some cases to see how long it takes.")
        preparation, cases = _try_preparing(cohort, config.preprocess, Path(folder) / "cache", cache)
        events.status(f"Trying some training steps on {device}.")
        with RunFolder(Path(folder) / "run", command, config, events=Events()) as run:
            stand_ins = _stand_in(cases, split.training), _stand_in(cases, split.validation)
            trial = _try_training(run, make(config, *stand_ins, device), stand_ins[0], events)
    seconds = preparation.seconds + trial.seconds
    where = [p for p in (cache, out) if p is not None]
    return Estimate(
        seconds=seconds,
        seconds_preprocess=preparation.seconds,
        seconds_per_step=trial.per_step,
        steps=config.train.steps,
        seconds_per_validation=trial.per_validation,
        validations=trial.validations,
        memory_bytes=peak_memory(device),
        memory_total_bytes=total_memory(device),
        disk_bytes=preparation.bytes + trial.bytes,
        disk_free_bytes=min(shutil.disk_usage(existing_part(Path(p))).free for p in where),
        device=str(device),
        cases=len(cohort.cases),
        cases_prepared=len(cohort.cases) - preparation.missing,
    )


@dataclass(frozen=True)
class _Preparation:
    """What preparing the ``missing`` cases would take."""

    missing: int
    seconds: float
    bytes: int


class _Stopwatch(Events):
    """Silent events that note when each case was prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def progress(self, done: int, total: int, unit: str = "step", text: str = "") -> None:
        self.times.append(time.monotonic())


def _try_preparing(
    cohort: Cohort, config: PreprocessConfig, trial: Path, cache: Path
) -> tuple[_Preparation, list[CachedCase]]:
    """Prepare one case alone and some side by side, as the run will; return them with the estimate."""
    from emim.training.pretrain_watch import spread_evenly
    from emim.volumes.cache import build_cache, cache_contents, default_workers, largest_size, missing_cases

    missing = missing_cases(cohort, config, cache)
    sizes = {c.id: largest_size(c, cohort.modalities, config) for c in cohort.cases}
    by_size = sorted(cohort.cases, key=lambda c: sizes[c.id])
    middle = by_size[len(by_size) // 2]
    begun = time.monotonic()
    prepared = build_cache(cohort.select([middle.id]), config, trial)
    alone = (time.monotonic() - begun) / sizes[middle.id]
    together = alone

    others = [c for c in by_size if c is not middle]
    workers = default_workers()
    others = spread_evenly(others, (1 if alone * sizes[middle.id] > SLOW_CASE else 3) * workers + 1)
    if len(others) > 1:
        watch = _Stopwatch()
        begun = time.monotonic()
        prepared += build_cache(cohort.select([c.id for c in others]), config, trial, watch)
        # The first of them is prepared alone once more; reading all files to know them comes before.
        reading = watch.times[0] - begun
        at_once = sum(sizes[c.id] for c in others[1:])
        together = (watch.times[-1] - watch.times[1]) / at_once + reading / (at_once + sizes[others[0].id])
    bytes_each = sum(e.bytes for e in cache_contents(trial)) / sum(sizes[c.id] for c in prepared)
    total = sum(sizes[c.id] for c in missing)
    first = sizes[missing[0].id] if missing else 0
    seconds = alone * first + together * (total - first)
    return _Preparation(len(missing), seconds, round(bytes_each * total)), prepared


def _stand_in(cases: Sequence[CachedCase], ids: Sequence[str]) -> list[CachedCase]:
    """A list as long as the run's: the few cases that are prepared, over and over."""
    return [dataclasses.replace(cases[i % len(cases)], id=n, subject=n) for i, n in enumerate(ids)]


@dataclass(frozen=True)
class _Trial:
    """What training and all that goes with it would take."""

    seconds: float
    per_step: float
    per_validation: float
    validations: int
    bytes: int


def _try_training(
    run: RunFolder,
    task: Pretraining | Finetuning | Classification,
    training: Sequence[CachedCase],
    events: Events,
) -> _Trial:
    import torch

    from emim.report.page import write_report
    from emim.training.loop import validation_interval

    config, watch = task.config.train, task.watch
    if task.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(task.device)
    lines = _try_lines(task.config, training) if run.command == "pretrain" else 0.0
    optimisation = task.optimisation()
    optimisation.model.train()
    if task.trains:
        per_step = _try_steps(optimisation, task.data, events)
    else:  # the one step is to compute the features of all training cases, at least a crop each
        per_step = _timed(task.prepare, len(training), STEPS_BUDGET)

    intervals = math.ceil(config.steps / validation_interval(config))
    # Fine-tuning has nothing to validate before the first step.
    validations = intervals + 1 if run.command == "pretrain" else intervals * bool(watch.units)
    measuring = showing = 0.0
    if validations:
        optimisation.model.eval()
        with torch.inference_mode():
            measuring = _timed(task.measure, watch.units, MEASURE_BUDGET)
            showing = _timed(lambda _: task.write_preview(run, 0))
    state = optimisation.state()
    saving = _timed(lambda _: run.save_checkpoint("last.pt", state))
    reporting = _timed(lambda _: write_report(run.path))

    seconds = lines + config.steps * per_step + validations * (measuring + showing)
    saves = intervals + seconds / max(1.0, config.checkpoint_every)
    reports = 1 + (seconds / 60 if run.command == "pretrain" else 0)
    written = sum(f.stat().st_size for f in run.path.rglob("*") if f.is_file())
    weights = sum(v.numel() * v.element_size() for v in state["model"].values())
    # Fine-tuning keeps the best weights and makes a package of them.
    more = 2 * weights if run.command == "finetune" else 0
    return _Trial(
        seconds + saves * saving + reports * reporting,
        per_step,
        measuring + showing,
        validations,
        written + more,
    )


def _try_lines(config: PretrainConfig, training: Sequence[CachedCase]) -> float:
    from emim.training.pretrain_watch import LINES_CASES, cohort_collapse_lines

    if config.objective == "contrastive":
        return 0.0
    return _timed(
        lambda should_stop: cohort_collapse_lines(config, training, Events(), should_stop),
        min(len(training), LINES_CASES),
        LINES_BUDGET,
    )


def _try_steps(optimisation: Any, data: Any, events: Events) -> float:
    """Seconds per training step."""
    from emim.training.loading import load

    begun = time.monotonic()
    since, at = begun, 0
    with closing(load(data, optimisation.config, optimisation.device)) as batches:
        for step, batch in enumerate(batches):
            if step == 0:
                optimisation.fit(batch, step, events)
            optimisation.advance(batch, step)
            optimisation.check()  # waits for a GPU
            now = time.monotonic()
            if step < WARM_UP and now - begun < STEPS_BUDGET:
                since, at = now, step + 1
            elif now - begun > STEPS_BUDGET:
                break
    done = step + 1 - at
    return (now - since) / done if done else (now - begun) / (step + 1)


def _timed(work: Callable[[Callable[[], bool]], Any], units: int = 1, budget: float = math.inf) -> float:
    """Seconds that ``work`` takes.

    It asks whether to stop before each of its ``units``; it is told so after ``budget`` seconds, and the
    time of the units left is that of those done.
    """
    begun, asked = time.monotonic(), 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1 and time.monotonic() - begun > budget

    try:
        work(should_stop)
    except Cancelled:
        return (time.monotonic() - begun) * units / (asked - 1)
    return time.monotonic() - begun


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
