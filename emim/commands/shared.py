"""What the commands share: how they are declared, how they name a cohort, how they answer."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from emim.errors import EmimError
from emim.events import Events, nobody_reads
from emim.machine.distributed import on_first_rank


def add_cohort(p: argparse.ArgumentParser, optional: bool = False) -> None:
    p.add_argument(
        "cohort",
        metavar="COHORT",
        nargs="?" if optional else None,
        help="folder of subject folders, or a datalist (.json, .csv)",
    )
    add_patterns(p)


def add_patterns(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--pattern",
        action="append",
        default=[],
        metavar="MODALITY=PATTERN",
        help="files of a modality: a glob such as 'T1ce=*_t1gd*', or 're:' and a regular expression; "
        "comes before the built-in patterns",
    )
    p.add_argument("--label-pattern", metavar="PATTERN", help="files that hold labels")


def open_cohort(options: argparse.Namespace, events: Events, coding: Sequence[Any] = ()) -> Any:
    """The scanned cohort that the options name, with at least one usable case, or None.

    ``coding``: see :func:`emim.cohort.scan.survey`.
    """
    if options.cohort is None:
        return None
    from emim.cohort.scan import scan

    return on_first_rank(lambda: scan(**cohort_options(options), events=events, coding=coding))


def cohort_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :func:`emim.cohort.scan.scan` that the options give."""
    patterns: dict[str, list[str]] = {}
    for text in options.pattern:
        name, separator, pattern = text.partition("=")
        if not separator or not name or not pattern:
            raise EmimError(f"{text!r} is not a pattern.", hint="Write MODALITY=PATTERN, such as 'T2=*t2w*'.")
        patterns.setdefault(name, []).append(pattern)
    return {"source": options.cohort, "patterns": patterns or None, "label": options.label_pattern}


def add_command(
    commands: Any, name: str, run: Callable, text: str, on_ranks: bool = False
) -> argparse.ArgumentParser:
    """Declare a command; ``on_ranks``: torchrun may start several processes of it."""
    p = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    p.add_argument("--json", action="store_true", help="print events as JSON lines")
    p.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="stop when standard input is closed, after a first line; for a program that the command serves",
    )
    p.add_argument(
        "--stop-with-process",
        type=int,
        metavar="PID",
        help="stop when this process ends, so that the command never outlives a program it serves",
    )
    p.set_defaults(run=run, on_ranks=on_ranks)
    return p


def spare_inputs(options: argparse.Namespace) -> None:
    """Refuse, also with --overwrite, an output in the place of a file that the command reads."""
    if not options.output:
        return
    output = Path(options.output).resolve()
    written = {output, *(output.with_suffix(e) for e in (".txt", ".md", ".png"))}  # tables, a picture
    for name in ("cohort", "split", "classes", "predictions"):
        given = getattr(options, name, None)
        if given and Path(given).resolve() in written:
            raise EmimError(f"The output would overwrite what --{name} names.", given, "Choose another name.")


def say(events: Events, text: str) -> None:
    """Print a command's answer for a person; with --json the result event holds it.

    Raises:
        BrokenPipeError: when nobody reads it.
    """
    if events.json_lines:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        raise BrokenPipeError if nobody_reads(error) else error from None


def select_cases(found: Any, options: argparse.Namespace) -> Any:
    """``found`` with only the cases named, each once, or the test cases of a split; problems included."""
    if options.split and options.cases:
        raise EmimError("Both --cases and --split say which cases to take.", hint="Give one of them.")
    if options.split:
        from emim.training.split import read_split

        ids = list(read_split(options.split).get("exclude", ()))
        if not ids:
            raise EmimError("The split file names no test cases.", options.split)
    elif options.cases:
        ids = list(dict.fromkeys(options.cases.split(",")))
    else:
        return found
    return only(found, ids)


def only(found: Any, ids: Collection[str]) -> Any:
    """``found`` with only the cases ``ids``, usable or not, in this order; an unknown one is refused."""
    rows = [row for row in found.rows if row.id in ids]
    bad = {row.id for row in rows if not row.usable}
    cohort = found.cohort.select([i for i in ids if i not in bad])
    return dataclasses.replace(found, cohort=cohort, rows=rows)
