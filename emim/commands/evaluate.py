"""``emim evaluate``: predictions, or a model, against what is true."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.commands.shared import (
    add_cohort,
    add_command,
    only,
    open_cohort,
    say,
    select_cases,
    spare_inputs,
)
from emim.commands.subsets import add_subsets, check_what_is_evaluated, run_subsets
from emim.errors import EXIT_SOME_FAILED, EmimError
from emim.events import Events

if TYPE_CHECKING:
    from emim.cohort.case import Case


def add_evaluate(commands: Any) -> None:
    p = add_command(
        commands, "evaluate", _evaluate, "score segmentations, classes, or a model, by what is true"
    )
    add_cohort(p)
    p.add_argument(
        "--predictions",
        metavar="PATH",
        help="folder of label maps named by case id; with --classes: the table of emim classify",
    )
    p.add_argument(
        "--classes", metavar="FILE", help="compare classes with these: see emim finetune --classes"
    )
    p.add_argument("--model", metavar="MODEL", help="the model they come from, for its structures")
    add_subsets(p)
    p.add_argument(
        "--segment",
        metavar="FOLDER",
        help="instead of --predictions: segment with --model into this folder, or go on there; only labelled "
        "cases that the training of the model has not seen",
    )
    p.add_argument(
        "--structure",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="label values of each structure: with --model those in the references, where they differ from "
        "the model's; without it those in references and predictions alike",
    )
    p.add_argument(
        "--output",
        metavar="FILE",
        help="write the numbers as JSON; with --subsets to NAME.unfinished.json until all cases are done",
    )
    p.add_argument("--cases", metavar="A,B", help="only these cases")
    p.add_argument("--split", metavar="FILE", help="only the test cases of this split file")
    p.add_argument("--overwrite", action="store_true", help="replace earlier scores; what is segmented stays")


def _evaluate(options: argparse.Namespace, events: Events) -> int:
    from emim.cohort.coding import warn_of_recoding
    from emim.evaluation.model_coding import check_names, model_coding
    from emim.evaluation.seen import cases_seen
    from emim.evaluation.segmentation import evaluate, labelled_cases, warn_of_left_out
    from emim.package.bundle import read_card
    from emim.training.structures import parse_structures, structures_of_values

    check_what_is_evaluated(options)
    spare_inputs(options)
    if options.classes:
        return _evaluate_classes(options, events)
    coding = None
    if options.model:
        card = read_card(options.model)
        card.require("segmentation", options.model)
        # Values that are given are those of the references, as a scan tells them.
        coding = None if options.structure else model_coding(card, options.model)
    everyone = open_cohort(options, events, coding or ())
    found = select_cases(everyone, options)
    if options.split or options.cases:
        warn_of_left_out([row.id for row in found.rows if not row.label], "label", events)
    if options.structure and options.model:
        structures = _recoded(card.structures, parse_structures(options.structure)[0])
    elif options.structure:
        structures, _ = parse_structures(options.structure)
    elif options.model:
        structures = card.structures
    else:
        values = {v for row in found.rows for v in row.label_values or ()}
        structures, _ = structures_of_values(values, found.segments)
    if not options.model:
        warn_of_recoding(found, events, "Predictions other than .seg.nrrd must have these values.")
    seen, predictions, more = None, options.predictions, {}
    if options.model:
        labelled = {row.id for row in found.rows if row.label}
        seen = cases_seen(options.model, everyone, labelled)
        for sentence in seen.sentences(() if options.segment else labelled):
            events.warning(sentence)
    if coding is not None:
        learned = seen.learned if options.segment else ()
        check_names([row for row in found.rows if row.id not in learned], coding, structures, events)
    if options.subsets:
        return run_subsets(options, found, structures, seen, events)
    if options.segment:
        cases = [c for c in labelled_cases(found, events) if c.id not in seen.learned]
        found = only(found, [c.id for c in cases])
        labels = [row.label for row in everyone.rows if row.label]
        predictions, more = _segment(options, found, cases, labels, events)
    result = evaluate(
        found,
        predictions,
        structures,
        options.output,
        events,
        overwrite=options.overwrite,
        same_values=not options.model,
        seen=seen,
    )
    say(events, result.table())
    events.result(**result.to_dict(), **more)
    return EXIT_SOME_FAILED if result.failed else 0


def _segment(
    options: argparse.Namespace, found: Any, cases: Sequence[Case], labels: Sequence[str], events: Events
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Segment ``cases``, all that are in ``found``, unless it is done; ``labels`` are those of the cohort.

    Returns:
        Case id to segmentation; and the images of the cases, and why some could not be segmented.
    """
    from emim.evaluation.segmentation import score_files
    from emim.inference.outputs import check_writable
    from emim.inference.segment import segment

    if not cases:
        raise EmimError(
            "There is no labelled case that is new to the model.",
            options.cohort,
            "Give labelled cases that neither its training nor its validation has seen.",
        )
    score_files(options.output, labels, options.overwrite)  # refused before, not after
    ending = ".seg.nrrd"  # which holds structures that overlap
    # A label is neither replaced nor taken for a result.
    check_writable([Path(options.segment) / f"{c.id}{ending}" for c in cases], labels, overwrite=True)
    _refuse_changed(options.segment, cases)
    results = segment(
        options.model,
        None,
        options.segment,
        cohort=found,
        extension=ending,
        device=options.device,
        quality=options.quality,
        events=events,
        resume=True,
    )
    _refuse_changed(options.segment, cases)
    return {r["case"]: r["output"] for r in results if "error" not in r}, {
        "images": {c.id: c.images for c in cases},
        "recode": {c.id: c.recode for c in cases},
        "segments": {
            r.id: [s.to_dict() for s in found.segments if s.value in (r.label_values or ())]
            for r in found.rows
        },
        "failures": {r["case"]: r["error"]["what"] for r in results if "error" in r},
    }


def _refuse_changed(folder: str, cases: Sequence[Case]) -> None:
    """Refuse to score what somebody has corrected as the model's work."""
    from emim.inference.done_cases import changed_results

    if changed := changed_results(Path(folder), {c.id for c in cases}):
        raise EmimError(
            "Segmentations have changed since the model made them, so that they do not tell how good it is: "
            f"{', '.join(file.name for file in changed)}.",
            folder,
            "Give another folder, or move these files away to have their cases segmented anew.",
        )


def _evaluate_classes(options: argparse.Namespace, events: Events) -> int:
    from emim.cohort.case import Cohort
    from emim.cohort.classes import read_classes
    from emim.evaluation.classification import evaluate_classes, scores_table
    from emim.evaluation.segmentation import cases_to_score, warn_of_left_out

    if options.structure or options.model or options.subsets or options.segment:
        hint = "Leave --structure, --model, --subsets and --segment out."
        raise EmimError("Classes have no structures.", hint=hint)
    found = open_cohort(options, events)
    everyone = Cohort(found.modalities, tuple(cases_to_score(found)))
    truth = read_classes(options.classes, everyone)
    cases = Cohort(found.modalities, tuple(cases_to_score(select_cases(found, options))))
    warn_of_left_out([c.id for c in cases.cases if c.id not in truth], "class", events)
    predictions, output = options.predictions, options.output
    result, data = evaluate_classes(predictions, truth, cases, output, options.overwrite)
    say(events, scores_table(data))
    events.result(**data)
    return EXIT_SOME_FAILED if result.failed else 0


def _recoded(structures: Sequence[Any], given: Sequence[Any]) -> tuple[Any, ...]:
    """The structures of a model with the label values that the references use for them."""
    import dataclasses

    from emim.volumes.segments import same_name

    values = {same_name(s.name): s.values for s in given}
    if set(values) != {same_name(s.name) for s in structures}:
        told, names = (", ".join(s.name for s in some) for some in (given, structures))
        raise EmimError(
            f"--structure names {told}; the model has {names}.",
            hint="With --model, give the reference's label values of every structure of the model.",
        )
    return tuple(dataclasses.replace(s, values=values[same_name(s.name)]) for s in structures)
