"""Where fine-tuning starts: the plan, and perhaps the weights, of a run or a model package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emim.config import NetworkConfig, PreprocessConfig, PretrainConfig
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
        modalities, preprocess, network, crop: the plan.
        load_state: reads the weights.
    """

    name: str
    modalities: tuple[str, ...]
    preprocess: PreprocessConfig
    network: NetworkConfig
    crop: int
    load_state: Callable[[], dict[str, torch.Tensor]]


def read_source(path: str | Path) -> Source:
    """Read a pre-training run folder, a fine-tuning run folder, or a model package.

    Raises:
        EmimError: when ``path`` is none of these, or a run that has no weights yet.
    """
    path = Path(path)
    if not path.exists():
        raise EmimError("There is no such run or model.", path, "Give a run folder or a model package.")
    if (path / "config.json").is_file() and not (path / "model").is_dir():
        return _pretraining(path)
    package = read_package(path / "model" if (path / "model").is_dir() else path)
    card = package.card
    return Source(
        f"model {card.name} ({path})",
        card.modalities,
        card.preprocess,
        card.network,
        card.crop,
        package.load_state,
    )


def _pretraining(path: Path) -> Source:
    config: PretrainConfig = read_config(path, "pretrain", PretrainConfig)
    if config.modalities is None or config.preprocess.spacing is None:
        raise EmimError("The run stopped before it began to train.", path, "Continue it with --resume.")

    def load_state() -> dict[str, torch.Tensor]:
        checkpoint = load_tensors(path / "checkpoints" / "last.pt")
        prefix = "network."
        return {k[len(prefix) :]: v for k, v in checkpoint["model"].items() if k.startswith(prefix)}

    return Source(
        f"pre-training run {path}",
        config.modalities,
        config.preprocess,
        config.network,
        config.train.crop,
        load_state,
    )
