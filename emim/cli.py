"""The command line: ``emim COMMAND …``. Parsing loads nothing slow; each command imports what it needs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emim import __version__
from emim.config import PRESETS, FinetuneConfig, PretrainConfig, override, with_preset
from emim.errors import Cancelled, EmimError
from emim.events import Events, to_terminal

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_CANCELLED = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see :mod:`emim.errors`)."""
    # Threads that wait by spinning slow a busy machine down tenfold; torch reads this when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    options = build_parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():  # the training loop has its own way
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    events = to_terminal(getattr(options, "json", False))
    try:
        return options.run(options, events) or 0
    except EmimError as error:
        events.error(error.what, error.where, error.hint)
        return EXIT_BAD_INPUT
    except (Cancelled, KeyboardInterrupt) as stop:
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
        _add_pretrain,
        _add_finetune,
        _add_segment,
        _add_evaluate,
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
    p = _command(commands, "scan", _scan, "find subjects and modalities in a folder and check every file")
    _cohort(p)
    p.add_argument("--out", metavar="FOLDER", help="write cohort.json and the table as cohort.csv there")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier table")


def _scan(options: argparse.Namespace, events: Events) -> None:
    from emim.cohort.table import text_table, write_table

    found = _open_cohort(options, events)
    if not options.json:
        print(text_table(found))
    fields: dict[str, Any] = {"cases": len(found.cohort.cases), "modalities": found.cohort.modalities}
    if options.out:
        write_table(found, options.out, options.overwrite)
        fields["out"] = options.out
        events.status(f"Wrote cohort.json and cohort.csv to {options.out}.")
    events.result(**fields)


def _cohort(p: argparse.ArgumentParser, optional: bool = False) -> None:
    p.add_argument(
        "cohort",
        metavar="COHORT",
        nargs="?" if optional else None,
        help="folder of subject folders, or a datalist (.json, .csv)",
    )
    _patterns(p)


def _patterns(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="MODALITY=PATTERN",
        help="files of a modality: a glob such as 'T1ce=*_t1gd*', or 're:' and a regular expression; "
        "comes before the built-in patterns",
    )
    p.add_argument("--label-pattern", metavar="PATTERN", help="files that hold labels")


def _select(found: Any, options: argparse.Namespace) -> Any:
    """``found`` with only the cases named, or the test cases of a split; problems included."""
    import dataclasses

    if options.split:
        from emim.training.split import read_split

        ids = list(read_split(options.split).get("exclude", ()))
        if not ids:
            raise EmimError("The split file names no test cases.", options.split)
    elif options.cases:
        ids = options.cases.split(",")
    else:
        return found
    rows = [row for row in found.rows if row.id in ids]
    bad = {row.id for row in rows if not row.usable}
    cohort = found.cohort.select([i for i in ids if i not in bad])
    return dataclasses.replace(found, cohort=cohort, rows=rows)


def _open_cohort(options: argparse.Namespace, events: Events) -> Any:
    if options.cohort is None:
        return None
    from emim.cohort.scan import scan

    patterns: dict[str, list[str]] = {}
    for text in options.pattern:
        name, separator, pattern = text.partition("=")
        if not separator or not name or not pattern:
            raise EmimError(f"{text!r} is not a pattern.", hint="Write MODALITY=PATTERN, such as 'T2=*t2w*'.")
        patterns.setdefault(name, []).append(pattern)
    return scan(options.cohort, patterns=patterns or None, label=options.label_pattern, events=events)


# ---- training -----------------------------------------------------------------------------------


def _add_pretrain(commands: Any) -> None:
    p = _command(commands, "pretrain", _pretrain, "pre-train on unlabelled cases (E-MIM)")
    _cohort(p, optional=True)
    _training(p)
    p.add_argument("--mask", metavar="PATTERN", help="hybrid, random, modal, position, patch or none")
    p.add_argument("--mask-ratio", metavar="R", help="share that is hidden, such as 0.75")
    p.add_argument("--regulariser", metavar="NAME", help="barlow, vicreg, uniformity or none")


def _pretrain(options: argparse.Namespace, events: Events) -> None:
    from emim.training.preflight import check_pretraining
    from emim.training.pretrain import pretrain

    config = _settings(
        PretrainConfig(),
        options,
        {
            "mask.pattern": options.mask,
            "mask.ratio": options.mask_ratio,
            "regulariser.name": options.regulariser,
        },
    )
    if not options.resume:
        check_pretraining(config)
    run = pretrain(
        _open_cohort(options, events),
        options.out,
        config,
        resume=options.resume,
        overwrite=options.overwrite,
        cache=options.cache,
        events=events,
    )
    _say(events, f"Run:    {run}\nReport: {run / 'report' / 'report.html'}")


def _add_finetune(commands: Any) -> None:
    p = _command(commands, "finetune", _finetune, "train a segmentation model from few labelled cases")
    _cohort(p, optional=True)
    p.add_argument(
        "--init", metavar="RUN", help="pre-training run or model to start from; none: from scratch"
    )
    p.add_argument(
        "--plan",
        metavar="RUN",
        help="take network, preprocessing and modalities from this run, but no weights (for a baseline)",
    )
    _training(p)
    p.add_argument(
        "--structure",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a structure and its label values, such as ET=3, or overlapping regions such as WT=1,2,3",
    )
    p.add_argument("--labelled", metavar="N", help="train on only N of the labelled cases, drawn by the seed")


def _finetune(options: argparse.Namespace, events: Events) -> None:
    import dataclasses

    from emim.training.finetune import finetune, with_plan
    from emim.training.structures import parse_structures

    if options.init is None and not options.resume:
        raise EmimError("Nothing says where to start.", hint="Give --init RUN, or --init none for scratch.")
    init = None if options.init in (None, "none") else options.init
    config = FinetuneConfig()
    if options.structure:
        structures, overlapping = parse_structures(options.structure)
        config = dataclasses.replace(config, structures=structures, overlapping=overlapping)
    plan = options.plan or init
    config = _settings(
        config,
        options,
        {"labelled": options.labelled},
        then=(lambda c: with_plan(c, plan)) if plan and not options.resume else None,
    )
    model = finetune(
        _open_cohort(options, events),
        options.out,
        init,
        config,
        resume=options.resume,
        overwrite=options.overwrite,
        cache=options.cache,
        events=events,
    )
    _say(events, f"Model:  {model}\nReport: {model.parent / 'report' / 'report.html'}")


def _training(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", required=True, metavar="RUN", help="the run folder, new")
    p.add_argument("--preset", choices=tuple(PRESETS), help="size of network and crop; default: by device")
    p.add_argument("--steps", metavar="N", help="optimiser steps")
    p.add_argument("--seed", metavar="N", help="fixes every random choice")
    p.add_argument("--modalities", metavar="A,B", help="use only these, in this order")
    p.add_argument("--spacing", metavar="X,Y,Z", help="voxel size in mm; default: the cohort's median")
    p.add_argument(
        "--split", metavar="FILE", help='JSON: {"test": [ids], "validation": [ids]}; test is never looked at'
    )
    p.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--cache", metavar="FOLDER", help="where preprocessed volumes are kept")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        dest="settings",
        help="any setting of config.json, such as train.learning_rate=1e-3",
    )
    existing = p.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue the run with its own settings")
    existing.add_argument("--overwrite", action="store_true", help="replace an earlier run")


def _settings(
    config: Any,
    options: argparse.Namespace,
    special: dict[str, Any],
    then: Callable[[Any], Any] | None = None,
) -> Any:
    """Defaults, then the preset, then ``then``, then every option that was given."""
    if options.resume:
        _refuse_with_resume(options)
        return override(config, {"train.device": options.device or "auto"})
    preset = options.preset
    if preset is None:
        from emim.training.device import choose_device

        preset = "tiny" if choose_device(options.device or "auto").type == "cpu" else "base"
    config = with_preset(config, preset)
    if then is not None:
        config = then(config)
    given = {
        "train.steps": options.steps,
        "train.seed": options.seed,
        "train.device": options.device,
        "modalities": options.modalities,
        "preprocess.spacing": options.spacing,
        **special,
    }
    if options.split:
        from emim.training.split import read_split

        given |= {f"train.{name}": ids for name, ids in read_split(options.split).items()}
    for text in options.settings:
        name, separator, value = text.partition("=")
        if not separator:
            raise EmimError(f"{text!r} is not a setting.", hint="Write --set SETTING=VALUE.")
        given[name] = value
    return override(config, {name: value for name, value in given.items() if value is not None})


def _refuse_with_resume(options: argparse.Namespace) -> None:
    """A resumed run goes on with its own settings; to be given others and ignore them would mislead."""
    names = ("preset", "steps", "seed", "modalities", "spacing", "split", "settings", "mask", "mask_ratio",
             "regulariser", "init", "plan", "structure", "labelled")  # fmt: skip
    for name in names:
        if getattr(options, name, None):
            option = "--set" if name == "settings" else "--" + name.replace("_", "-")
            raise EmimError(
                f"{option} cannot be given with --resume: the run goes on with its own settings.",
                options.out,
                "Leave it out, or start another run. (--device may be given.)",
            )


# ---- using models -------------------------------------------------------------------------------


def _add_segment(commands: Any) -> None:
    p = _command(commands, "segment", _segment, "segment a case, or every case of a cohort, with a model")
    p.add_argument("--model", required=True, metavar="MODEL", help="model package, or a fine-tuning run")
    p.add_argument(
        "--input", action="append", default=[], metavar="MODALITY=FILE", help="once for each modality"
    )
    p.add_argument("--cohort", metavar="COHORT", help="segment all cases of a folder or datalist instead")
    _patterns(p)
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
        "--reference", metavar="MODALITY", help="input whose grid the result has; default: the first"
    )
    p.add_argument("--probabilities", action="store_true", help="write the probability of each structure too")
    p.add_argument("--overlap", type=float, default=0.5, metavar="R", help="overlap of tiles, 0 is fastest")
    p.add_argument("--mirror", action="store_true", help="average over mirrored inputs; 8 times slower")
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--overwrite", action="store_true", help="replace earlier results")


def _segment(options: argparse.Namespace, events: Events) -> int:
    from emim.inference.segment import segment

    if bool(options.input) == bool(options.cohort):
        raise EmimError("What is to be segmented?", hint="Give --input MODALITY=FILE …, or --cohort.")
    shared = {
        "device": options.device,
        "overlap": options.overlap,
        "mirror": options.mirror,
        "probabilities": options.probabilities,
        "reference": options.reference,
        "events": events,
        "overwrite": options.overwrite,
    }
    if options.cohort:
        found = _select(_open_cohort(options, events), options)
        results = segment(
            options.model, None, options.output, cohort=found, extension=options.extension, **shared
        )
        failed = [r["case"] for r in results if "error" in r]
        events.result(folder=options.output, segmented=len(results) - len(failed), failed=failed)
        _say(events, f"Segmented {len(results) - len(failed)} cases: {options.output}")
        if failed:
            _say(events, f"Failed: {', '.join(failed)}; summary.json says why.")
        return EXIT_FAILURE if failed else 0
    inputs: dict[str, str] = {}
    for text in options.input:
        name, separator, file = text.partition("=")
        if not separator or not name or not file:
            raise EmimError(f"{text!r} is not an input.", hint="Write MODALITY=FILE, such as FLAIR=a.nii.gz.")
        if name in inputs:
            raise EmimError(f"The modality {name} is given twice.", hint="Give one file for each.")
        inputs[name] = file
    result = segment(options.model, inputs, options.output, **shared)
    events.result(**result)
    for name, volume in result["volumes_ml"].items():
        _say(events, f"{name:20s} {volume:10.2f} mL")
    _say(events, f"Segmentation: {result['output']}\nOverlay:      {result['overlay']}")
    return 0


def _add_evaluate(commands: Any) -> None:
    p = _command(commands, "evaluate", _evaluate, "compare segmentations with reference labels")
    _cohort(p)
    p.add_argument("--predictions", required=True, metavar="FOLDER", help="label maps named by case id")
    p.add_argument("--model", metavar="MODEL", help="the model they come from, for its structures")
    p.add_argument(
        "--structure",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="label values of each structure in the references, where they differ from the model's",
    )
    p.add_argument("--output", metavar="FILE", help="write the numbers as JSON")
    p.add_argument("--cases", metavar="A,B", help="only these cases")
    p.add_argument("--split", metavar="FILE", help="only the test cases of this split file")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def _evaluate(options: argparse.Namespace, events: Events) -> int:
    from emim.evaluation.segmentation import evaluate
    from emim.package.bundle import read_card
    from emim.training.structures import parse_structures, structures_of_values

    found = _select(_open_cohort(options, events), options)
    if options.structure and options.model:
        structures = _recoded(read_card(options.model).structures, parse_structures(options.structure)[0])
    elif options.structure:
        structures, _ = parse_structures(options.structure)
    elif options.model:
        structures = read_card(options.model).structures
    else:
        structures, _ = structures_of_values(found.label_values)
    result = evaluate(
        found, options.predictions, structures, options.output, events, overwrite=options.overwrite
    )
    _say(events, result.table())
    events.result(**result.to_dict())
    return EXIT_FAILURE if result.failed else 0


def _recoded(structures: Sequence[Any], given: Sequence[Any]) -> tuple[Any, ...]:
    """The structures of a model with the label values that the references use for them."""
    import dataclasses

    values = {s.name: s.values for s in given}
    names = [s.name for s in structures]
    if set(values) != set(names):
        raise EmimError(
            f"--structure names {', '.join(values)}; the model has {', '.join(names)}.",
            hint="With --model, give the reference's label values of every structure of the model.",
        )
    return tuple(dataclasses.replace(s, values=values[s.name]) for s in structures)


def _add_report(commands: Any) -> None:
    p = _command(commands, "report", _report, "write the report of a run again")
    p.add_argument("run_folder", metavar="RUN")


def _report(options: argparse.Namespace, events: Events) -> None:
    from emim.report.page import write_report

    if not (Path(options.run_folder) / "config.json").is_file():
        raise EmimError("This is not a run folder.", options.run_folder, "It has no config.json.")
    page = write_report(Path(options.run_folder))
    _say(events, str(page))
    events.result(report=page)


def _add_info(commands: Any) -> None:
    p = _command(commands, "info", _info, "describe a model package, or this installation")
    p.add_argument("model", metavar="MODEL", nargs="?", help="a model package; without: versions and devices")


def _info(options: argparse.Namespace, events: Events) -> None:
    import dataclasses

    if options.model is None:
        import torch  # noqa: F401  so that the environment names the GPU

        from emim.run import environment

        fields = environment()
    else:
        from emim.package.bundle import read_package

        path = Path(options.model)
        fields = dataclasses.asdict(read_package(path / "model" if (path / "model").is_dir() else path).card)
    _say(events, json.dumps(fields, indent=1, ensure_ascii=False))
    events.result(**fields)


def _add_cache(commands: Any) -> None:
    p = _command(commands, "cache", _cache, "show or remove preprocessed volumes")
    p.add_argument("--cache", metavar="FOLDER", help="default: the user's cache folder")
    p.add_argument("--remove", action="store_true", help="remove them; they are made again when needed")


def _cache(options: argparse.Namespace, events: Events) -> None:
    from emim.volumes.cache import cache_contents, default_folder, remove_cache

    folder = Path(options.cache) if options.cache else default_folder()
    if options.remove:
        freed = remove_cache(folder)
        _say(events, f"Removed {freed / 2**30:.2f} GiB from {folder}.")
        events.result(folder=folder, removed_bytes=freed)
        return
    entries = cache_contents(folder)
    size = sum(e.bytes for e in entries)
    _say(events, f"{folder}: {len(entries)} cases, {size / 2**30:.2f} GiB.")
    events.result(folder=folder, cases=len(entries), bytes=size)


# ---- synthetic data -----------------------------------------------------------------------------


def _add_phantom(commands: Any) -> None:
    p = _command(commands, "phantom", _phantom, "make a cohort of synthetic heads to try things on")
    p.add_argument("--out", required=True, metavar="FOLDER")
    p.add_argument("--subjects", type=int, default=24, metavar="N")
    p.add_argument("--labelled", type=int, metavar="N", help="the first N have labels; default: half")
    p.add_argument("--spacing", type=float, default=2.5, metavar="MM", help="voxel size")
    p.add_argument("--skull", action="store_true", help="with skull and scalp")
    p.add_argument("--own-grids", action="store_true", help="every modality but T1 on a grid of its own")
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
    )
    _say(events, str(folder))
    events.result(folder=folder)


def _add_demo(commands: Any) -> None:
    p = _command(commands, "demo", _demo, "the whole chain on synthetic heads, or on your own cohort")
    p.add_argument("--out", required=True, metavar="FOLDER")
    p.add_argument("--cohort", metavar="COHORT", help="your own, with labels for at least six subjects")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier demo")


def _demo(options: argparse.Namespace, events: Events) -> None:
    from emim.demo import demo

    demo(options.out, options.cohort, options.overwrite, events)


# ---- shared -------------------------------------------------------------------------------------


def _command(commands: Any, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    p.add_argument("--json", action="store_true", help="print events as JSON lines")
    p.set_defaults(run=run)
    return p


def _say(events: Events, text: str) -> None:
    """Print a command's answer for a person; with --json the result event holds it."""
    if not events.json_lines:
        print(text)


def _log(options: argparse.Namespace, text: str) -> None:
    """Keep an unexpected failure in the run folder, if the command has one."""
    folder = Path(getattr(options, "out", None) or "")
    if (folder / "config.json").is_file():
        with open(folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")
