"""What is to be segmented, and how: decided before anything long begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emim.inference.inputs import choose_reference, match_inputs
from emim.inference.outputs import Outputs, plan_outputs
from emim.inference.quality import Effort
from emim.package.model import ModelCard


@dataclass(frozen=True)
class Options:
    """What :func:`emim.inference.segment.segment` was asked for, the same for every case."""

    effort: Effort
    probabilities: bool
    overlay: bool
    reference: str | None
    align: bool
    overwrite: bool
    should_stop: Callable[[], bool] | None
    resume: bool = False


@dataclass(frozen=True)
class Job:
    """One case: its files by modality, the modality that gives the grid, and what to write, if anything.

    ``text`` names it in messages, where there are many.
    """

    case: str
    images: dict[str, str]
    reference: str
    outputs: Outputs | None
    text: str = ""


def plan(
    card: ModelCard,
    case: str,
    inputs: Mapping[str, str | Path],
    output: Path,
    options: Options,
    text: str = "",
) -> Job:
    """Assign the inputs and name the outputs of one case; a cohort's case has an id, ``case``.

    Raises:
        EmimError: when inputs are unknown or missing, or the output cannot be written.
    """
    images = match_inputs(card, inputs, ignore_others=bool(case))
    outputs = plan_outputs(output, card, options.probabilities, options.overlay)
    return Job(case or output.name, images, choose_reference(card, images, options.reference), outputs, text)
