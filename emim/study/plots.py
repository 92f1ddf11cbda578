"""The figures of studies, in the look of the reports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emim.report.figures import CYCLE, GREY, INK, STYLE

Curve = tuple[np.ndarray, np.ndarray]


@contextmanager
def panels(*draw: Callable) -> Iterator[Figure]:
    """A figure with the panels that the functions draw beside each other, each on axes of its own."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4 * len(draw), 3.6), layout="constrained")
        for axes, function in zip(figure.subplots(1, len(draw), squeeze=False)[0], draw, strict=True):
            function(axes)
        yield figure


def figure(*draw: Callable) -> Figure:
    """As :func:`panels`, drawn at once."""
    with panels(*draw) as made:
        made.canvas.draw()
    return made


def dots(
    values: Mapping[str, Sequence[float | None]], label: str, level: float | None = None, log: bool = False
) -> Callable:
    """One row for each name: a dot for each seed, a bar at their mean."""

    def draw(axes) -> None:
        for row, (_, all_values) in enumerate(values.items()):
            known = [v for v in all_values if v is not None]
            color = CYCLE[row % len(CYCLE)]
            axes.plot(known, [row] * len(known), "o", color=color, alpha=0.6, markersize=6, mew=0)
            if known:
                mean = statistics.fmean(known)
                axes.plot([mean, mean], [row - 0.3, row + 0.3], color=color, linewidth=2.5)
        if level is not None:
            axes.axvline(level, color=INK, linestyle="--", linewidth=1)
        if log:
            axes.set_xscale("log")
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlabel(label)

    return draw


def curves(
    groups: Mapping[str, Sequence[Curve]],
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    points: bool = False,
) -> Callable:
    """For each name its curves, one for each seed, faint, and their mean; named at the right.

    Args:
        levels: name and value of horizontal lines.
        points: mark the values, which are few.
    """

    def draw(axes) -> None:
        ends = []
        for i, (name, each) in enumerate(groups.items()):
            color = CYCLE[i % len(CYCLE)]
            # Beyond the colours, the dashes tell apart.
            style = ("-", "--", ":")[i // len(CYCLE) % 3]
            each = [c for c in each if len(c[0])]
            if not each:
                continue
            for x, y in each if len(each) > 1 else ():
                axes.plot(x, y, style, color=color, alpha=0.25, linewidth=0.8)
            x, y = mean_curve(each)
            axes.plot(x, y, style, color=color, linewidth=2, marker="o" if points else None, markersize=5)
            ends.append((y[-1], name, color))
        for name, value in (levels or {}).items():
            axes.axhline(value, color=GREY, linestyle="--", linewidth=1)
            ends.append((value, name, GREY))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if points:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _name_ends(axes, ends)

    return draw


def mean_curve(each: Sequence[Curve]) -> Curve:
    """Mean at the places that all curves have; of curves that share none, the first."""
    shared = sorted(set.intersection(*(set(x.tolist()) for x, _ in each)))
    if not shared:
        return each[0]
    rows = [[dict(zip(x.tolist(), y.tolist(), strict=True))[s] for s in shared] for x, y in each]
    return np.array(shared), np.mean(rows, axis=0)


def _name_ends(axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names beside the ends of the curves, moved apart."""
    low, high = axes.get_ylim()
    gap = 0.065
    places = []
    for value, name, color in sorted(ends):
        at = (value - low) / (high - low)
        places.append([max(at, places[-1][0] + gap) if places else at, name, color])
    over = max(0.0, places[-1][0] - 1) if places else 0.0
    for at, name, color in places:
        axes.annotate(
            name, (1.015, at - over), xycoords="axes fraction", color=color, va="center", fontsize=8.5
        )
