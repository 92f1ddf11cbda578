"""What fine-tuning does with the classes of cases before and after it trains."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emim.cohort.case import Cohort
from emim.cohort.classes import check_classes, read_classes
from emim.cohort.scan import Scan
from emim.config import FinetuneConfig
from emim.errors import EmimError
from emim.report.record import read_run
from emim.run import RunFolder, write_json
from emim.training.preflight import refuse

TASKS = ("segmentation", "classification")
MODES, POOLINGS = ("full", "linear", "knn"), ("attention", "average")
FILE = "classes.json"


def check_classification(config: FinetuneConfig) -> None:
    """Refuse settings that contradict each other or the task.

    Raises:
        EmimError: naming the setting and what it may be.
    """
    settings = config.classification
    if config.task not in TASKS:
        refuse("task", config.task, f"Choose one of: {', '.join(TASKS)}.")
    if config.task == "segmentation":
        if settings.labels is not None:
            refuse("classification.labels", settings.labels, "It is for task=classification.")
        return
    if settings.labels is None:
        raise EmimError("Nothing says which class each case has.", hint="Give a file: --classes FILE.")
    if config.structures:
        raise EmimError("Classification knows no structures.", hint="Leave them out, or task=segmentation.")
    if settings.mode not in MODES:
        refuse("classification.mode", settings.mode, f"Choose one of: {', '.join(MODES)}.")
    if settings.pooling not in (None, *POOLINGS):
        refuse("classification.pooling", settings.pooling, f"Choose one of: {', '.join(POOLINGS)}.")
    if settings.mode == "knn" and settings.pooling == "attention":
        refuse("classification.pooling", "attention", "Attention is learned; knn learns nothing: average.")
    if settings.neighbours < 1:
        refuse("classification.neighbours", settings.neighbours, "It is a positive number.")


def classes_of(found: Scan, config: FinetuneConfig) -> dict[str, str] | None:
    """Case id to class, of classification; None for segmentation.

    Raises:
        EmimError: see :func:`emim.cohort.classes.read_classes`.
    """
    if config.task != "classification":
        return None
    return read_classes(config.classification.labels, found.cohort, found.left_out)


def completed(config: FinetuneConfig, found: Scan) -> FinetuneConfig:
    """``config`` with the classes of the cohort and what its mode leaves open."""
    settings = config.classification
    full = settings.mode == "full"
    settings = dataclasses.replace(
        settings,
        labels=str(Path(settings.labels).absolute()),
        classes=check_classes(settings.classes, classes_of(found, config)),
        pooling=settings.pooling or ("attention" if full else "average"),
    )
    steps = 1 if settings.mode == "knn" else config.train.steps
    train = dataclasses.replace(config.train, steps=steps)
    return dataclasses.replace(config, classification=settings, train=train)


def usable(cohort: Cohort, classes: Mapping[str, str]) -> Cohort:
    """The cases that have a class, without their label maps, which no new case would have."""
    cases = (dataclasses.replace(c, label=None) for c in cohort.cases if c.id in classes)
    return Cohort(cohort.modalities, tuple(cases))


def nested_order(ids: Sequence[str], seed: int, classes: Mapping[str, str] | None) -> list[str]:
    """``ids`` in an order drawn by ``seed``, of which the first n are the training cases of a label fraction.

    A longer list contains the shorter ones, so label fractions are nested. With ``classes`` these take turns.
    """
    order = [ids[i] for i in np.random.default_rng([seed, 2]).permutation(len(ids))]
    if classes is None:
        return order
    queues = [[i for i in order if classes[i] == c] for c in sorted({classes[i] for i in ids})]
    return [i for turn in itertools.zip_longest(*queues) for i in turn if i is not None]


def record_classes(run: RunFolder, found: Scan) -> None:
    """Write the classes that a new run begins with; nothing for segmentation."""
    labels = classes_of(found, run.config)
    if labels is not None:
        write_json(run.path / FILE, {"classes": run.config.classification.classes, "labels": labels})


def recorded_classes(run: RunFolder) -> dict[str, str]:
    """Case id to class, as the run began.

    Raises:
        EmimError: when they cannot be read.
    """
    try:
        return dict(json.loads((run.path / FILE).read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        raise EmimError(f"The classes of the run, {FILE}, cannot be read.", run.path) from None


def reached_scores(run: RunFolder, step: int) -> tuple[dict[str, Any], str]:
    """What the validation at ``step`` said, for the model's card and the result, and in words."""
    values = read_run(run.path).metrics.get("validation", {}).get(step, {})
    names = ("accuracy", "balanced_accuracy", "auc", "auc_interval", "cross_entropy")
    reached = {f"validation_{name}": values.get(name) for name in names}
    area, right = values.get("auc"), values.get("balanced_accuracy")
    words = "" if right is None else f", validation balanced accuracy {right:.3f}"
    return reached, words + ("" if area is None else f", AUC {area:.3f}")
