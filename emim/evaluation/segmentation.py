"""Comparing the segmentations of a folder with reference labels, case by case."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emim.cohort.case import Case, Cohort
from emim.cohort.coding import refuse_other_values
from emim.config import Structure
from emim.errors import EmimError
from emim.evaluation.masks import holds_layers, prediction_masks, prediction_values, reference_masks
from emim.evaluation.scores import Score, diagonal, score
from emim.evaluation.seen import Seen
from emim.evaluation.table import text_table
from emim.events import Events
from emim.inference.inputs import overlap
from emim.inference.outputs import EXTENSIONS, check_writable, write_atomically
from emim.volumes.grid import Grid
from emim.volumes.resample import copy_voxels

if TYPE_CHECKING:
    from emim.cohort.scan import Scan

EVALUATION_VERSION = 1
NAMED = 20  # cases in a warning
DEFINITIONS = {
    "dice": "2 |A and B| / (|A| + |B|); 1 where reference and prediction are both empty, 0 where one is",
    "hd95": "mm; larger of the two directed 95th percentiles of surface distances; 0 where both are empty, "
    "the image diagonal where one is",
    "failed": "a case without a usable prediction counts as Dice 0 and HD95 the image diagonal",
    "mean_without_empty": "mean without the cases whose reference and prediction are both empty",
    "std": "of the sample (n - 1)",
}


@dataclass(frozen=True)
class CaseScores:
    """One case. ``error`` says why its prediction failed; ``prediction`` is then None or unusable."""

    id: str
    reference: str
    prediction: str | None
    error: str | None
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Evaluation:
    """Scores of all cases, every failed one included.

    Attributes:
        structures: names, in order.
        cases: in order of the references.
        seen: what the model has seen of them, and of those left out for it; None: not asked.
    """

    structures: tuple[str, ...]
    cases: tuple[CaseScores, ...]
    seen: Seen | None = None

    @property
    def failed(self) -> tuple[CaseScores, ...]:
        """Cases without a usable prediction."""
        return tuple(c for c in self.cases if c.error)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Structure name to ``dice`` and ``hd95`` (mean, median, std, mean_without_empty), ``cases``,
        ``both_empty``, ``reference_empty`` and ``prediction_empty`` (counts)."""
        result = {}
        for i, name in enumerate(self.structures):
            scores = [c.scores[i] for c in self.cases]
            kept = [s for s in scores if s.empty != "both"]
            entry: dict[str, Any] = {"cases": len(scores)}
            for which in ("both", "reference", "prediction"):
                entry[f"{which}_empty"] = sum(s.empty == which for s in scores)
            for measure in ("dice", "hd95"):
                values = [getattr(s, measure) for s in scores]
                without = [getattr(s, measure) for s in kept]
                entry[measure] = {
                    "mean": statistics.fmean(values),
                    "median": statistics.median(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "mean_without_empty": statistics.fmean(without) if without else None,
                }
            result[name] = entry
        return result

    def mean_dice(self) -> float:
        """Mean over the structures of their mean Dice."""
        return statistics.fmean(entry["dice"]["mean"] for entry in self.summary().values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": EVALUATION_VERSION,
            "definitions": DEFINITIONS,
            "structures": list(self.structures),
            "failed": len(self.failed),
            "mean_dice": self.mean_dice(),
            "summary": self.summary(),
            "cases": [asdict(c) for c in self.cases],
            **({"seen": asdict(self.seen)} if self.seen else {}),
        }

    def table(self) -> str:
        """All cases and the summary as text."""
        return text_table(self)


def evaluate(
    references: Cohort | Scan | Mapping[str, str | Path],
    predictions: str | Path | Mapping[str, str | Path],
    structures: Sequence[Structure],
    output: str | Path | None = None,
    events: Events | None = None,
    overwrite: bool = False,
    same_values: bool = False,
    seen: Seen | None = None,
) -> Evaluation:
    """Score every reference's case. See :mod:`emim.evaluation.scores` for the definitions.

    A prediction on another grid is brought to the reference's by nearest neighbour, with a warning. A
    missing or unusable prediction counts as failed: Dice 0, HD95 the diagonal of the image.

    Args:
        references: a cohort or scan, whose labelled cases are taken, also those that the scan finds
            unusable, or case id to label file; their label values are those of :attr:`Structure.values`.
        predictions: folder with ``ID.nii.gz`` (or another ending that :func:`segment` writes), or
            case id to file; label maps hold the values of :attr:`Structure.output`.
        output: also write the result there as JSON, and the table beside it as ``.txt``.
        same_values: label maps of predictions hold the values of the references, as those of other tools.
        seen: what the model has seen of the cases, to be told with the scores.

    Raises:
        EmimError: when there is nothing to score, a reference cannot be read, a case has several
            predictions, their label maps cannot hold structures that overlap partly, or ``output`` exists
            without ``overwrite``.
    """
    events = events or Events()
    labels = _labels(references, events)
    if not structures:
        raise EmimError("There are no structures to evaluate.", hint="Give them, or a model that has them.")
    refuse_other_values(structures, getattr(references, "segments", ()))
    files = score_files(output, [case.label for case in labels.values()], overwrite)
    for case in labels.values():
        if not Path(case.label).is_file():
            raise EmimError(
                "There is no such reference label.", case.label, "Check the cohort or the datalist."
            )
    found = {i: _find(i, predictions) for i in labels}
    values: dict[str, tuple[int, ...]] = {}
    if same_values:
        values = {s.name: s.values for s in structures}
    elif not all(file is None or holds_layers(file) for file in found.values()):
        values = prediction_values(structures)
    cases = []
    for done, (i, case) in enumerate(labels.items()):
        events.progress(done, len(labels), "case", i)
        cases.append(_case(case, found[i], structures, values, events))
    events.progress(len(labels), len(labels), "case")
    result = Evaluation(tuple(s.name for s in structures), tuple(cases), seen)
    texts = (json.dumps(result.to_dict(), indent=1, ensure_ascii=False), result.table())
    for file, text in zip(files, texts, strict=False):
        write_atomically(file, lambda p, text=text: p.write_text(text, encoding="utf-8"))
    return result


def score_files(output: str | Path | None, labels: Iterable[str | Path], overwrite: bool) -> list[Path]:
    """JSON and table that :func:`evaluate` writes for ``output``; nothing where none is wanted.

    Raises:
        EmimError: when one is there without ``overwrite``, or in the place of one of the ``labels``.
    """
    if output is None:
        return []
    output = Path(output).absolute()
    if output.suffix != ".json":
        raise EmimError("The result is written as JSON.", output, "Let its name end in .json.")
    files = [output, output.with_suffix(".txt")]
    check_writable(files, labels, overwrite)
    return files


def cases_to_score(references: Cohort | Scan) -> list[Case]:
    """All cases; first those that a scan finds unusable, which count as others that fail.

    A label that cannot be used is None.
    """
    unusable = []
    for row in getattr(references, "rows", ()):
        if not row.usable:
            unusable.append(Case(row.id, row.subject, row.images, row.usable_label, row.recode))
    return [*unusable, *getattr(references, "cohort", references).cases]


def warn_of_left_out(ids: Sequence[str], lacking: str, events: Events) -> None:
    """Name the cases that are not scored, as they have no ``lacking``."""
    if ids:
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        what = f"Left out, as they have no {lacking}: {', '.join(ids[:NAMED])}{more}."
        events.warning(what, hint="`emim scan` says what is wrong with a case.")


def labelled_cases(references: Cohort | Scan, events: Events) -> list[Case]:
    """The :func:`cases_to_score` that have a label, with a warning that names those whose label is damaged.

    Raises:
        EmimError: when there are none.
    """
    cases = cases_to_score(references)
    labelled = [c for c in cases if c.label]
    if not labelled:
        raise EmimError("There are no reference labels to compare with.", hint="Give a cohort with labels.")
    given = {row.id for row in getattr(references, "rows", ()) if row.label}
    damaged = [c.id for c in cases if not c.label and c.id in given]
    warn_of_left_out(damaged, "label that can be used", events)
    return labelled


def _labels(references: Cohort | Scan | Mapping[str, str | Path], events: Events) -> dict[str, Case]:
    if isinstance(references, Mapping):
        references = Cohort((), tuple(Case(i, i, {}, str(path)) for i, path in references.items()))
    return {c.id: c for c in labelled_cases(references, events)}


def _find(case: str, predictions: str | Path | Mapping[str, str | Path]) -> Path | None:
    if isinstance(predictions, Mapping):
        return Path(predictions[case]) if case in predictions else None
    folder = Path(predictions)
    if not folder.is_dir():
        hint = "Segment the cohort into it first."
        if folder.is_file():
            hint = "It is a file. With the table of `emim classify`, give --classes, too."
        raise EmimError("There is no such folder of predictions.", folder, hint)
    found = [folder / f"{case}{e}" for e in EXTENSIONS if (folder / f"{case}{e}").is_file()]
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise EmimError(f"Case {case} has several predictions: {names}.", folder, "Keep one of them.")
    return found[0] if found else None


def _case(
    case: Case,
    prediction: Path | None,
    structures: Sequence[Structure],
    values: Mapping[str, Sequence[int]],
    events: Events,
) -> CaseScores:
    reference, grid, unknown = reference_masks(case, structures)
    if unknown:
        warn_of_values("reference", unknown, case.label, events)
    error = None
    try:
        if prediction is None:
            raise EmimError(
                "There is no prediction.", hint="Segment the case; `emim scan` says if it cannot be."
            )
        masks = _masks_on(prediction, structures, values, grid, events)
    except Exception as caught:  # one bad prediction must not cost the other cases' scores
        told = caught if isinstance(caught, EmimError) else _unreadable(prediction, caught)
        error = told.what
        events.warning(f"Case {case.id} failed: {told.what}", told.where, told.hint)
    spacing = grid.spacing[::-1]
    if error is None:
        scores = [score(s.name, reference[s.name], masks[s.name], spacing) for s in structures]
    else:
        scores = [failed_score(s.name, reference[s.name], spacing) for s in structures]
    file = None if prediction is None else str(prediction)
    return CaseScores(case.id, case.label, file, error, tuple(scores))


def _unreadable(prediction: Path, error: Exception) -> EmimError:
    what = f"The prediction cannot be used ({type(error).__name__}: {error})."
    return EmimError(what, prediction, "The file may be damaged; make or export it again.")


def failed_score(structure: str, reference: np.ndarray, spacing: Sequence[float]) -> Score:
    """The score of a structure in a case that could not be segmented; ``spacing`` is mm along (Z, Y, X)."""
    volume = float(np.count_nonzero(reference) * np.prod(spacing) / 1000)
    return Score(structure, 0.0, diagonal(reference.shape, spacing), volume, 0.0, None)


def _masks_on(
    prediction: Path,
    structures: Sequence[Structure],
    values: Mapping[str, Sequence[int]],
    grid: Grid,
    events: Events,
) -> dict[str, np.ndarray]:
    """The prediction's masks on the reference's grid."""
    masks, own, unknown = prediction_masks(prediction, structures, values)
    if unknown:
        warn_of_values("prediction", unknown, prediction, events)
    if own.is_same(grid):
        return masks
    if not overlap(own, grid):
        what = "The prediction does not overlap in space with the reference."
        raise EmimError(what, prediction, "They belong to different images.")
    moved = {name: copy_voxels(mask, own, grid, False) for name, mask in masks.items()}
    if any(m is None for m in moved.values()):
        events.warning(
            "The prediction lies on another grid than the reference; it was resampled (nearest neighbour).",
            prediction,
            "Scores suffer from it; segment with the reference image of the labels.",
        )
        moved = {name: _nearest(mask, own, grid) for name, mask in masks.items()}
    return moved


def warn_of_values(which: str, values: Sequence[int], file: str | Path, events: Events) -> None:
    """Tell of ``values`` of the ``which`` (reference or prediction) ``file`` that belong to no structure."""
    events.warning(
        f"The {which} has values that are no structure's: {', '.join(map(str, values))}.",
        file,
        "They count as background; if the file uses another coding of the same structures, recode it.",
    )


def _nearest(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    import SimpleITK as sitk

    moved = sitk.Resample(
        source.to_image(mask.astype(np.uint8)),
        target.empty_image(),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor,
        0,
    )
    return sitk.GetArrayFromImage(moved).astype(bool)
