"""The network of a pre-training run, as something that makes up modalities that are missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emim.config import PreprocessConfig, PretrainConfig
from emim.errors import EmimError
from emim.masking.patterns import draw_mask
from emim.run import read_config
from emim.training.source import Source, read_source

if TYPE_CHECKING:
    import torch
    from torch import nn

DRAWS = 200


@dataclass(frozen=True)
class Reconstructor:
    """A pre-training run that can reconstruct whole modalities.

    Attributes:
        config: its settings.
        source: its weights and what is to be known of them.
    """

    config: PretrainConfig
    source: Source

    @classmethod
    def read(cls, run: str | Path) -> Reconstructor:
        """The pre-training run in the folder ``run``; its network is not loaded yet.

        Raises:
            EmimError: when it is no pre-training run, has no weights yet, or reconstructs something else
                than intensities.
        """
        config: PretrainConfig = read_config(run, "pretrain", PretrainConfig)
        source = read_source(run)
        if config.objective == "contrastive":
            raise EmimError(
                "The run has learned to tell crops apart, not to reconstruct.",
                run,
                "Pre-train with objective=mim (or, for a vision transformer, mae).",
            )
        if config.normalise_targets:
            raise EmimError(
                "The run has learned patches that are standardised one by one, not intensities.",
                run,
                "Pre-train with normalise_targets=false.",
            )
        return cls(config, source)

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order of the network's channels."""
        return self.source.modalities

    @property
    def optional(self) -> tuple[str, ...]:
        """Any may be missing."""
        return self.modalities

    @property
    def preprocess(self) -> PreprocessConfig:
        return self.source.preprocess

    @property
    def side(self) -> int:
        """Side of a tile: that of the training crop, whose positions transformers have learned."""
        return self.source.crop

    def most_hidden(self) -> int:
        """How many whole modalities the masks of the run hide at once, as far as some draws tell."""
        units = (self.side // self.config.mask.unit) ** 3
        there = np.ones(len(self.modalities), bool)
        rng = np.random.default_rng(0)
        masks = (draw_mask(self.config.mask, there, units, rng) for _ in range(DRAWS))
        return max(int((mask > 0).all(axis=1).sum()) for mask in masks)

    def doubt(self, missing: int) -> tuple[str, str] | None:
        """What and hint, where the run never learned to do without ``missing`` modalities at once."""
        most = self.most_hidden()
        if most >= missing:
            return None
        kind = f"The run was trained with the mask {self.config.mask.pattern!r}, which"
        hint = (
            "Pre-train with --mask hybrid, and mask.max_dropped as large as the number that may be missing."
        )
        if most == 0:
            return f"{kind} never hides a whole modality: it has not learned to make one up.", hint
        return (
            f"{kind} never hides more than {most} of the modalities whole; here {missing} are missing.",
            hint,
        )

    def load(self, device: torch.device) -> nn.Module:
        """The network with its weights, on ``device``, ready for inference."""
        from emim.networks.build import build_pretrainer
        from emim.training.optimisation import load_weights

        network = build_pretrainer(len(self.modalities), self.config)
        load_weights(network, self.source.load_state())
        return network.to(device).eval()
