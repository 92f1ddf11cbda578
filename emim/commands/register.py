"""``emim register``: where the images of one examination belong."""

from __future__ import annotations

import argparse
from typing import Any

from emim.commands.inputs import parse_inputs
from emim.commands.shared import add_command, say
from emim.events import Events


def add_register(commands: Any) -> None:
    p = add_command(
        commands, "register", _register, "find the rigid motion of images against one of their examination"
    )
    p.add_argument("--fixed", required=True, metavar="MODALITY=FILE", help="the image that stays")
    p.add_argument(
        "--moving",
        action="append",
        required=True,
        metavar="MODALITY=FILE",
        help="an image to be aligned with it; once for each",
    )
    p.add_argument(
        "--output", metavar="FOLDER", help="write each motion there, as MODALITY.tfm (ITK, Slicer)"
    )
    p.add_argument("--overwrite", action="store_true", help="replace earlier files")


def _register(options: argparse.Namespace, events: Events) -> None:
    from emim.registration.register import plan_transforms, register, write_transform

    files = parse_inputs([options.fixed, *options.moving])
    (fixed, path), *others = files.items()
    moving = dict(others)
    transforms = {}
    if options.output:
        transforms = plan_transforms(options.output, moving, options.overwrite)
    alignments = register(path, moving, events)
    for name, file in transforms.items():
        write_transform(alignments[name], file)
    if transforms:
        say(events, f"Transforms: {options.output}")
    events.result(
        fixed=fixed, alignments={n: a.to_dict() for n, a in alignments.items()}, transforms=transforms
    )
