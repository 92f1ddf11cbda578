"""The classification networks: each backbone's encoder, under the names it has in pre-training."""

from __future__ import annotations

from typing import ClassVar

import torch

from emim.config import ClassifierDesign, NetworkConfig
from emim.masking.tokens import ModalityTokens
from emim.networks.classifier import Classifier
from emim.networks.residual_unet import ResidualEncoder
from emim.networks.swin import SwinEncoder
from emim.networks.token_index import TokenIndex
from emim.networks.vit import VisionTransformer, mean_over_modalities


class ResidualClassifier(Classifier):
    """The encoder of the residual U-Net; see :class:`emim.networks.classifier.Classifier`."""

    modality_axes: ClassVar[dict[str, int]] = {"encoder.conv_init.weight": 1, "tokens.value": 0}

    def __init__(
        self, modalities: int, classes: int, network: NetworkConfig, design: ClassifierDesign
    ) -> None:
        super().__init__(classes, network, design)
        self.tokens = ModalityTokens(modalities)
        self.encoder = ResidualEncoder(modalities, network.filters, network.blocks)

    def pyramid(self, x: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        return self.encoder(self.tokens(x, ~present))


class SwinClassifier(Classifier):
    """The Swin transformer; see :class:`emim.networks.classifier.Classifier`."""

    modality_axes: ClassVar[dict[str, int]] = {"encoder.patch_embed.proj.weight": 1, "tokens.value": 0}

    def __init__(
        self, modalities: int, classes: int, network: NetworkConfig, design: ClassifierDesign
    ) -> None:
        super().__init__(classes, network, design)
        self.tokens = ModalityTokens(modalities)
        self.encoder = SwinEncoder(modalities, network.filters, network.stages)

    def pyramid(self, x: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        return self.encoder(self.tokens(x, ~present))


class VitClassifier(Classifier):
    """The vision transformer; tokens of missing modalities do not enter it.

    See :class:`emim.networks.classifier.Classifier`.
    """

    modality_axes: ClassVar[dict[str, int]] = {"encoder.patch_weight": 0, "encoder.modality": 0}

    def __init__(
        self, modalities: int, classes: int, network: NetworkConfig, design: ClassifierDesign
    ) -> None:
        super().__init__(classes, network, design)
        self.encoder = VisionTransformer(modalities, network)

    def pyramid(self, x: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        visible = self.encoder.visible(x, ~present)
        index = TokenIndex.of(visible)
        tokens = self.encoder.encode_visible(x, index)[-1]
        placed = index.place(index.unpad(tokens), tokens.new_zeros(*visible.shape, tokens.shape[-1]))
        return [mean_over_modalities(placed, visible, self.encoder.grid(x))]
