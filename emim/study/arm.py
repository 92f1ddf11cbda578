"""What a study is made of: arms, declared as data, and how their results are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emim.config import PretrainConfig
from emim.errors import EmimError

if TYPE_CHECKING:
    from emim.study.report import Report
    from emim.study.results import Results

# Values may be functions of the study's settings, for what depends on the size of the network or crop.
Settings = Mapping[str, Any | Callable[[PretrainConfig], Any]]


@dataclass(frozen=True)
class Arm:
    """One of the things a study compares.

    Attributes:
        name: short, for file names and tables.
        text: what it is, in a phrase.
        pretraining: its settings of pre-training; None: its networks start from scratch.
        finetuning: its settings of fine-tuning.
        both: settings of both, such as the network's; where a kind of run lacks one, it is left out.
        control: the arm it is compared with; None: it is a control itself.
        pretrained: name of its pre-training where several arms share one, with the same settings.
    """

    name: str
    text: str
    pretraining: Settings | None = field(default_factory=dict)
    finetuning: Settings = field(default_factory=dict)
    both: Settings = field(default_factory=dict)
    control: str | None = None
    pretrained: str | None = None


@dataclass(frozen=True)
class Study:
    """A question, and how it is answered.

    Attributes:
        name: on the command line.
        question: what it asks, one sentence.
        arms: what is compared.
        report: makes tables, figures and verdict of what is there, finished or not.
        finetunes: whether the arms are fine-tuned, on labelled cases, and tested.
        fractions: shares of the labelled training cases to fine-tune on.
        subsets: whether each model is also tested on all subsets of its modalities.
        classifies: whether the models tell cases apart instead of segmenting them.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    report: Callable[[Results], Report]
    finetunes: bool = True
    fractions: tuple[float, ...] = (1.0,)
    subsets: bool = False
    classifies: bool = False

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        known = ", ".join(a.name for a in self.arms)
        raise EmimError(f"The study {self.name} has no arm {name!r}.", hint=f"Its arms are: {known}.")
