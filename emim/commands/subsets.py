"""``emim evaluate --subsets``: a model judged with every subset of its modalities."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emim.commands.shared import say
from emim.errors import EXIT_SOME_FAILED, EmimError
from emim.events import Events
from emim.inference.quality import QUALITIES

if TYPE_CHECKING:
    from emim.config import Structure
    from emim.evaluation.seen import Seen


def add_subsets(p: argparse.ArgumentParser) -> None:
    """The options of ``emim evaluate`` that segment instead of reading predictions."""
    p.add_argument(
        "--subsets",
        metavar="WHICH",
        help="instead of --predictions: segment with --model, once for each subset of its modalities: "
        "all, leave-one-out, or a list such as T1+T2,FLAIR",
    )
    p.add_argument(
        "--untrained", action="store_true", help="with --subsets: also those the model was not trained to do"
    )
    p.add_argument(
        "--quality",
        choices=tuple(QUALITIES),
        default="balanced",
        help="with --subsets or --segment; default: balanced",
    )
    p.add_argument(
        "--device", default="auto", metavar="NAME", help="with --subsets or --segment: auto, cpu, cuda, mps …"
    )


def check_what_is_evaluated(options: argparse.Namespace) -> None:
    """Refuse options that do not say what is to be scored, before the cohort is scanned."""
    if sum(map(bool, (options.predictions, options.subsets, options.segment))) != 1:
        hint = "Give --predictions FOLDER, or --model MODEL with --segment FOLDER or --subsets all."
        raise EmimError("What is to be evaluated?", hint=hint)
    if options.predictions:
        return
    if not options.model:
        option = "--subsets" if options.subsets else "--segment"
        raise EmimError("Nothing says which model is to segment.", option, "Give --model MODEL.")
    if options.segment:
        return
    from emim.evaluation.subsets import parse_subsets
    from emim.package.bundle import read_card

    parse_subsets(options.subsets, read_card(options.model).modalities)


def run_subsets(
    options: argparse.Namespace, found: Any, structures: Sequence[Structure], seen: Seen, events: Events
) -> int:
    """Segment, score, print the table; the exit code."""
    from emim.evaluation.by_subset import evaluate_subsets

    result = evaluate_subsets(
        options.model,
        found,
        options.subsets,
        options.output,
        structures=structures,
        untrained=options.untrained,
        device=options.device,
        quality=options.quality,
        events=events,
        overwrite=options.overwrite,
        seen=seen,
    )
    say(events, result.table())
    events.result(**result.to_dict())
    return EXIT_SOME_FAILED if result.failed else 0
