"""What a model package says about itself: the manifest, without the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emim.config import NetworkConfig, PreprocessConfig, Structure


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to apply a model and to tell a user what it is.

    Attributes:
        name, description, intended_use, licence: for people.
        task: "segmentation".
        modalities: names, in the order of the network's input channels.
        optional: modalities the model was trained to do without (all but one may be missing).
        patterns: modality name to the file and series name patterns it is recognised by.
        structures: what it segments.
        overlapping: structures overlap (sigmoid outputs, one per structure); else softmax outputs
            with the background first.
        preprocess: with a spacing that is never None.
        network: size of the network.
        crop: side of the training crop, the natural tile at inference.
        training: summary: cases, steps, validation Dice, initialisation, versions.
    """

    name: str
    modalities: tuple[str, ...]
    structures: tuple[Structure, ...]
    overlapping: bool
    preprocess: PreprocessConfig
    network: NetworkConfig
    crop: int
    optional: tuple[str, ...] = ()
    patterns: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    task: str = "segmentation"
    description: str = ""
    intended_use: str = "Research. Not a medical device; every result must be checked by a physician."
    licence: str = "unspecified"

    @property
    def outputs(self) -> int:
        """Output channels of the network."""
        return len(self.structures) + (0 if self.overlapping else 1)
