"""``emim pretrain`` and ``emim finetune``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emim.commands.shared import add_cohort, add_command, open_cohort, say
from emim.config import PRESETS, FinetuneConfig, PretrainConfig, override, with_preset
from emim.errors import EmimError
from emim.events import Events
from emim.machine.distributed import on_first_rank, size

if TYPE_CHECKING:
    from emim.training.estimate import Estimate


def add_pretrain(commands: Any) -> None:
    p = add_command(commands, "pretrain", _pretrain, "pre-train on unlabelled cases (E-MIM)", on_ranks=True)
    add_cohort(p, optional=True)
    _training(p)
    p.add_argument(
        "--mask",
        metavar="PATTERN",
        help="hybrid, random, modal, position, patch, m3ae (made for --mask-ratio 0.875), dirichlet or none",
    )
    p.add_argument("--mask-ratio", metavar="R", help="share that is hidden, such as 0.75")
    p.add_argument("--regulariser", metavar="NAME", help="barlow, vicreg, uniformity or none")


def _pretrain(options: argparse.Namespace, events: Events) -> None:
    from emim.training.preflight import check_pretraining
    from emim.training.pretrain import pretrain

    where = _where(options)
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
    found = open_cohort(options, events)
    if options.dry_run:
        from emim.training.estimate import estimate_pretraining

        _tell(events, options, estimate_pretraining(found, config, **where, events=events))
        return
    run = pretrain(found, config=config, **where, resume=options.resume, events=events)
    say(events, f"Run:    {run}\nReport: {run / 'report' / 'report.html'}")


def add_finetune(commands: Any) -> None:
    p = add_command(
        commands,
        "finetune",
        _finetune,
        "train a segmentation or classification model from few labelled cases",
        on_ranks=True,
    )
    add_cohort(p, optional=True)
    p.add_argument(
        "--init", metavar="RUN", help="pre-training run or model to start from; none: from scratch"
    )
    p.add_argument(
        "--plan",
        metavar="RUN",
        help="take network, preprocessing and modalities from this run, but no weights (for a baseline)",
    )
    _training(p)
    p.add_argument("--task", metavar="NAME", help="segmentation or classification; default: by --classes")
    p.add_argument(
        "--classes",
        metavar="FILE",
        help="for classification: CSV with columns case (or subject) and class, or JSON",
    )
    p.add_argument(
        "--mode",
        metavar="NAME",
        help="for classification: full, linear (frozen encoder) or knn (nearest neighbours, no training)",
    )
    p.add_argument(
        "--structure",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a structure and its label values, such as ET=3, or overlapping regions such as WT=1,2,3",
    )
    p.add_argument(
        "--structures",
        metavar="FILE",
        help='instead: JSON list of {"name", "values", "color": [r, g, b], "terminology"}',
    )
    p.add_argument("--labelled", metavar="N", help="train on only N of the labelled cases, drawn by the seed")
    p.add_argument("--name", metavar="TEXT", help="of the model; default: the run folder's name")
    p.add_argument("--description", metavar="TEXT", help="of the model, one sentence")
    p.add_argument("--intended-use", metavar="TEXT", help="what the model may be used for")
    p.add_argument("--licence", metavar="TEXT", help="of the model, a name or the whole text")


def _finetune(options: argparse.Namespace, events: Events) -> None:
    import dataclasses

    from emim.training.finetune import finetune, with_plan
    from emim.training.structures import parse_structures, read_structures

    where = _where(options)
    if options.init is None and not options.resume:
        raise EmimError("Nothing says where to start.", hint="Give --init RUN, or --init none for scratch.")
    init = None if options.init in (None, "none") else options.init
    config = FinetuneConfig()
    if options.structure and options.structures:
        raise EmimError("Structures are given twice.", hint="Give either --structure or --structures.")
    if options.structure or options.structures:
        structures, overlapping = (
            parse_structures(options.structure) if options.structure else read_structures(options.structures)
        )
        config = dataclasses.replace(config, structures=structures, overlapping=overlapping)
    plan = options.plan or init
    config = _settings(
        config,
        options,
        {
            "task": options.task or ("classification" if options.classes else None),
            "classification.labels": options.classes,
            "classification.mode": options.mode,
            "labelled": options.labelled,
            "card.name": options.name,
            "card.description": options.description,
            "card.intended_use": options.intended_use,
            "card.licence": options.licence,
        },
        then=(lambda c: on_first_rank(lambda: with_plan(c, plan))) if plan and not options.resume else None,
    )
    found = open_cohort(options, events)
    if options.dry_run:
        from emim.training.estimate import estimate_finetuning

        _tell(events, options, estimate_finetuning(found, init, config, **where, events=events))
        return
    model = finetune(found, init=init, config=config, **where, resume=options.resume, events=events)
    say(events, f"Model:  {model}\nReport: {model.parent / 'report' / 'report.html'}")


def _training(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", metavar="RUN", help="the run folder, new")
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and estimate time, memory and disk by trying a few steps; --out is optional",
    )
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


def _where(options: argparse.Namespace) -> dict[str, Any]:
    """Which folders to use, as the functions take them."""
    if options.dry_run and size() > 1:
        raise EmimError("A dry run tries one process only.", "--dry-run", "Start it without torchrun.")
    if options.out is None and not options.dry_run:
        raise EmimError("Nothing says where the run is to be.", hint="Give --out RUN, a new folder.")
    return {"out": options.out, "overwrite": options.overwrite, "cache": options.cache}


def _tell(events: Events, options: argparse.Namespace, estimate: Estimate) -> None:
    say(events, estimate.text())
    events.result(preset=_preset(options), **estimate.to_dict())


def _preset(options: argparse.Namespace) -> str:
    if options.preset:
        return options.preset
    from emim.machine.device import open_device

    return "tiny" if open_device(options.device or "auto").type == "cpu" else "base"


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
    config = with_preset(config, _preset(options))
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
             "regulariser", "init", "plan", "structure", "structures", "labelled", "name", "description",
             "intended_use", "licence", "task", "classes", "mode", "dry_run")  # fmt: skip
    for name in names:
        if getattr(options, name, None):
            option = "--set" if name == "settings" else "--" + name.replace("_", "-")
            raise EmimError(
                f"{option} cannot be given with --resume: the run goes on with its own settings.",
                options.out,
                "Leave it out, or start another run. (--device may be given.)",
            )
