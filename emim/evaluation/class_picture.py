"""The picture of an evaluation of classes: confusion on the left, calibration on the right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from emim.report.figures import BLUE, GREY, INK

LONG = 18  # letters of a name


def write_class_picture(path: Path, data: Mapping[str, Any]) -> None:
    """Draw what :meth:`emim.evaluation.classification.ClassEvaluation.to_dict` gives, as PNG."""
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _confusion(left, np.array(data["confusion"]), [_short(c) for c in data["classes"]])
    _calibration(right, data["calibration"], data["ece"])
    figure.savefig(path, dpi=120, format="png")


def _confusion(axes: Any, counts: np.ndarray, names: list[str]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), n in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row, f"{n}\n{shares[row, column]:.0%}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title("Cases, and share of the true class", fontsize=10)


def _calibration(axes: Any, bins: list[dict[str, float]], error: float) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.annotate("perfect", (0.12, 0.05), color=GREY, fontsize=9)
    confidence, accuracy = ([b[k] for b in bins] for k in ("confidence", "accuracy"))
    axes.plot(confidence, accuracy, color=BLUE, marker="o")
    for b in bins:
        axes.annotate(
            f"{b['cases']}", (b["confidence"], b["accuracy"]), xytext=(6, -12), textcoords="offset points",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("share that is right")
    axes.set_title(f"Reliability, with cases in each bin; calibration error {error:.3f}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= LONG else name[: LONG - 1] + "…"
