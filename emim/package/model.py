"""What a model package says about itself: the manifest, without the weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from emim.config import ClassifierDesign, NetworkConfig, PreprocessConfig, Structure
from emim.errors import EmimError
from emim.volumes.segments import same_name


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to apply a model and to tell a user what it is.

    Attributes:
        name, description, intended_use, licence: for people.
        task: "segmentation" or "classification".
        modalities: names, in the order of the network's input channels.
        optional: modalities the model was trained to do without (all but one may be missing).
        patterns: modality name to the file and series name patterns it is recognised by.
        structures: what it segments; none for classification.
        overlapping: structures overlap (sigmoid outputs, one per structure); else softmax outputs
            with the background first.
        preprocess: with a spacing that is never None.
        network: size of the network.
        crop: side of the training crop, the tile at inference.
        training: summary: cases, steps, validation Dice or loss, initialisation, versions, date.
        classes: of classification: their names, in the order of the network's outputs.
        classifier: of classification: what sits on the encoder.
        mirrored: it was trained on mirror images too, left and right exchanged.
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
    classes: tuple[str, ...] = ()
    classifier: ClassifierDesign = field(default_factory=ClassifierDesign)
    mirrored: bool = False

    @property
    def outputs(self) -> int:
        """Output channels of the network."""
        if self.task == "classification":
            return len(self.classes)
        return len(self.structures) + (0 if self.overlapping else 1)

    def check(self, where: str | None = None) -> None:
        """Refuse a card that contradicts itself.

        Raises:
            EmimError: naming the first contradiction found; ``where`` is the file it came from.
        """
        if (what := self.contradiction()) is not None:
            raise EmimError(
                f"The model description is wrong: {what}.",
                where,
                "The package was not written properly; get it again from its author.",
            )

    def contradiction(self) -> str | None:
        """The first thing in which the card contradicts itself, or None."""
        return next((what for wrong, what in self._contradictions() if wrong), None)

    def require(self, task: str, where: object = None) -> None:
        """Refuse a model that was made for something else than ``task``.

        Raises:
            EmimError: saying what it does and with which command.
        """
        if self.task != task:
            does, command = {
                "segmentation": ("segments structures", "emim segment"),
                "classification": ("tells cases apart", "emim classify"),
            }[self.task]
            raise EmimError(
                f"The model {self.name!r} {does}; it is no model for {task}.", where, f"Use `{command}`."
            )

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        structures, spacing, reference = self.structures, self.preprocess.spacing, self.preprocess.reference
        names = [s.name for s in structures]
        outputs = [s.output for s in structures]
        classifies = self.task == "classification"
        yield self.task not in ("segmentation", "classification"), f"the task {self.task!r} is not known"
        yield not self.name.strip(), "it has no name"
        yield not self.modalities, "it lists no modalities"
        yield _repeats(self.modalities), "a modality is listed twice"
        yield not set(self.optional) <= set(self.modalities), "an optional modality is none of its modalities"
        yield not structures and not classifies, "it lists no structures"
        yield bool(structures) and classifies, "it classifies but lists structures"
        yield len(self.classes) < 2 and classifies, "it lists fewer than two classes"
        yield bool(self.classes) and not classifies, "it segments but lists classes"
        yield _repeats(self.classes), "two classes have the same name"
        yield not all(c.strip() for c in self.classes), "a class has no name"
        yield self.classifier.pooling not in ("attention", "average"), "its pooling is not known"
        yield min(self.classifier.bank, self.classifier.neighbours) < 0, "its classifier has no size"
        yield _repeats(map(same_name, names)), "two structures have the same name"
        yield not all(n.strip() for n in names), "a structure has no name"
        yield len(set(outputs)) < len(outputs), "two structures have the same output value"
        yield not all(1 <= v <= 32767 for v in outputs), "an output value is not within 1 to 32767"
        yield not all(s.values for s in structures), "a structure has no label values"
        yield not all(0 <= c <= 255 for s in structures for c in s.color), "a color is not within 0 to 255"
        yield spacing is None, "it has no spacing"
        yield not all(math.isfinite(v) and v > 0 for v in spacing or ()), "its spacing is not positive"
        yield reference is not None and reference not in self.modalities, "its reference is no modality"
        yield len(self.network.blocks) < 2 or self.network.filters < 1, "the network has no size"
        yield self.crop < 1 or self.crop % self.network.divisor > 0, "the crop does not fit the network"
        for first, second in itertools.combinations(structures, 2):
            pair = f"{first.name!r} and {second.name!r}"
            a, b = set(first.values), set(second.values)
            yield not self.overlapping and bool(a & b), f"{pair} exclude each other but share label values"
            # Painted in this order, the later one would hide the earlier one completely.
            yield a < b, f"{pair} are in the wrong order, the larger must come first"


def _repeats(names: Iterable[str]) -> bool:
    folded = [n.casefold() for n in names]
    return len(set(folded)) < len(folded)
