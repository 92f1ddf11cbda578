"""Judging a model on labelled cases that it has not seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMLib.models import folderName

from .cohort_table import CaseRow, Cell
from .core_task import CoreTask

SCORES = "scores.json"


@dataclass(frozen=True)
class ScoredCase:
    """One case.

    Attributes:
        row: its images and its label, as the cohort's table has them.
        prediction: what the model has segmented; empty where it failed.
        dice, hd95: structure to its score; HD95 in mm.
        error: why it could not be segmented, which counts as Dice 0; empty where it could.
    """

    row: CaseRow
    prediction: str
    dice: dict[str, float]
    hd95: dict[str, float]
    error: str

    @property
    def meanDice(self) -> float:
        return fmean(self.dice.values())


@dataclass(frozen=True)
class Evaluation:
    """How well a model segments cases that are new to it.

    Attributes:
        model: its package.
        folder: segmentations and measurements of the cases, and the scores as ``scores.json`` and ``.txt``.
        means: structure to ``dice`` and ``hd95`` (mm), the means over the cases, and ``both_empty``, the
            number of those that have neither in label nor in result, which counts as Dice 1.
        cases: the worst first.
        learned: case id to where training or validation has seen it: these were left out.
        pretrained: ids of cases that pre-training has seen, without labels.
        doubts: what could not be told about that, in sentences.
        remarks: what was found of labels and results, such as label values that no structure has.
    """

    model: Path
    folder: Path
    means: dict[str, dict[str, Any]]
    cases: list[ScoredCase]
    learned: dict[str, str]
    pretrained: list[str]
    doubts: list[str]
    remarks: list[str]

    @property
    def failed(self) -> list[str]:
        """Ids of cases that could not be segmented."""
        return [case.row.id for case in self.cases if case.error]


class EvaluationRun(CoreTask):
    """Segments the labelled cases that are new to a model, and scores them; its answer is :attr:`evaluation`.

    Args:
        model: package.
        cohort: folder or datalist.
        folder: for the results; what an evaluation that was cancelled has done there is not done again.
        options: further arguments of ``emim evaluate``.
    """

    def __init__(
        self,
        model: Path,
        cohort: str | Path,
        folder: Path,
        options: Sequence[str],
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[EvaluationRun], None] | None = None,
    ) -> None:
        self.model, self.folder = model, folder
        self.evaluation: Evaluation | None = None
        self._warnings: list[dict] = []

        def follow(event: dict) -> None:
            if event["type"] == "warning":
                self._warnings.append(event)
            if onEvent is not None:
                onEvent(event)

        arguments = ["evaluate", str(cohort), "--model", str(model), "--segment", str(folder)]
        arguments += ["--output", str(folder / SCORES), *options]
        super().__init__(arguments, follow, onFinished)

    @property
    def error(self) -> EmimError | None:
        return self._error if self._job.result is not None else super().error  # some cases may have failed

    def answer(self) -> Evaluation | None:
        return self.evaluation

    def read(self, result: dict[str, Any]) -> None:
        means = {
            name: {"dice": s["dice"]["mean"], "hd95": s["hd95"]["mean"], "both_empty": s["both_empty"]}
            for name, s in result["summary"].items()
        }
        cases = [_case(c, result) for c in result["cases"]]
        seen = result["seen"]
        self.evaluation = Evaluation(
            self.model,
            self.folder,
            means,
            sorted(cases, key=lambda case: case.meanDice),
            dict(seen["learned"]),
            list(seen["pretrained"]),
            list(seen["doubts"]),
            _remarks(self._warnings, result["cases"]),
        )


def evaluationFolder(model: Path, cohortName: str) -> Path:
    """Where the model of a run is judged: a folder in the run, new or of an evaluation that was not ended.

    Raises:
        EmimError: when the model lies in no run folder.
    """
    if not (model.parent / "config.json").is_file():
        raise EmimError(
            _("The model does not lie in a run folder."), model, _("Say which folder the results go to.")
        )
    first = model.parent / "evaluation" / folderName(cohortName)
    numbered = (first.with_name(f"{first.name}-{n}") for n in itertools.count(2))
    return next(f for f in itertools.chain([first], numbered) if not (f / SCORES).exists())


def _remarks(warnings: Sequence[dict], cases: Sequence[dict[str, Any]]) -> list[str]:
    """The warnings about labels and results, each once, with the cases that it is about."""
    of = {c[kind]: c["id"] for c in cases for kind in ("reference", "prediction") if not c["error"]}
    found: dict[str, list[str]] = {}
    for warning in warnings:
        if case := of.get(warning.get("where")):
            text = " ".join(filter(None, (warning["what"], warning.get("hint"))))
            found.setdefault(text, []).append(case)
    return [f"{', '.join(ids)}: {text}" for text, ids in found.items()]


def _case(case: dict[str, Any], result: dict[str, Any]) -> ScoredCase:
    of = case["id"]
    return ScoredCase(
        CaseRow(
            id=of,
            subject=of,
            cells={modality: Cell("ok", path) for modality, path in result["images"][of].items()},
            label=Cell("ok", case["reference"]),
            recode={int(value): meant for value, meant in result["recode"][of].items()},
            segments=result["segments"][of],
        ),
        case["prediction"] or "",
        {s["structure"]: s["dice"] for s in case["scores"]},
        {s["structure"]: s["hd95"] for s in case["scores"]},
        result["failures"].get(of) or case["error"] or "",
    )
