"""The ways of pre-training that several studies compare, by their settings."""

from __future__ import annotations

from typing import Any

from emim.config import PretrainConfig

HYBRID = {"objective": "mim", "mask.pattern": "hybrid"}
EMIM = {**HYBRID, "regulariser.name": "barlow"}
PLAIN = {"objective": "mim", "mask.pattern": "random", "regulariser.name": "none"}
MAE = {**PLAIN, "objective": "mae"}
CONTRASTIVE = {"objective": "contrastive", "regulariser.name": "none"}


def deepest(config: PretrainConfig) -> tuple[int, ...]:
    """The coarsest level of the pyramid alone."""
    return (len(config.network.widths) - 1,)


def _swin_filters(config: PretrainConfig) -> int:
    """The network's channels, rounded up to what Swin's attention heads need."""
    return -(-config.network.filters // 16) * 16


def _swin_stages(config: PretrainConfig) -> tuple[int, ...]:
    """As many stages, up to four, as the crop holds twice or more, exactly."""
    crop = config.train.crop
    fitting = [n for n in range(1, 5) if crop % 2 ** (n + 1) == 0 and crop >= 2 ** (n + 2)]
    return (2,) * max(fitting, default=1)


def _vit_rate(config: PretrainConfig) -> float:
    """Up to the rate that taught it most in the fewest steps (Testing/benchmarks/RESULTS.md, section 9)."""
    return min(config.train.learning_rate, 3e-3)


def _swin_rate(config: PretrainConfig) -> float:
    """Swin diverges at the rates that small convolutional networks like."""
    return min(config.train.learning_rate, 1e-3)


VIT: dict[str, Any] = {"network.backbone": "vit", "train.learning_rate": _vit_rate}
SWIN: dict[str, Any] = {
    "network.backbone": "swin",
    "network.filters": _swin_filters,
    "network.stages": _swin_stages,
    "train.learning_rate": _swin_rate,
}
