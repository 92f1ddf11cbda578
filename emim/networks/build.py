"""Networks by the name of their backbone.

A pre-training network maps a crop (B, M, Z, Y, X) and what is hidden of it to a reconstruction and a feature
pyramid; ``encode`` gives the pyramid alone (see :class:`emim.networks.pretrainer.MaskedAutoencoder`). A
segmentation network maps a crop and the modalities present to logits (see
:class:`emim.networks.segmenter.Segmenter`), a classification network to one logit a class (see
:class:`emim.networks.classifier.Classifier`). To add a backbone, write the three and name them here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from emim.config import ClassifierDesign, NetworkConfig, PretrainConfig
from emim.errors import EmimError

if TYPE_CHECKING:
    from torch import nn


class Backbone(NamedTuple):
    """Where the networks are: ``module:class``."""

    pretrainer: str
    segmenter: str
    classifier: str


BACKBONES = {
    "resunet": Backbone(
        "emim.networks.pretrainer:MaskedAutoencoder",
        "emim.networks.segmenter:Segmenter",
        "emim.networks.backbone_classifiers:ResidualClassifier",
    ),
    "vit": Backbone(
        "emim.networks.vit_pretrainer:VitPretrainer",
        "emim.networks.vit_segmenter:VitSegmenter",
        "emim.networks.backbone_classifiers:VitClassifier",
    ),
    "swin": Backbone(
        "emim.networks.swin_pretrainer:SwinPretrainer",
        "emim.networks.swin_segmenter:SwinSegmenter",
        "emim.networks.backbone_classifiers:SwinClassifier",
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


def build_classifier(
    modalities: int, classes: int, config: NetworkConfig, design: ClassifierDesign
) -> nn.Module:
    """The network that tells cases apart, with fresh weights."""
    return _find(config).classifier(modalities, classes, config, design)


class _Classes(NamedTuple):
    pretrainer: Callable[..., nn.Module]
    segmenter: Callable[..., nn.Module]
    classifier: Callable[..., nn.Module]


def _find(config: NetworkConfig) -> _Classes:
    """Only the module of the backbone at hand is imported."""
    if config.backbone not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise EmimError(f"There is no backbone {config.backbone!r}.", hint=f"Choose one of: {known}.")
    names = (name.split(":") for name in BACKBONES[config.backbone])
    return _Classes(*(getattr(import_module(module), name) for module, name in names))
