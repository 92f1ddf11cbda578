"""How well a model segments labelled cases with every subset of its modalities.

A case is read and prepared once, with all its modalities, and segmented once per subset; the modalities left
out are then to the network what a missing one is. So all subsets share one grid and one foreground, that of
all modalities, which decides which tiles are computed: results may differ at the border of the foreground
from those of ``emim segment``, which knows nothing of an image that it is not given.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.cohort.coding import refuse_other_values
from emim.config import Structure
from emim.errors import Cancelled, EmimError
from emim.evaluation.masks import reference_masks
from emim.evaluation.scores import score
from emim.evaluation.seen import Seen
from emim.evaluation.segmentation import (
    DEFINITIONS,
    CaseScores,
    Evaluation,
    failed_score,
    labelled_cases,
    warn_of_values,
)
from emim.evaluation.subset_table import markdown_table, text_table
from emim.evaluation.subsets import ALL, Subset, check_trained, distinct, parse_subsets
from emim.events import Events
from emim.inference.ahead import tell_failure
from emim.inference.inputs import check_files, choose_reference, overlap
from emim.inference.labelling import label_on_grid
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.quality import QUALITIES, Effort
from emim.package.bundle import Package, read_package
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.preprocess import PreparedCase, prepare_case

if TYPE_CHECKING:
    import torch
    from torch import nn

    from emim.cohort.scan import Scan

SUBSETS_VERSION = 1
SAVE_EVERY = 60.0  # seconds


@dataclasses.dataclass(frozen=True)
class SubsetEvaluation:
    """Scores of the same cases with every subset.

    Attributes:
        model: its name.
        modalities: of the model.
        results: subset to its scores, in order.
        left_out: ids of labelled cases that lack a modality of some subset.
        seen: what the model has seen of the cases; None: not asked.
    """

    model: str
    modalities: tuple[str, ...]
    results: dict[Subset, Evaluation]
    left_out: tuple[str, ...]
    seen: Seen | None = None

    @property
    def structures(self) -> tuple[str, ...]:
        return next(iter(self.results.values())).structures

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of cases that could not be segmented with some subset."""
        return tuple(dict.fromkeys(c.id for r in self.results.values() for c in r.failed))

    def mean_dice(self) -> float:
        """Mean over the subsets of the mean Dice over structures."""
        return statistics.fmean(result.mean_dice() for result in self.results.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": SUBSETS_VERSION,
            "definitions": DEFINITIONS,
            "model": self.model,
            "modalities": list(self.modalities),
            "structures": list(self.structures),
            "left_out": list(self.left_out),
            "mean_dice": self.mean_dice(),
            "subsets": [
                {
                    "modalities": list(subset),
                    "mean_dice": result.mean_dice(),
                    "summary": result.summary(),
                    "cases": [dataclasses.asdict(c) for c in result.cases],
                }
                for subset, result in self.results.items()
            ],
            **({"seen": dataclasses.asdict(self.seen)} if self.seen else {}),
        }

    def table(self) -> str:
        """Means over the cases as text."""
        return text_table(self)

    def markdown(self) -> str:
        """Means over the cases as a Markdown table."""
        return markdown_table(self)


def evaluate_subsets(
    model: str | Path | Package,
    references: Cohort | Scan,
    subsets: str | Sequence[Subset] = ALL,
    output: str | Path | None = None,
    *,
    structures: Sequence[Structure] | None = None,
    untrained: bool = False,
    device: str = "auto",
    quality: str = "balanced",
    events: Events | None = None,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
    seen: Seen | None = None,
) -> SubsetEvaluation:
    """Segment the labelled cases with each subset of the modalities and score the results.

    Scores are computed on the grid of the label, by the definitions of :mod:`emim.evaluation.scores`, on the
    cases that have every modality of every subset, so that rows compare. A case that cannot be segmented,
    or that the scan finds unusable, counts as Dice 0 and HD95 the diagonal of the image.

    Args:
        model: a package folder or zip, or a fine-tuning run folder.
        references: a cohort or scan with labels.
        subsets: see :func:`emim.evaluation.subsets.parse_subsets`, or tuples of modalities.
        output: also write the result there as JSON, and tables beside it as ``.txt`` and ``.md``; before
            all cases are done, JSON of those that are, as ``NAME.unfinished.json``.
        structures: those of the model with the label values of the references, where they differ.
        untrained: also subsets that the model was not trained to do.
        device, quality: as in :func:`emim.inference.segment.segment`.
        should_stop: asked before each tile.
        seen: what the model has seen of the cases, to be told with the scores.

    Raises:
        EmimError: for bad input, before any case is segmented.
        Cancelled: when ``should_stop`` said so.
    """
    events = events or Events()
    package = model if isinstance(model, Package) else read_package(model)
    card = package.card
    if card.task != "segmentation":
        raise EmimError(f"The model {card.name} does not segment: its task is {card.task}.", package.path)
    parse = parse_subsets if isinstance(subsets, str) else distinct
    wanted = parse(subsets, card.modalities)
    if not untrained:
        check_trained(wanted, card)
    if quality not in QUALITIES:
        raise EmimError(f"There is no quality {quality!r}.", hint=f"Choose one of: {', '.join(QUALITIES)}.")
    structures = tuple(structures or card.structures)
    if [s.name for s in structures] != [s.name for s in card.structures]:
        raise EmimError(
            "The structures are not those of the model.",
            hint=f"It has, in this order: {', '.join(s.name for s in card.structures)}.",
        )
    refuse_other_values(structures, getattr(references, "segments", ()))
    cases, left_out = _choose(references, wanted, card, events)
    files = _outputs(output, cases, overwrite)
    seen = seen and seen.of([c.id for c in cases])
    unfinished = [f.with_suffix(".unfinished.json") for f in files[:1]]
    unusable = {r.id: "; ".join(r.problems) for r in getattr(references, "rows", ())}
    _check_labels(cases, structures, events)

    from emim.inference.predict import load_network
    from emim.machine.device import open_device
    from emim.machine.heap import keep_large_blocks

    keep_large_blocks()
    chosen = open_device(device, events)
    events.status(
        f"{len(cases)} cases with {len(wanted)} subsets of {', '.join(card.modalities)} on {chosen}"
    )
    predictor = _Predictor(
        load_network(package, chosen), card, chosen, QUALITIES[quality], events, should_stop
    )
    scored: dict[Subset, list[CaseScores]] = {subset: [] for subset in wanted}

    def evaluation() -> SubsetEvaluation:
        names = tuple(s.name for s in structures)
        results = {subset: Evaluation(names, tuple(found)) for subset, found in scored.items()}
        return SubsetEvaluation(card.name, card.modalities, results, left_out, seen)

    saved = time.monotonic()
    try:
        for number, case in enumerate(cases, 1):
            text = f"{case.id} ({number} of {len(cases)})"
            events.status(f"Case {text}")
            problem = unusable.get(case.id)
            for subset, scores in _score_case(case, wanted, structures, predictor, text, problem).items():
                scored[subset].append(scores)
            if time.monotonic() - saved > SAVE_EVERY:
                _save(unfinished, evaluation())
                saved = time.monotonic()
    except BaseException:  # stopped
        if scored[wanted[0]]:
            _save(unfinished, evaluation())
        raise
    result = evaluation()
    _write(files, result)
    for file in unfinished:
        with suppress(OSError):
            file.unlink(missing_ok=True)
    return result


def _choose(
    references: Cohort | Scan, subsets: Sequence[Subset], card: ModelCard, events: Events
) -> tuple[list[Case], tuple[str, ...]]:
    """Labelled cases that have every modality of every subset, with the model's images; ids of the others."""
    cohort = getattr(references, "cohort", references)  # of a Scan
    labelled = labelled_cases(references, events)
    needed = {m for subset in subsets for m in subset}
    cases, left_out = [], []
    for case in labelled:
        images = {m: case.images[m] for m in card.modalities if m in case.images}
        if needed <= set(images):
            cases.append(dataclasses.replace(case, images=images))
        else:
            left_out.append(case.id)
    if not cases:
        raise EmimError(
            f"No labelled case has all of {', '.join(m for m in card.modalities if m in needed)}.",
            hint=f"The cohort has {', '.join(cohort.modalities)}; name subsets of the model's modalities "
            "among them, or give --pattern for those that go by another name.",
        )
    if left_out:
        events.warning(
            f"Left out, as they lack a modality: {', '.join(left_out)}.",
            hint="Every subset is scored on the same cases; with fewer subsets more of them can be used.",
        )
    return cases, tuple(left_out)


def _check_labels(cases: Sequence[Case], structures: Sequence[Structure], events: Events) -> None:
    """Read every label once: one that cannot be used is not to stop the work of hours."""
    for case in cases:
        if not Path(case.label).is_file():
            raise EmimError(
                "There is no such reference label.", case.label, "Check the cohort or the datalist."
            )
        _, _, unknown = reference_masks(case, structures)
        if unknown:
            warn_of_values("reference", unknown, case.label, events)


@dataclasses.dataclass(frozen=True)
class _Predictor:
    """A loaded network and how it is applied."""

    network: nn.Module
    card: ModelCard
    device: torch.device
    effort: Effort
    events: Events
    should_stop: Callable[[], bool] | None

    def prepare(self, case: Case) -> PreparedCase:
        reference = choose_reference(self.card, case.images)
        check_files(case.images, reference)
        settings = dataclasses.replace(self.card.preprocess, reference=reference)
        # The label must not have a say in what of the patient is looked at.
        return prepare_case(dataclasses.replace(case, label=None), self.card.modalities, settings)

    def masks(self, prepared: PreparedCase, subset: Subset, target: Grid, text: str) -> list[np.ndarray]:
        """The mask (Z, Y, X) of each structure on ``target``."""
        from emim.inference.predict import predict_case

        card = self.card
        present = prepared.present & np.isin(card.modalities, subset)
        probabilities = predict_case(
            self.network, dataclasses.replace(prepared, present=present), card, self.device,
            self.effort, self.events, self.should_stop, text,
        )  # fmt: skip
        layers = label_on_grid(card, probabilities, prepared.grid, target).layers
        if len(layers) < len(card.structures):
            layers = np.broadcast_to(layers, (len(card.structures), *layers.shape[1:]))
        return [layer == s.output for layer, s in zip(layers, card.structures, strict=True)]


def _score_case(
    case: Case,
    subsets: Sequence[Subset],
    structures: Sequence[Structure],
    predictor: _Predictor,
    text: str,
    problem: str | None,
) -> dict[Subset, CaseScores]:
    reference, grid, _ = reference_masks(case, structures)
    spacing = grid.spacing[::-1]
    results = {}
    try:
        if problem:
            raise EmimError(f"Left out by the scan: {problem}")
        prepared = predictor.prepare(case)
        if not overlap(grid, prepared.grid):
            raise EmimError("The label does not overlap in space with the images.", case.label)
        for subset in subsets:
            masks = predictor.masks(prepared, subset, grid, f"{text}: {'+'.join(subset)}")
            scores = [
                score(s.name, reference[s.name], mask, spacing)
                for s, mask in zip(structures, masks, strict=True)
            ]
            results[subset] = CaseScores(case.id, case.label, None, None, tuple(scores))
    except Cancelled:
        raise
    except Exception as error:  # one bad case must not cost the night's other cases
        what = tell_failure(case.id, error, predictor.events, "segmented")["what"]
        failed = tuple(failed_score(s.name, reference[s.name], spacing) for s in structures)
        results = dict.fromkeys(subsets, CaseScores(case.id, case.label, None, what, failed))
    return results


def _outputs(output: str | Path | None, cases: Sequence[Case], overwrite: bool) -> list[Path]:
    """JSON, text and Markdown; nothing where no output is wanted."""
    if output is None:
        return []
    output = Path(output).absolute()
    if output.suffix != ".json":
        raise EmimError("The result is written as JSON.", output, "Let its name end in .json.")
    files = [output, output.with_suffix(".txt"), output.with_suffix(".md")]
    check_writable(files, [f for c in cases for f in (c.label, *c.images.values())], overwrite)
    return files


def _save(unfinished: Sequence[Path], result: SubsetEvaluation) -> None:
    """Keep what is done so far; it need not succeed."""
    with suppress(OSError):
        _write(unfinished, result)


def _write(files: Sequence[Path], result: SubsetEvaluation) -> None:
    """JSON, and text and Markdown where ``files`` names them, too."""
    texts = (json.dumps(result.to_dict(), indent=1, ensure_ascii=False), result.table(), result.markdown())
    for file, text in zip(files, texts, strict=False):
        write_atomically(file, lambda p, text=text: p.write_text(text, encoding="utf-8"))
