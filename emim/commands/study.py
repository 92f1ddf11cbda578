"""``emim study``: comparisons of methods, each one command."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.commands.shared import add_command, add_patterns, cohort_options, say
from emim.config import PRESETS
from emim.errors import EXIT_SOME_FAILED, EmimError
from emim.events import Events
from emim.study.studies import NAMES, find_study

if TYPE_CHECKING:
    from emim.study.jobs import Job
    from emim.study.plan import Plan

REPORT_EVERY = 30.0  # seconds between reports of a study that goes on


def add_study(commands: Any) -> None:
    p = add_command(commands, "study", _study, "compare methods on a cohort, over several seeds")
    p.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    p.add_argument(
        "--cohort", required=True, metavar="COHORT", help="folder of subject folders, or a datalist"
    )
    add_patterns(p)
    p.add_argument("--out", required=True, metavar="FOLDER", help="new, or that of a study to be continued")
    p.add_argument("--split", metavar="FILE", help="JSON with test and validation; default: drawn")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    p.add_argument("--arms", metavar="A,B", help="only these arms; default: all")
    p.add_argument(
        "--labelled", type=int, nargs="+", metavar="N", help="numbers of labelled cases to fine-tune on"
    )
    p.add_argument(
        "--structure",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a structure and its label values, such as ET=3, or overlapping regions such as WT=1,2,3",
    )
    p.add_argument(
        "--classes", metavar="FILE", help="for probe: CSV with columns case (or subject) and class"
    )
    p.add_argument("--preset", choices=tuple(PRESETS), help="size of network and crop; default: by device")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        dest="settings",
        help="any setting of the runs; of one kind alone with pretrain. or finetune. before it, such as "
        "pretrain.train.steps=500",
    )
    p.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--cache", metavar="FOLDER", help="where preprocessed volumes are kept")
    p.add_argument(
        "--jobs", type=int, metavar="N", help="runs side by side; default: one for each GPU, or one"
    )
    p.add_argument("--dry-run", action="store_true", help="only tell what would be run")
    p.add_argument("--report", action="store_true", help="only write the report of what is there")


def _study(options: argparse.Namespace, events: Events) -> int:
    if options.jobs is not None and options.jobs < 1:
        raise EmimError(f"--jobs cannot be {options.jobs}.", hint="Give 1 or more.")
    if options.report and not (Path(options.out) / "study.json").is_file():
        raise EmimError("There is no study to report on.", options.out, "Start it without --report.")
    plan = _plan(options, events)
    from emim.study.jobs import make_jobs

    jobs = make_jobs(plan)
    for name, why in plan.left_out.items():
        events.warning(f"Left out: {name}. {why}")
    if options.dry_run:
        _tell(plan, jobs, events)
        return 0
    plan.write()
    failed = [] if options.report else _run(plan, jobs, options, events)
    page = _report(plan)
    say(events, page.read_text(encoding="utf-8"))
    events.result(report=page, failed=failed)
    return EXIT_SOME_FAILED if failed else 0


def _plan(options: argparse.Namespace, events: Events) -> Plan:
    from emim.cohort.scan import scan
    from emim.study.plan import read_record
    from emim.study.planning import make_plan
    from emim.study.settings import parse_settings
    from emim.training.split import read_split

    study = find_study(options.name)
    settings = parse_settings(options.settings)
    out = Path(options.out).absolute()
    split = options.split
    cohort = cohort_options(options)
    if before := read_record(out):
        if before.get("cohort") != str(Path(options.cohort).absolute()):
            what = "The study in this folder was begun with another cohort."
            raise EmimError(what, before.get("cohort"), "Choose another --out.")
        cohort = {"source": out / "cohort.json"}
        split = split or out / "split.json"
    found = scan(**cohort, events=events)
    found = dataclasses.replace(found, source=str(Path(options.cohort).absolute()))
    return make_plan(
        study,
        found,
        out,
        given_split=read_split(split) if split else {},
        seeds=options.seeds,
        preset=options.preset or before.get("preset") or _preset(options.device),
        settings=settings,
        arms=list(dict.fromkeys(options.arms.split(","))) if options.arms else None,
        labelled=options.labelled,
        structures=options.structure,
        device=options.device,
        cache=Path(options.cache).absolute() if options.cache else None,
        classes_file=Path(options.classes).absolute() if options.classes else None,
    )


def _run(plan: Plan, jobs: list[Job], options: argparse.Namespace, events: Events) -> list[str]:
    from emim.errors import Cancelled
    from emim.study.engine import run_jobs
    from emim.study.runner import Runner
    from emim.volumes.cache import build_cache

    gpus = _gpus(options.device)
    slots = options.jobs or max(1, gpus)
    preprocess = plan.base("pretrain").preprocess
    for spacing in plan.spacings():
        build_cache(plan.cohort(), dataclasses.replace(preprocess, spacing=spacing), plan.cache, events)
    reported = [time.monotonic()]

    def finished() -> None:
        if time.monotonic() - reported[0] > REPORT_EVERY:
            _update_report(plan, events)
            reported[0] = time.monotonic()

    try:
        return run_jobs(jobs, slots, Runner(plan.log, slots, gpus), events, finished)
    except Cancelled:
        _update_report(plan, events)
        raise


def _update_report(plan: Plan, events: Events) -> None:
    """Write the report of a study in progress; a file that cannot be replaced must not cost trainings."""
    try:
        _report(plan)
    except Exception as error:
        events.warning(f"The report could not be written: {error!r}.", plan.out)


def _report(plan: Plan) -> Path:
    from emim.study.report import write_report
    from emim.study.results import Results

    return write_report(Results(plan))


def _tell(plan: Plan, jobs: list[Job], events: Events) -> None:
    for name in ("test", "validation"):
        say(events, f"{name}: {', '.join(plan.split[name]) or 'none'}")
    for job in jobs:
        for command in job.commands:
            say(events, f"emim {shlex.join(command)}")
    done = sum(job.done() for job in jobs)
    say(events, f"{len(jobs)} runs and tests, {done} of them done.")
    events.result(jobs=[{"name": j.name, "commands": j.commands, "done": j.done()} for j in jobs])


def _preset(device: str | None) -> str:
    from emim.machine.device import choose_device

    return "tiny" if choose_device(device or "auto").type == "cpu" else "base"


def _gpus(device: str | None) -> int:
    """How many GPUs the runs may take turns on; 0 where a device is named."""
    if device not in (None, "auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()
