"""Measurements and classes as CSV files, for one case and for a cohort."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PROBABILITY = "probability_"  # and the name of the class: a column of the table of classes
COLUMNS = ("structure", "value", "volume_ml", "largest_diameter_mm")


def measurements_csv(measurements: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> str:
    """A line for each structure; cells are empty where there was nothing to measure.

    Args:
        measurements: as in the result of :func:`emim.inference.segment.segment`.
        modalities: of the model; each has a column ``mean_NAME``.
    """
    return _csv([_header(modalities), *(_row(m, modalities) for m in measurements)])


def cohort_csv(results: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> str:
    """A line for each case and structure; ``results`` are those of the cases that were segmented."""
    rows = [(r["case"], *_row(m, modalities)) for r in results for m in r["measurements"]]
    return _csv([("case", *_header(modalities)), *rows])


def predictions_csv(results: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """A line for each case; ``results`` are those of :func:`emim.inference.classify.classify`."""
    rows: list[tuple] = [("case", "subject", "class", *(f"{PROBABILITY}{c}" for c in classes), "error")]
    for r in results:
        known = r.get("probabilities", {})
        shares = [f"{known[c]:.6f}" if c in known else "" for c in classes]
        error = r["error"]["what"] if "error" in r else ""
        rows.append((r["case"], r["subject"], r.get("class", ""), *shares, error))
    return _csv(rows)


def _header(modalities: Sequence[str]) -> tuple[str, ...]:
    return (*COLUMNS, *(f"mean_{m}" for m in modalities))


def _row(measured: Mapping[str, Any], modalities: Sequence[str]) -> tuple:
    return (*(measured[c] for c in COLUMNS), *(measured["mean"][m] for m in modalities))  # None is empty


def _csv(rows: Sequence[tuple]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
