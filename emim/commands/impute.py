"""``emim impute``: a missing modality made up from the others."""

from __future__ import annotations

import argparse
from typing import Any

from emim.commands.inputs import parse_inputs
from emim.commands.shared import add_command, say
from emim.events import Events


def add_impute(commands: Any) -> None:
    p = add_command(
        commands, "impute", _impute, "make up a missing modality from the others, with a pre-training run"
    )
    p.add_argument("--run", required=True, metavar="RUN", help="pre-training run", dest="run_folder")
    p.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="MODALITY=FILE",
        help="once for each modality that there is",
    )
    p.add_argument("--modality", required=True, metavar="NAME", help="the one to make up")
    p.add_argument(
        "--output", required=True, metavar="FILE", help="volume of z-scores: .nii.gz, .nii, .nrrd or .mha"
    )
    p.add_argument("--truth", metavar="FILE", help="the true image: says how near the made-up one comes")
    p.add_argument("--like", metavar="FILE", help="give the volume the mean and deviation of this image")
    p.add_argument(
        "--reference",
        metavar="MODALITY",
        help="input whose grid the volume has; default: the model's, else the first",
    )
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier volume")


def _impute(options: argparse.Namespace, events: Events) -> None:
    from emim.imputation.impute import impute

    result = impute(
        options.run_folder,
        parse_inputs(options.input),
        options.modality,
        options.output,
        truth=options.truth,
        like=options.like,
        device=options.device,
        reference=options.reference,
        events=events,
        overwrite=options.overwrite,
    )
    events.result(**result)
    say(events, f"{result['modality']} from {', '.join(result['inputs'])}: {result['output']}")
    if near := result["similarity"]:
        scores = f"PSNR {near['psnr']:.2f} dB, SSIM {near['ssim']:.3f}, mean squared error {near['mse']:.3f}"
        say(events, f"Against the true image, in the foreground, in z-scores: {scores}")
