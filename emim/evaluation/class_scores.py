"""How good probabilities of classes are: accuracy, AUC, calibration, and how uncertain these numbers are.

``probabilities`` are (n, K) with rows that sum to 1, ``target`` is (n,), whole numbers from 0 to K - 1. The
predicted class is the most probable one. What is not defined is NaN: an AUC without cases of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

BINS = 10  # of confidence, of equal width
DRAWS, LEVEL = 1000, 0.95
INTERVALS = ("accuracy", "balanced_accuracy", "auc")
LEAST = 5  # subjects, for scores of classes of each class: fewer resampled look certain when they agree


def class_scores(probabilities: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """All scores of a set of cases.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean recall over the classes that occur; ``auc``, the mean
        of ``auc_per_class``, each class against all others; ``recall_per_class``; ``cross_entropy``, mean
        -log p of the true class with every class that occurs counting the same; ``ece``; and ``confusion``
        (K, K), counts by true (row) and predicted (column) class.
    """
    predicted = probabilities.argmax(1)
    classes = probabilities.shape[1]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (target, predicted), 1)
    recalls = _recalls(predicted, target, classes)
    aucs = [auc(probabilities[:, k], target == k) for k in range(classes)]
    surprise = -np.log(np.clip(probabilities[np.arange(len(target)), target], 1e-12, None))
    there = np.unique(target)
    return {
        "accuracy": float((predicted == target).mean()),
        "balanced_accuracy": _mean(recalls),
        "auc": _mean(aucs),
        "auc_per_class": aucs,
        "recall_per_class": recalls,
        "cross_entropy": float(np.mean([surprise[target == k].mean() for k in there])),
        "ece": expected_calibration_error(probabilities, target),
        "confusion": confusion,
    }


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive case scores higher than a negative one.

    Ties count half (Mann and Whitney's U, Hanley and McNeil, Radiology 143:29, 1982).
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def calibration(probabilities: np.ndarray, target: np.ndarray) -> list[dict[str, float]]:
    """Bins of the predicted class's probability that hold cases: ``cases``, mean ``confidence``, and
    ``accuracy``, the share of them that is right."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == target
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "cases": int((index == b).sum()),
            "confidence": float(confidence[index == b].mean()),
            "accuracy": float(right[index == b].mean()),
        }
        for b in np.unique(index)
    ]


def expected_calibration_error(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by cases (arXiv 1706.04599)."""
    bins = calibration(probabilities, target)
    return sum(b["cases"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(target)


def bootstrap(
    probabilities: np.ndarray,
    target: np.ndarray,
    subjects: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of :data:`INTERVALS`: percentiles over resampled subjects.

    Subjects are drawn with replacement, with all their cases, because cases of one subject are not
    independent. Draws that lack a class are left out. None where there are fewer than :data:`LEAST` subjects,
    for balanced accuracy and AUC of each class that occurs.
    """
    names, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    there = np.unique(target)
    enough = {"accuracy": len(names) >= LEAST}
    fewest = min(len(np.unique(index[target == k])) for k in there)
    enough["balanced_accuracy"] = enough["auc"] = len(there) > 1 and fewest >= LEAST
    found: dict[str, list[float]] = {name: [] for name in INTERVALS}
    classes = probabilities.shape[1]
    for _ in range(draws):
        chosen = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        p, t = probabilities[chosen], target[chosen]
        predicted = p.argmax(1)
        found["accuracy"].append(float((predicted == t).mean()))
        if enough["auc"] and len(np.unique(t)) == len(there):
            found["balanced_accuracy"].append(_mean(_recalls(predicted, t, classes)))
            found["auc"].append(_mean([auc(p[:, k], t == k) for k in range(classes)]))
    ends = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    return {
        name: tuple(np.percentile(values, ends).tolist()) if enough[name] and values else None
        for name, values in found.items()
    }


def _recalls(predicted: np.ndarray, target: np.ndarray, classes: int) -> list[float]:
    return [
        float((predicted[target == k] == k).mean()) if (target == k).any() else float("nan")
        for k in range(classes)
    ]


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")
