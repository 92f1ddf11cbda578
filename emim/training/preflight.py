"""What is refused before a run begins: settings that cannot work, a cohort that is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emim.cohort.case import Cohort
from emim.cohort.scan import Scan, scan
from emim.config import NetworkConfig, PreprocessConfig, PretrainConfig
from emim.errors import EmimError
from emim.events import Events
from emim.machine.distributed import launched_size
from emim.masking.patterns import PATTERNS


def open_cohort(cohort: str | Path | Scan | None, out: str | Path, resume: bool, events: Events) -> Scan:
    """Scan ``cohort``, or read the one a resumed run in ``out`` began with."""
    if isinstance(cohort, Scan):
        return cohort
    recorded = Path(out) / "cohort.json"
    if resume and not recorded.is_file():
        raise EmimError("There is no run to resume.", out, "Start it without --resume.")
    if cohort is None and not resume:
        raise EmimError("No cohort was given.", hint="Give the folder of the images, or a datalist.")
    return scan(cohort if cohort is not None else recorded, events=events)


def check_reference(cohort: Cohort, preprocess: PreprocessConfig) -> None:
    """Refuse a reference modality that the cohort does not have."""
    if preprocess.reference is not None and preprocess.reference not in cohort.modalities:
        raise EmimError(
            f"Setting preprocess.reference cannot be {preprocess.reference!r}.",
            hint=f"The modalities are {', '.join(cohort.modalities)}; none takes the first that a case has.",
        )


def check_pretraining(config: PretrainConfig) -> None:
    """Refuse settings that cannot work together, before any long work.

    Raises:
        EmimError: naming the setting and what it may be.
    """
    from emim.networks.build import DECODERS, OBJECTIVES
    from emim.objectives.reconstruction import LOSSES
    from emim.objectives.regulariser import PENALTIES, VIEWS

    mask, train, network, regulariser = config.mask, config.train, config.network, config.regulariser

    for setting, value, known in (
        ("mask.pattern", mask.pattern, tuple(PATTERNS)),
        ("regulariser.name", regulariser.name, (*PENALTIES, "none")),
        ("regulariser.view", regulariser.view, VIEWS),
        ("loss", config.loss, LOSSES),
        ("objective", config.objective, OBJECTIVES),
        ("decoder", config.decoder, DECODERS),
    ):
        if value not in known:
            refuse(setting, value, f"Choose one of: {', '.join(known)}.")
    if not 0 < mask.ratio < 1:
        refuse("mask.ratio", mask.ratio, "It is a share between 0 and 1.")
    if not 0 <= mask.position_share <= 1:
        refuse("mask.position_share", mask.position_share, "It is a share from 0 to 1.")
    if mask.max_dropped < 0:
        refuse("mask.max_dropped", mask.max_dropped, "It is a number of modalities.")
    check_training(config)
    _check_objective(config)
    if mask.unit < 1 or train.crop % mask.unit or train.crop // mask.unit < 2:
        refuse("mask.unit", mask.unit, f"train.crop ({train.crop}) must hold it twice or more, exactly.")
    levels = len(network.widths)
    if any(not 0 <= level < levels for level in regulariser.levels or ()):
        refuse("regulariser.levels", regulariser.levels, f"Levels are 0 to {levels - 1}.")
    if regulariser.cells < 1 or regulariser.width < 2 or not 0 <= regulariser.weight < math.inf:
        refuse("regulariser", regulariser, "cells and width are positive, weight is not negative.")
    if regulariser.levels == ():
        refuse(
            "regulariser.levels", (), "Name levels, or leave it out; to switch it off: regulariser.name=none."
        )
    if not 0 <= regulariser.warmup <= 1:
        refuse("regulariser.warmup", regulariser.warmup, "It is a share of the steps, 0 to 1.")


def _check_objective(config: PretrainConfig) -> None:
    """What the objective and the mask demand of the backbone and of the decoder."""
    vit = config.network.backbone == "vit"
    if config.objective == "mae" and not vit:
        refuse("objective", "mae", "Only tokens can be left out: network.backbone=vit, or objective=mim.")
    if config.objective == "contrastive":
        train = config.train
        for name in ("batch", "micro_batch"):
            if (getattr(train, name) or 2) < 2:
                refuse(f"train.{name}", getattr(train, name), "Contrast takes two samples or more.")
        if launched_size() == 1 and train.micro_batch and train.batch % train.micro_batch == 1:
            hint = f"One sample of {train.batch} would be left over, and contrast takes two or more."
            refuse("train.micro_batch", train.micro_batch, hint)
    if config.objective == "mae" and config.decoder == "linear":
        refuse("decoder", "linear", "What never entered the encoder takes a transformer: light or deep.")
    if vit and config.mask.unit % config.network.patch:
        refuse("mask.unit", config.mask.unit, f"A multiple of network.patch ({config.network.patch}).")


def check_network(network: NetworkConfig) -> None:
    """Refuse sizes that the backbone cannot have.

    Raises:
        EmimError: naming the setting and what it may be.
    """
    from emim.networks.build import BACKBONES

    if network.backbone not in BACKBONES:
        refuse("network.backbone", network.backbone, f"Choose one of: {', '.join(BACKBONES)}.")
    if network.backbone == "vit":
        patch, width, heads = network.patch, network.width, network.heads
        if patch < 4 or patch & (patch - 1):
            refuse("network.patch", patch, "A power of two, at least 4.")
        if heads < 1 or width < 6 * heads or width % heads:
            refuse("network.width", width, f"A multiple of network.heads ({heads}), six times it or more.")
        if network.depth < patch.bit_length() - 1:
            least = patch.bit_length() - 1
            refuse("network.depth", network.depth, f"At least {least} blocks, one for each level to segment.")
        return
    name, least = ("stages", 1) if network.backbone == "swin" else ("blocks", 3)
    counts = getattr(network, name)
    if len(counts) < least or min(counts) < 1:
        refuse(f"network.{name}", counts, f"At least {least} levels of at least one block each.")
    if network.filters < 1:
        refuse("network.filters", network.filters, "It is a positive number.")
    if network.backbone == "swin" and network.filters % 16:
        refuse("network.filters", network.filters, "A multiple of 16, the channels of an attention head.")


def check_training(config: Any) -> None:
    """The rules that pre-training and fine-tuning share; see :func:`check_pretraining`."""
    from emim.machine.device import choose_device

    train, network = config.train, config.network
    check_network(network)
    for name in ("steps", "batch", "crop"):
        if getattr(train, name) < 1:
            refuse(f"train.{name}", getattr(train, name), "It is a positive number.")
    if train.validate_every is not None and train.validate_every < 1:
        refuse("train.validate_every", train.validate_every, "It is a positive number of steps.")
    for name in ("warmup", "validation_share"):
        if not 0 <= getattr(train, name) < 1:
            refuse(f"train.{name}", getattr(train, name), "It is a share, from 0 to below 1.")
    for name in ("weight_decay", "seed", "checkpoint_every", "workers"):
        if not 0 <= (getattr(train, name) or 0) < math.inf:
            refuse(f"train.{name}", getattr(train, name), "It is not negative.")
    if not 0 < config.preprocess.clip < math.inf:
        refuse("preprocess.clip", config.preprocess.clip, "It is positive.")
    for name in ("learning_rate", "grad_clip"):
        if not 0 < getattr(train, name) < math.inf:
            refuse(f"train.{name}", getattr(train, name), "It is positive.")
    if train.crop % network.divisor or train.crop // network.divisor < 2:
        refuse("train.crop", train.crop, f"A multiple of {network.divisor}, at least {2 * network.divisor}.")
    if not all(0.05 <= s <= 50 for s in config.preprocess.spacing or ()):
        refuse("preprocess.spacing", config.preprocess.spacing, "Three numbers in mm, from 0.05 to 50.")
    if len(set(config.modalities or ())) < len(config.modalities or ()):
        refuse("modalities", config.modalities, "Name each once.")
    choose_device(train.device)


def refuse(setting: str, value: Any, rule: str) -> None:
    """Raise the error of a setting that is out of bounds."""
    raise EmimError(f"Setting {setting} cannot be {value!r}.", hint=rule)


def refuse_inside(out: str | Path, overwrite: bool, needed: Iterable[str | Path | None]) -> None:
    """Refuse to overwrite a run folder that is, or holds, what the new run needs."""
    folder = Path(out).resolve()
    for path in needed:
        if not overwrite or path is None:
            continue
        there = Path(path).resolve()
        if any(_same_folder(part, folder) for part in (there, *there.parents)):
            raise EmimError(
                "The run folder to be overwritten holds what the new run needs.",
                there,
                "Choose another --out.",
            )


def _same_folder(a: Path, b: Path) -> bool:
    """Whether they are one; where case does not count, a folder has several names."""
    return a == b or (a.exists() and b.exists() and a.samefile(b))
