"""What the report of a classification run shows: scores, confusion, the transfer of weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from emim.report import figures, tables
from emim.report.markup import figure, number, table, text
from emim.report.pretrain_sections import optimisation
from emim.report.record import RunRecord


def classification_sections(run: RunRecord) -> Iterable[tuple[str, str, str]]:
    scores = figure(
        "Validation scores",
        figures.class_scores(run),
        "On whole validation cases. AUC: 0.5 is guessing, 1 is perfect. Balanced accuracy: mean over the "
        "classes of the share that is recognised; guessing gives one over their number.",
        "Line plot of validation AUC and balanced accuracy over steps.",
    )
    entropy = figure(
        "Validation cross-entropy",
        figures.class_entropy(run),
        "It falls while probabilities get better, and rises when the network becomes too sure of itself; the "
        f"model is that of {'the last step' if run.config.get('keep') == 'last' else 'its lowest point'}.",
        "Line plot of the validation cross-entropy over steps.",
    )
    yield "scores", "Validation", scores + entropy
    yield "confusion", "Confusion", _confusion(run)
    loss = figure(
        "Training loss",
        figures.train_loss(run),
        "Cross-entropy on the training crops, classes weighted by inverse frequency. Faint: single steps.",
        "Line plot of the training loss over steps.",
    )
    yield "training", "Optimisation", f'<div class="pair">{loss}{optimisation(run)}</div>'
    yield "classes", "Classes", _classes(run)
    yield "transfer", "What was taken from pre-training", tables.transfer_report(run)


def _confusion(run: RunRecord) -> str:
    """The latest validation cases by true and predicted class."""
    names, steps = _names(run), run.metrics.get("validation", {})
    counts = steps[max(steps)].get("confusion") if steps else None
    whole = isinstance(counts, list) and all(isinstance(r, list) and len(r) == len(names) for r in counts)
    if not names or not whole or len(counts) != len(names):
        return '<p class="empty">No validation yet.</p>'
    rows = [
        (text(n), *(number(v) for v in row), number(row[i] / sum(row), 2) if sum(row) else "–")
        for i, (n, row) in enumerate(zip(names, counts, strict=True))
    ]
    note = '<p class="note">Validation cases at the last validation; a row is a true class.</p>'
    return note + table(("True class", *(f"predicted {n}" for n in names), "recognised"), rows)


def _classes(run: RunRecord) -> str:
    """How many cases of each class train and validate."""
    try:
        labels = json.loads((run.folder / "classes.json").read_text(encoding="utf-8"))["labels"]
        parts = [Counter(labels.get(i) for i in tables.ids_of(run, p)) for p in ("training", "validation")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return '<p class="empty">Not recorded.</p>'
    return table(
        ("Class", "Training cases", "Validation cases"),
        [(text(n), *(number(p[n]) for p in parts)) for n in _names(run)],
    )


def _names(run: RunRecord) -> list[str]:
    settings = run.config.get("classification")
    names = settings.get("classes") if isinstance(settings, dict) else None
    return [str(n) for n in names] if isinstance(names, list) else []
