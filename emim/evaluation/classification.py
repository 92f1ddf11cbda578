"""Comparing a table of predicted classes with the true ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emim.cohort.case import Cohort
from emim.errors import EmimError
from emim.evaluation.class_scores import DRAWS, LEAST, bootstrap, calibration, class_scores
from emim.inference.outputs import check_writable, write_atomically
from emim.inference.table import PROBABILITY

EVALUATION_VERSION = 1
DEFINITIONS = {
    "balanced_accuracy": "mean recall over the classes that occur",
    "auc": "mean over the classes of the area under the ROC curve, each against the others; ties count half",
    "cross_entropy": "mean -log p of the true class, every class counting the same",
    "ece": "expected calibration error: mean gap of confidence and accuracy over 10 bins of confidence; "
    "training weighs classes alike, so it is larger where they are not equally frequent",
    "intervals": f"95 %, percentiles of {DRAWS} bootstrap samples of subjects; none for fewer than "
    f"{LEAST} of them (AUC, balanced accuracy: of a class)",
    "failed": "a case without a prediction counts as surely something else than it is",
}


@dataclass(frozen=True)
class ClassEvaluation:
    """Scores of all cases, every failed one included.

    Attributes:
        classes: names in the order of the columns of ``probabilities``.
        cases, subjects: of each row.
        probabilities: (n, K).
        target: (n,), the number of the true class.
        failed: ids of cases without a prediction.
    """

    classes: tuple[str, ...]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    probabilities: np.ndarray
    target: np.ndarray
    failed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        scores = class_scores(self.probabilities, self.target)
        for name in ("auc_per_class", "recall_per_class"):
            scores[name] = {
                c: v if np.isfinite(v) else None for c, v in zip(self.classes, scores[name], strict=True)
            }
        scores["auc"] = scores["auc"] if np.isfinite(scores["auc"]) else None
        return {
            "version": EVALUATION_VERSION,
            "task": "classification",
            "definitions": DEFINITIONS,
            "classes": list(self.classes),
            "cases": len(self.cases),
            "subjects": len(set(self.subjects)),
            "failed": list(self.failed),
            "majority_accuracy": float(np.bincount(self.target).max() / len(self.target)),
            **scores,
            "confusion": scores["confusion"].tolist(),
            "intervals": bootstrap(self.probabilities, self.target, self.subjects),
            "calibration": calibration(self.probabilities, self.target),
        }


def evaluate_classes(
    predictions: str | Path,
    truth: Mapping[str, str],
    cohort: Cohort,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[ClassEvaluation, dict[str, Any]]:
    """Score the predictions of every case of ``cohort`` that has a true class.

    Args:
        predictions: the CSV file that :func:`emim.inference.classify.classify` writes.
        truth: case id to class.
        cohort: the cases to score, which also says whose they are.
        output: JSON file for the result; beside it come the table (``.txt``) and the picture of confusion and
            calibration (``.png``).

    Returns:
        The evaluation, and what was written as JSON.

    Raises:
        EmimError: when there is nothing to score, the predictions cannot be read or know no such class, or
            ``output`` exists without ``overwrite``.
    """
    file = None if output is None else Path(output).absolute()
    if file is not None:
        if file.suffix != ".json":
            raise EmimError("The result is written as JSON.", file, "Let its name end in .json.")
        check_writable([file.with_suffix(e) for e in (".json", ".txt", ".png")], [predictions], overwrite)
    cases = [c for c in cohort.cases if c.id in truth]
    if not cases:
        raise EmimError("No case has a true class to compare with.", hint="Check the file of classes.")
    classes, rows = read_predictions(predictions)
    if unknown := sorted({truth[c.id] for c in cases} - set(classes)):
        raise EmimError(
            f"The predictions know no class {', '.join(map(repr, unknown))}.",
            predictions,
            f"They know: {', '.join(classes)}.",
        )
    target = np.array([classes.index(truth[c.id]) for c in cases])
    failed = tuple(c.id for c in cases if c.id not in rows)
    wrong = (1 - np.eye(len(classes))) / (len(classes) - 1)
    shares = [rows.get(c.id, wrong[t]) for c, t in zip(cases, target, strict=True)]
    result = ClassEvaluation(
        classes, tuple(c.id for c in cases), tuple(c.subject for c in cases), np.stack(shares), target, failed
    )
    data = result.to_dict()
    if file is not None:
        from emim.evaluation.class_picture import write_class_picture

        text = json.dumps(data, indent=1, ensure_ascii=False)
        write_atomically(file, lambda p: p.write_text(text, encoding="utf-8"))
        write_atomically(
            file.with_suffix(".txt"), lambda p: p.write_text(scores_table(data), encoding="utf-8")
        )
        write_atomically(file.with_suffix(".png"), lambda p: write_class_picture(p, data))
    return result, data


def read_predictions(file: str | Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Classes, and case id to their probabilities (K,); cases that failed are absent.

    Raises:
        EmimError: when it is no table of predictions.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EmimError(
            f"The predictions cannot be read: {error}.", file, "Make them with `emim classify`."
        ) from error
    reader = csv.DictReader(text.splitlines())
    columns = [c for c in reader.fieldnames or () if c.startswith(PROBABILITY)]
    if "case" not in (reader.fieldnames or ()) or len(columns) < 2:
        raise EmimError(
            "This is no table of predictions.", file, f"It needs the columns case and {PROBABILITY}NAME."
        )
    rows: dict[str, np.ndarray] = {}
    for row in reader:
        cells = [row[c] or "" for c in columns]
        if not any(cells):
            continue
        where = f"{file}, line {reader.line_num}"
        try:
            shares = np.array(cells, float)
        except ValueError:
            raise EmimError("A probability is no number.", where) from None
        if not (np.isfinite(shares).all() and (shares >= 0).all() and abs(shares.sum() - 1) < 0.01):
            raise EmimError("The probabilities of a case do not sum to 1.", where)
        if row["case"] in rows:
            raise EmimError(f"Case {row['case']!r} is there twice.", where)
        rows[row["case"]] = shares / shares.sum()
    return tuple(c.removeprefix(PROBABILITY) for c in columns), rows


def scores_table(data: Mapping[str, Any]) -> str:
    """The scores as text."""
    lines = [f"{data['cases']} cases of {data['subjects']} subjects, {len(data['failed'])} failed", ""]
    names = {
        "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC",
        "ece": "calibration error", "cross_entropy": "cross-entropy",
    }  # fmt: skip
    for key, name in names.items():
        ends = data["intervals"].get(key)
        between = f"   95 %: {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        lines.append(f"{name:20s}{_number(data[key])}{between}")
    lines.append(f"{'always the majority':20s}{_number(data['majority_accuracy'])}   accuracy")
    width = max(10, *(len(c) for c in data["classes"])) + 2
    lines += ["", "true \\ predicted".ljust(width + 6) + "".join(c.rjust(width) for c in data["classes"])]
    for name, counts in zip(data["classes"], data["confusion"], strict=True):
        area = data["auc_per_class"][name]
        lines.append(
            name.ljust(width + 6) + "".join(str(n).rjust(width) for n in counts) + f"   AUC {_number(area)}"
        )
    lines += [f"Failed: {case}" for case in data["failed"]]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "    –" if value is None else f"{value:.3f}"
