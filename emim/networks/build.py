"""Networks by the name of their backbone.

A pre-training network maps a crop (B, M, Z, Y, X) and what is hidden of it to a reconstruction and a feature
pyramid; ``encode`` gives the pyramid alone (see :class:`emim.networks.pretrainer.MaskedAutoencoder`). A
segmentation network maps a crop and the modalities present to logits (see
:class:`emim.networks.segmenter.Segmenter`). To add a backbone, write both and name them here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from emim.config import NetworkConfig, PretrainConfig
from emim.errors import EmimError

if TYPE_CHECKING:
    from torch import nn


class Backbone(NamedTuple):
    """Where the two networks are: ``module:class``."""

    pretrainer: str
    segmenter: str


BACKBONES = {
    "resunet": Backbone("emim.networks.pretrainer:MaskedAutoencoder", "emim.networks.segmenter:Segmenter"),
    "vit": Backbone("emim.networks.vit_pretrainer:VitPretrainer", "emim.networks.vit_segmenter:VitSegmenter"),
    "swin": Backbone(
        "emim.networks.swin_pretrainer:SwinPretrainer", "emim.networks.swin_segmenter:SwinSegmenter"
    ),
}
OBJECTIVES = ("mim", "mae", "contrastive")
DECODERS = ("linear", "light", "deep")


def build_pretrainer(modalities: int, config: PretrainConfig) -> nn.Module:
    """The network that pre-training trains, with fresh weights."""
    return _find(config.network).pretrainer(modalities, config)


def build_encoder(modalities: int, config: PretrainConfig) -> nn.Module:
    """The network that pre-training trains without its decoder: what can ``encode``, and nothing else."""
    # Of a vision transformer that which encodes without tokens that stand for what is not there.
    objective = "mae" if config.network.backbone == "vit" else "mim"
    network = build_pretrainer(modalities, dataclasses.replace(config, objective=objective, decoder="light"))
    for name, _ in list(network.named_children()):
        if name not in ("tokens", "encoder"):
            delattr(network, name)
    return network


def build_segmenter(modalities: int, outputs: int, config: NetworkConfig) -> nn.Module:
    """The network that fine-tuning trains and inference applies, with fresh weights."""
    return _find(config).segmenter(modalities, outputs, config)


class _Classes(NamedTuple):
    pretrainer: Callable[..., nn.Module]
    segmenter: Callable[..., nn.Module]


def _find(config: NetworkConfig) -> _Classes:
    """Only the module of the backbone at hand is imported."""
    if config.backbone not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise EmimError(f"There is no backbone {config.backbone!r}.", hint=f"Choose one of: {known}.")
    names = (name.split(":") for name in BACKBONES[config.backbone])
    return _Classes(*(getattr(import_module(module), name) for module, name in names))
