"""Where fine-tuning starts: the plan, and perhaps the weights, of a run or a model package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emim.cohort.patterns import canonical
from emim.config import NetworkConfig, PreprocessConfig, PretrainConfig, Structure
from emim.errors import EmimError
from emim.package.bundle import read_package
from emim.run import load_tensors, read_config

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Source:
    """What fine-tuning needs to know of where it starts.

    Attributes:
        name: for the report.
        modalities, preprocess, network, crop: the plan; modalities by their usual names.
        structures, classes: what a model segments or tells apart; empty for pre-training.
        warning: what a user should know before relying on the weights.
        load_state: reads the weights.
    """

    name: str
    modalities: tuple[str, ...]
    preprocess: PreprocessConfig
    network: NetworkConfig
    crop: int
    load_state: Callable[[], dict[str, torch.Tensor]]
    structures: tuple[Structure, ...] = ()
    classes: tuple[str, ...] = ()
    warning: str | None = None


def read_source(path: str | Path) -> Source:
    """Read a pre-training run folder, a fine-tuning run folder, or a model package.

    Raises:
        EmimError: when ``path`` is none of these, or a run that has no weights yet.
    """
    path = Path(path)
    if not path.exists():
        raise EmimError("There is no such run or model.", path, "Give a run folder or a model package.")
    is_run = (path / "config.json").is_file()
    if is_run and not (path / "model").is_dir():
        return _pretraining(path)
    package = read_package(path / "model" if is_run else path)
    card = package.card
    return Source(
        f"model {card.name} ({path})",
        tuple(map(canonical, card.modalities)),
        card.preprocess,
        card.network,
        card.crop,
        package.load_state,
        structures=card.structures,
        classes=card.classes,
    )


def _pretraining(path: Path) -> Source:
    config: PretrainConfig = read_config(path, "pretrain", PretrainConfig)
    weights = path / "checkpoints" / "last.pt"
    if config.modalities is None or config.preprocess.spacing is None or not weights.is_file():
        raise EmimError("The run has no weights yet.", path, "Continue it with --resume.")
    checkpoint = load_tensors(weights)
    step, steps = checkpoint["step"], config.train.steps

    def load_state() -> dict[str, torch.Tensor]:
        prefix = "network."
        return {k[len(prefix) :]: v for k, v in checkpoint["model"].items() if k.startswith(prefix)}

    return Source(
        f"pre-training run {path}, step {step} of {steps}",
        tuple(map(canonical, config.modalities)),
        config.preprocess,
        config.network,
        config.train.crop,
        load_state,
        warning=f"The pre-training run is not finished: step {step} of {steps}." if step < steps else None,
    )
