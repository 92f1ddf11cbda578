"""The command line: ``emim COMMAND …``. Parsing loads nothing slow; each command imports what it needs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emim import __version__, stopping
from emim.commands.classify import add_classify
from emim.commands.evaluate import add_evaluate
from emim.commands.impute import add_impute
from emim.commands.inputs import parse_inputs
from emim.commands.register import add_register
from emim.commands.runs import add_runs
from emim.commands.shared import (
    add_cohort,
    add_command,
    add_patterns,
    cohort_options,
    open_cohort,
    say,
    select_cases,
)
from emim.commands.study import add_study
from emim.commands.training import add_finetune, add_pretrain
from emim.errors import EXIT_SOME_FAILED, Cancelled, EmimError
from emim.events import Events, to_terminal
from emim.inference.quality import QUALITIES
from emim.machine.distributed import (
    joined,
    known_everywhere,
    launched_rank,
    launched_size,
    on_first_rank,
    size,
)
from emim.stopping import EXIT_CANCELLED

EXIT_FAILURE, EXIT_BAD_INPUT = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of a process; return its exit code (see :mod:`emim.errors`)."""
    try:
        return run_command(arguments)
    finally:
        stopping.finished()


def run_command(arguments: Sequence[str] | None = None) -> int:
    """As :func:`main`, for one command of several in a process."""
    # Threads that wait by spinning slow a busy machine down tenfold; torch reads this when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if sys.platform == "darwin":  # read likewise; what Apple's GPUs cannot do, the CPU does
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    options = build_parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():  # the training loop has its own way
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    first = launched_rank() == 0
    events = to_terminal(options.json) if first else Events(json_lines=True)  # which says nothing
    try:
        if options.stop_with_stdin:
            stopping.stop_at_end_of_input()
        if options.stop_with_process is not None:
            stopping.stop_with_process(options.stop_with_process)
        if launched_size() > 1 and not options.on_ranks:
            raise EmimError(f"emim {options.command} is one process.", hint="Start it without torchrun.")
        with joined():
            return options.run(options, events) or 0
    except EmimError as error:
        events.error(error.what, error.where, error.hint)
        if not first and not known_everywhere(error):
            print(f"error of rank {launched_rank()}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (Cancelled, KeyboardInterrupt) as stop:
        exec("")  # makes Python forget an interrupt within exec(), as in imports, for which it would exit -2
        if events.ended:  # too late to stop anything
            return 0
        events.status(str(stop) or "Stopped.")
        return EXIT_CANCELLED
    except BrokenPipeError:  # the reader of our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        hint = "Check the path, its rights and the disk."
        events.error(f"{error.strerror or error}.", error.filename, hint)
        return EXIT_BAD_INPUT
    except Exception as error:
        events.error(
            f"Unexpected failure: {type(error).__name__}: {error}",
            hint="This is a defect of EMIM; please report it with the text below.",
        )
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        _log(options, text)
        return EXIT_FAILURE
    finally:
        events.close()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="emim",
        description="Pre-train on your own unlabelled multi-modal MRI, fine-tune with few labels, segment.",
    )
    parser.add_argument("--version", action="version", version=f"emim {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_scan,
        add_pretrain,
        add_finetune,
        add_runs,
        add_study,
        _add_segment,
        add_classify,
        add_impute,
        add_register,
        add_evaluate,
        _add_report,
        _add_info,
        _add_cache,
        _add_phantom,
        _add_demo,
    ):
        add(commands)
    return parser


# ---- cohort -------------------------------------------------------------------------------------


def _add_scan(commands: Any) -> None:
    p = add_command(commands, "scan", _scan, "find subjects and modalities in a folder and check every file")
    add_cohort(p)
    p.add_argument("--out", metavar="FOLDER", help="write cohort.json and the table as cohort.csv there")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier table")


def _scan(options: argparse.Namespace, events: Events) -> None:
    from emim.cohort.scan import survey
    from emim.cohort.table import json_rows, text_table, write_table

    found = survey(**cohort_options(options), events=events)
    if options.out:  # first: what it is for must not depend on who reads the answer
        write_table(found, options.out, options.overwrite)
    say(events, text_table(found))
    if not found.cohort.cases:
        events.warning(f"None of the {len(found.rows)} cases can be used.", found.source)
    fields: dict[str, Any] = {
        "cases": len(found.cohort.cases),
        "modalities": found.cohort.modalities,
        "segments": [s.to_dict() for s in found.segments],
        "rows": json_rows(found),
        "ignored": [{"path": path, "why": why} for path, why in found.ignored],
    }
    if options.out:
        fields["out"] = options.out
        events.status(f"Wrote cohort.json and cohort.csv to {options.out}.")
    events.result(**fields)


# ---- using models -------------------------------------------------------------------------------


def _add_segment(commands: Any) -> None:
    text = "segment a case, or every case of a cohort, with a model"
    p = add_command(commands, "segment", _segment, text, on_ranks=True)
    p.add_argument("--model", required=True, metavar="MODEL", help="model package, or a fine-tuning run")
    p.add_argument(
        "--input", action="append", default=[], metavar="MODALITY=FILE", help="once for each modality"
    )
    p.add_argument("--cohort", metavar="COHORT", help="segment all cases of a folder or datalist instead")
    add_patterns(p)
    p.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="label map: .nii.gz, .nii, .nrrd, .mha or .seg.nrrd; a folder with --cohort",
    )
    p.add_argument("--cases", metavar="A,B", help="with --cohort: only these cases")
    p.add_argument("--split", metavar="FILE", help="with --cohort: only the test cases of this split file")
    p.add_argument("--extension", default=".nii.gz", metavar="EXT", help="with --cohort: kind of file")
    p.add_argument(
        "--reference",
        metavar="MODALITY",
        help="input whose grid the result has; default: the model's, else the first",
    )
    p.add_argument("--probabilities", action="store_true", help="write the probability of each structure too")
    p.add_argument("--align", action="store_true", help="first align the inputs rigidly to the reference")
    p.add_argument("--quality", choices=tuple(QUALITIES), default="balanced", help="default: balanced")
    p.add_argument("--overlap", type=float, metavar="R", help="overlap of tiles, 0 is fastest")
    p.add_argument(
        "--mirror", action="store_true", default=None, help="average with mirrored inputs; twice the time"
    )
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--overwrite", action="store_true", help="replace earlier results")
    p.add_argument(
        "--resume", action="store_true", help="with --cohort: leave what an earlier call has done already"
    )


def _segment(options: argparse.Namespace, events: Events) -> int:
    from emim.inference.segment import segment

    if bool(options.input) == bool(options.cohort):
        raise EmimError("What is to be segmented?", hint="Give --input MODALITY=FILE …, or --cohort.")
    if options.input and size() > 1:
        raise EmimError("One case is segmented by one process.", hint="Start it without torchrun.")
    inputs = parse_inputs(options.input)
    _warn_of_lost_overlap(options, events)
    shared = {
        "device": options.device,
        "quality": options.quality,
        "overlap": options.overlap,
        "mirror": options.mirror,
        "align": options.align,
        "probabilities": options.probabilities,
        "reference": options.reference,
        "events": events,
        "overwrite": options.overwrite,
        "resume": options.resume,
    }
    if options.cohort:
        found = on_first_rank(lambda: select_cases(open_cohort(options, events), options))
        results = segment(
            options.model, None, options.output, cohort=found, extension=options.extension, **shared
        )
        failed = [r["case"] for r in results if "error" in r]
        cases = [r["case"] for r in results]
        events.result(folder=options.output, cases=cases, segmented=len(cases) - len(failed), failed=failed)
        say(events, f"Segmented {len(results) - len(failed)} cases: {options.output}")
        if failed:
            say(events, f"Failed: {', '.join(failed)}; summary.json says why.")
        return EXIT_SOME_FAILED if failed else 0
    result = segment(options.model, inputs, options.output, **shared)
    events.result(**result)
    for row in result["measurements"]:
        diameter = row["largest_diameter_mm"]
        across = "" if diameter is None else f"{diameter:10.1f} mm across"
        say(events, f"{row['structure']:20s} {row['volume_ml']:10.2f} mL{across}")
    say(events, f"Segmentation: {result['output']}\nOverlay:      {result['overlay']}")
    return 0


def _warn_of_lost_overlap(options: argparse.Namespace, events: Events) -> None:
    """Tell of structures that can no longer be told apart once they are painted over each other."""
    from emim.evaluation.masks import holds_layers, partly_overlapping
    from emim.package.bundle import read_card

    pair = partly_overlapping(read_card(options.model).structures)
    if pair and not holds_layers(options.extension if options.cohort else options.output):
        names = " and ".join(repr(s.name) for s in pair)
        what = f"A label map cannot hold both {names} whole, because they overlap partly."
        events.warning(what, hint="Segment to .seg.nrrd, which can; with --cohort by --extension .seg.nrrd.")


def _add_report(commands: Any) -> None:
    p = add_command(commands, "report", _report, "write the report of a run again")
    p.add_argument("run_folder", metavar="RUN")


def _report(options: argparse.Namespace, events: Events) -> None:
    from emim.report.page import write_report

    if not (Path(options.run_folder) / "config.json").is_file():
        raise EmimError("This is not a run folder.", options.run_folder, "It has no config.json.")
    page = write_report(Path(options.run_folder))
    say(events, str(page))
    events.result(report=page)


def _add_info(commands: Any) -> None:
    p = add_command(commands, "info", _info, "describe a model package, or this installation")
    p.add_argument("model", metavar="MODEL", nargs="?", help="a model package; without: versions and devices")


def _info(options: argparse.Namespace, events: Events) -> None:
    import dataclasses

    if options.model is None:
        from emim.machine.device import open_device
        from emim.run import environment

        fields = environment(open_device(events=events))
    else:
        from emim.package.bundle import read_package

        path = Path(options.model)
        fields = dataclasses.asdict(read_package(path / "model" if (path / "model").is_dir() else path).card)
    say(events, json.dumps(fields, indent=1, ensure_ascii=False))
    events.result(**fields)


def _add_cache(commands: Any) -> None:
    p = add_command(commands, "cache", _cache, "show or remove preprocessed volumes")
    p.add_argument("--cache", metavar="FOLDER", help="default: the user's cache folder")
    p.add_argument("--remove", action="store_true", help="remove them; they are made again when needed")


def _cache(options: argparse.Namespace, events: Events) -> None:
    from emim.volumes.cache import cache_contents, default_folder, remove_cache

    folder = Path(options.cache) if options.cache else default_folder()
    if options.remove:
        freed = remove_cache(folder)
        say(events, f"Removed {freed / 2**30:.2f} GiB from {folder}.")
        events.result(folder=folder, removed_bytes=freed)
        return
    entries = cache_contents(folder)
    size = sum(e.bytes for e in entries)
    say(events, f"{folder}: {len(entries)} cases, {size / 2**30:.2f} GiB.")
    events.result(folder=folder, cases=len(entries), bytes=size)


# ---- synthetic data -----------------------------------------------------------------------------


def _add_phantom(commands: Any) -> None:
    p = add_command(commands, "phantom", _phantom, "make a cohort of synthetic heads to try things on")
    p.add_argument("--out", required=True, metavar="FOLDER")
    p.add_argument("--subjects", type=int, default=24, metavar="N")
    p.add_argument("--labelled", type=int, metavar="N", help="the first N have labels; default: half")
    p.add_argument("--spacing", type=float, default=2.5, metavar="MM", help="voxel size")
    p.add_argument("--skull", action="store_true", help="with skull and scalp")
    p.add_argument("--own-grids", action="store_true", help="every modality but T1 on a grid of its own")
    p.add_argument(
        "--classes", action="store_true", help="solitary or multifocal lesions, named in classes.csv"
    )
    p.add_argument("--regions", action="store_true", help="labels of regions of the brain instead of lesions")
    p.add_argument("--seed", type=int, default=0, metavar="N")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier phantom cohort")


def _phantom(options: argparse.Namespace, events: Events) -> None:
    from emim.phantom.generate import generate

    folder = generate(
        options.out,
        options.subjects,
        options.seed,
        options.labelled,
        options.spacing,
        options.skull,
        options.overwrite,
        events,
        options.own_grids,
        options.classes,
        options.regions,
    )
    say(events, str(folder))
    events.result(folder=folder)


def _add_demo(commands: Any) -> None:
    p = add_command(commands, "demo", _demo, "the whole chain on synthetic heads, or on your own cohort")
    p.add_argument("--out", required=True, metavar="FOLDER")
    p.add_argument("--cohort", metavar="COHORT", help="your own, with labels for at least six subjects")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo")


def _demo(options: argparse.Namespace, events: Events) -> None:
    from emim.demo import demo

    demo(options.out, options.cohort, options.overwrite, events)


# ---- shared -------------------------------------------------------------------------------------


def _log(options: argparse.Namespace, text: str) -> None:
    """Keep an unexpected failure in the run folder, if the command has one."""
    out = getattr(options, "out", None)
    if out and (Path(out) / "config.json").is_file():
        with open(Path(out) / "log.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")
