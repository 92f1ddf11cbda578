"""The network that a model card describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emim.networks.build import build_classifier, build_segmenter
from emim.package.model import ModelCard

if TYPE_CHECKING:
    from torch import nn


def build_network(card: ModelCard) -> nn.Module:
    """The card's network, with fresh weights."""
    if card.task == "classification":
        return build_classifier(len(card.modalities), card.outputs, card.network, card.classifier)
    return build_segmenter(len(card.modalities), card.outputs, card.network)
