"""From the panel's controls to the core's settings, and on to the arguments of its command line.

Settings are a dict: "preset", "device", and any dotted name of the core's ``config.json``, such as
``{"preset": "tiny", "mask.ratio": 0.6, "train.steps": 500}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

from emim.config import FinetuneConfig, PretrainConfig, override, with_preset
from EMIMLib import EmimError

# Settings that are options of the command line; all others go by --set.
OPTIONS = ("preset", "device")


def pretrainSettings(node: Any) -> dict[str, Any]:
    """Settings of pre-training from the parameter node; what the preset decides is left out."""
    settings = {
        "preset": node.preset,
        "mask.ratio": round(node.maskRatio, 4),
        "mask.position_share": round(node.positionShare, 4),
        "regulariser.weight": round(node.regulariserWeight, 4),
        "train.seed": node.seed,
    }
    chosen = {
        "mask.unit": node.maskUnit,
        "train.crop": node.crop,
        "train.steps": node.steps,
        "train.batch": node.batch,
    }
    return settings | {name: value for name, value in chosen.items() if value}


def finetuneSettings(node: Any) -> dict[str, Any]:
    """Settings of fine-tuning from the parameter node; what preset and weights decide is left out."""
    chosen = {"train.steps": node.finetuneSteps, "labelled": node.labelled}
    if node.task == "classification":
        chosen["classification.mode"] = node.classificationMode
    return {"preset": node.preset, "train.seed": node.seed} | {n: v for n, v in chosen.items() if v}


def presetValues(preset: str) -> dict[str, int]:
    """What a preset means in numbers, to be shown where the user has given none."""
    config = with_preset(PretrainConfig(), preset)
    return {
        "maskUnit": config.mask.unit,
        "crop": config.train.crop,
        "steps": config.train.steps,
        "batch": config.train.batch,
    }


def settingsProblem(settings: Mapping[str, Any], command: str = "pretrain") -> str:
    """Why the core would refuse these settings, in words; empty when nothing is known against them."""
    try:
        config = _config(settings, command)
    except EmimError as error:
        return " ".join(part for part in (error.what, error.hint) if part)
    crop, divisor = config.train.crop, config.network.divisor
    if crop % divisor:
        return _("The crop must be a multiple of {n} voxels, not {crop}.").format(n=divisor, crop=crop)
    if command == "pretrain":
        unit = config.mask.unit
        if crop % unit:
            return _("The crop ({crop} voxels) must be a multiple of the block size ({unit} voxels).").format(
                crop=crop, unit=unit
            )
    return ""


def settingArguments(settings: Mapping[str, Any]) -> list[str]:
    """The arguments for a new run with these settings."""
    arguments = []
    for name in OPTIONS:
        if settings.get(name):
            arguments += [f"--{name}", str(settings[name])]
    for name, value in settings.items():
        if name not in OPTIONS:
            arguments += ["--set", f"{name}={_text(value)}"]
    return arguments


def _config(settings: Mapping[str, Any], command: str) -> Any:
    config = PretrainConfig() if command == "pretrain" else FinetuneConfig()
    if settings.get("preset"):
        config = with_preset(config, settings["preset"])
    return override(config, {n: v for n, v in settings.items() if n not in OPTIONS})


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(v) for v in value)
    return str(value)
