"""Scores of classification against known values."""

import numpy as np
import pytest

from emim.evaluation.class_scores import (
    auc,
    bootstrap,
    calibration,
    class_scores,
    expected_calibration_error,
)
from emim.evaluation.class_verdict import BETTER, GUESSING, UNDECIDED, judge_classes


def rows(*first):
    return np.array([[p, 1 - p] for p in first])


def test_auc_counts_pairs():
    positive = np.array([True, True, False, False])
    assert auc(np.array([0.9, 0.4, 0.5, 0.1]), positive) == 0.75  # 3 of 4 pairs
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), positive) == 0.5
    assert auc(np.array([0.9, 0.5, 0.5, 0.1]), positive) == 0.875  # a tie is half a pair
    assert np.isnan(auc(np.array([0.5, 0.6]), np.array([True, True])))


def test_auc_is_that_of_monai():
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_roc_auc

    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 60)
    p = rng.dirichlet([1, 1, 1], 60)
    p[np.arange(60), target] += 0.3
    p /= p.sum(1, keepdims=True)
    wanted = compute_roc_auc(torch.from_numpy(p), torch.eye(3)[target], average="macro")
    assert class_scores(p, target)["auc"] == pytest.approx(float(wanted), abs=1e-6)


def test_accuracies_and_confusion():
    p = rows(0.9, 0.8, 0.7, 0.4, 0.6)  # predicted 0 0 0 1 0
    scores = class_scores(p, np.array([0, 0, 0, 1, 1]))
    assert scores["accuracy"] == 0.8
    assert scores["balanced_accuracy"] == 0.75
    assert scores["recall_per_class"] == [1.0, 0.5]
    assert scores["confusion"].tolist() == [[3, 0], [1, 1]]
    first, second = np.log([0.9, 0.8, 0.7]).mean(), np.log([0.6, 0.4]).mean()
    assert scores["cross_entropy"] == pytest.approx(-(first + second) / 2)


def test_a_class_that_does_not_occur_has_no_score():
    p = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]])
    scores = class_scores(p, np.array([0, 1]))
    assert scores["balanced_accuracy"] == 1.0 and np.isnan(scores["recall_per_class"][2])
    assert scores["auc"] == 1.0 and np.isnan(scores["auc_per_class"][2])


def test_calibration_error():
    p = rows(0.95, 0.95, 0.95, 0.95, 0.65, 0.65)
    target = np.array([0, 0, 0, 1, 0, 1])
    bins = calibration(p, target)
    assert [(b["cases"], b["accuracy"]) for b in bins] == [(2, 0.5), (4, 0.75)]
    assert expected_calibration_error(p, target) == pytest.approx((2 * 0.15 + 4 * 0.2) / 6)
    assert expected_calibration_error(rows(1.0, 0.0), np.array([0, 1])) == 0


def test_bootstrap_resamples_subjects():
    rng = np.random.default_rng(0)
    target = np.arange(40) % 2
    right = rng.random(40) < 0.8
    p = rows(*np.where(right == (target == 0), 0.8, 0.2))
    apart = bootstrap(p, target, [f"s{i}" for i in range(40)], 300)
    low, high = apart["accuracy"]
    assert low < right.mean() < high and 0.1 < high - low < 0.4
    assert apart == bootstrap(p, target, [f"s{i}" for i in range(40)], 300), "it is seeded"
    # The same cases four times over, as of the same subjects, tell no more.
    again = bootstrap(np.tile(p, (4, 1)), np.tile(target, 4), [f"s{i % 40}" for i in range(160)], 300)
    assert again["accuracy"][1] - again["accuracy"][0] == pytest.approx(high - low, abs=0.05)


def test_few_subjects_have_no_interval():
    """Of four cases told apart without fault every sample is faultless, which is no certainty."""
    p, target = rows(0.9, 0.8, 0.2, 0.1), np.array([0, 0, 1, 1])
    assert bootstrap(p, target, list("abcd"), 50) == dict.fromkeys(("accuracy", "balanced_accuracy", "auc"))
    p, target = np.tile(p, (3, 1)), np.tile(target, 3)
    assert bootstrap(p, target, list("abcd") * 3, 50)["auc"] is None, "of few subjects"
    many = bootstrap(p, target, list("abcdefghijkl"), 50)
    assert many["auc"] == (1.0, 1.0) and many["accuracy"] == (1.0, 1.0)
    one = bootstrap(rows(*[0.9] * 6), np.zeros(6, int), list("abcdef"), 50)
    assert one["accuracy"] is not None and one["auc"] is None


def values(area, interval, recalls=(0.9, 0.8)):
    recalls = dict(zip("ab", recalls, strict=True))
    shared = {"balanced_accuracy": 0.8, "cases": 20, "recall_per_class": recalls}
    return {"auc": area, "auc_interval": interval, **shared}


@pytest.mark.parametrize(
    "state, given, share",
    [
        (BETTER, values(0.8, (0.6, 0.9)), 1.0),
        (UNDECIDED, values(0.8, (0.4, 0.9)), 1.0),
        (UNDECIDED, values(0.8, None), 1.0),
        (UNDECIDED, values(0.8, (0.6, 0.9)), 0.1),
        (UNDECIDED, values(None, None), 1.0),
        (GUESSING, values(0.52, (0.51, 0.53)), 1.0),
    ],
)
def test_verdict(state, given, share):
    assert judge_classes(given, share).state == state


def test_the_verdict_names_classes_never_found():
    assert "b" in judge_classes(values(0.8, (0.6, 0.9), (1.0, 0.0))).why[1]
