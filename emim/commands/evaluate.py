"""``emim evaluate``: predictions, or a model, against what is true."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    from emim.volumes.segments import Segment


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
    p.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def _evaluate(options: argparse.Namespace, events: Events) -> int:
    from emim.evaluation.seen import cases_seen
    from emim.evaluation.segmentation import evaluate, labelled_cases, warn_of_left_out
    from emim.package.bundle import read_card
    from emim.training.structures import parse_structures, structures_of_values

    check_what_is_evaluated(options)
    spare_inputs(options)
    if options.classes:
        return _evaluate_classes(options, events)
    coding: Sequence[Segment] = ()
    if options.model:
        card = read_card(options.model)
        card.require("segmentation", options.model)
        # Values that are given are those of the references, as a scan tells them.
        coding = () if options.structure else _coding(card)
    everyone = open_cohort(options, events, coding)
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
    seen, more = None, {}
    if options.model:
        labelled = {row.id for row in found.rows if row.label}
        seen = cases_seen(options.model, everyone, labelled)
        for sentence in seen.sentences(() if options.segment else labelled):
            events.warning(sentence)
    if options.subsets:
        return run_subsets(options, found, structures, events)
    if options.segment:
        cases = [c for c in labelled_cases(found, events) if c.id not in seen.learned]
        found = only(found, [c.id for c in cases])
        more = _segment(options, found, cases, events)
    result = evaluate(
        found,
        options.segment or options.predictions,
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
    options: argparse.Namespace, found: Any, cases: Sequence[Case], events: Events
) -> dict[str, dict[str, Any]]:
    """Segment ``cases``, all that are in ``found``; their images, and why some could not be segmented."""
    from emim.evaluation.segmentation import score_files
    from emim.inference.segment import segment

    if not cases:
        raise EmimError(
            "There is no labelled case that is new to the model.",
            options.cohort,
            "Give labelled cases that neither its training nor its validation has seen.",
        )
    score_files(options.output, [c.label for c in cases], options.overwrite)  # refused before, not after
    results = segment(
        options.model,
        None,
        options.segment,
        cohort=found,
        extension=".seg.nrrd",  # which holds structures that overlap
        device=options.device,
        quality=options.quality,
        events=events,
        overwrite=options.overwrite,
        resume=not options.overwrite,
    )
    return {
        "images": {c.id: c.images for c in cases},
        "recode": {c.id: c.recode for c in cases},
        "segments": {
            r.id: [s.to_dict() for s in found.segments if s.value in (r.label_values or ())]
            for r in found.rows
        },
        "failures": {r["case"]: r["error"]["what"] for r in results if "error" in r},
    }


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


def _coding(card: Any) -> tuple[Segment, ...]:
    """The segments of the labels that a model was trained on, as far as its card tells."""
    from emim.volumes.segments import Segment

    values = {s.name: s.values[0] for s in card.structures if len(s.values) == 1}
    trained = card.training.get("segments")
    if isinstance(trained, dict):  # a package may come from anywhere
        values |= {name: value for name, value in trained.items() if isinstance(value, int)}
    return tuple(Segment(name, value) for name, value in values.items())


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
