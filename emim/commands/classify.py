"""``emim classify``: the probability of each class for a case or a cohort."""

from __future__ import annotations

import argparse
from typing import Any

from emim.commands.inputs import parse_inputs
from emim.commands.shared import add_command, add_patterns, open_cohort, say, select_cases, spare_inputs
from emim.errors import EXIT_SOME_FAILED, EmimError
from emim.events import Events


def add_classify(commands: Any) -> None:
    text = "tell to which class a case, or every case of a cohort, belongs"
    p = add_command(commands, "classify", _classify, text)
    p.add_argument("--model", required=True, metavar="MODEL", help="model package, or a fine-tuning run")
    p.add_argument(
        "--input", action="append", default=[], metavar="MODALITY=FILE", help="once for each modality"
    )
    p.add_argument("--cohort", metavar="COHORT", help="classify all cases of a folder or datalist instead")
    add_patterns(p)
    p.add_argument("--output", metavar="FILE", help="write a table as CSV")
    p.add_argument("--cases", metavar="A,B", help="with --cohort: only these cases")
    p.add_argument("--split", metavar="FILE", help="with --cohort: only the test cases of this split file")
    p.add_argument("--reference", metavar="MODALITY", help="input on whose grid all are brought")
    p.add_argument("--align", action="store_true", help="first align the inputs rigidly to the reference")
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier table")


def _classify(options: argparse.Namespace, events: Events) -> int:
    from emim.inference.classify import classify

    if bool(options.input) == bool(options.cohort):
        raise EmimError("What is to be classified?", hint="Give --input MODALITY=FILE …, or --cohort.")
    spare_inputs(options)
    shared = {
        "device": options.device,
        "align": options.align,
        "reference": options.reference,
        "events": events,
        "overwrite": options.overwrite,
    }
    if not options.cohort:
        result = classify(options.model, parse_inputs(options.input), options.output, **shared)
        events.result(**result, output=options.output)
        for name, share in result["probabilities"].items():
            say(events, f"{name:30s} {share:6.1%}")
        return 0
    found = select_cases(open_cohort(options, events), options)
    results = classify(options.model, None, options.output, cohort=found, **shared)
    failed = [r["case"] for r in results if "error" in r]
    events.result(output=options.output, classified=len(results) - len(failed), failed=failed, cases=results)
    width = max(len(r["case"]) for r in results) + 2
    for r in results:
        said = "failed" if "error" in r else f"{r['class']:30s} {r['probabilities'][r['class']]:6.1%}"
        say(events, f"{r['case']:{width}s}{said}")
    return EXIT_SOME_FAILED if failed else 0
