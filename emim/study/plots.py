"""The figures of studies, in the look of the reports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emim.report.figures import CYCLE, GREY, INK, STYLE

Curve = tuple[np.ndarray, np.ndarray]
DASHES = ("-", "--", ":")


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and dashes for each name; beyond the colours, the dashes tell apart."""
    return {n: (CYCLE[i % len(CYCLE)], DASHES[i // len(CYCLE) % 3]) for i, n in enumerate(names)}


def figure(*draw: Callable) -> Figure:
    """A figure with the panels that the functions draw beside each other, each on axes of its own."""
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(5.4 * len(draw), 3.6), layout="constrained")
        for axes, function in zip(made.subplots(1, len(draw), squeeze=False)[0], draw, strict=True):
            function(axes)
        made.canvas.draw()
    return made


def dots(
    values: Mapping[str, Sequence[float | None]],
    label: str,
    level: float | None = None,
    look: Mapping[str, tuple[str, str]] | None = None,
) -> Callable:
    """One row for each name: a dot for each seed, a bar at their mean; a dashed line at ``level``."""
    look = look or looks(list(values))

    def draw(axes) -> None:
        for row, (name, each) in enumerate(values.items()):
            known = [v for v in each if v is not None]
            color = look[name][0]
            axes.plot(known, [row] * len(known), "o", color=color, alpha=0.6, markersize=6, mew=0)
            if known:
                mean = statistics.fmean(known)
                axes.plot([mean, mean], [row - 0.3, row + 0.3], color=color, linewidth=2.5)
        if level is not None:
            axes.axvline(level, color=INK, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(max(1, len(values)) - 0.5, -0.5)
        axes.set_xlabel(label)

    return draw


def curves(
    groups: Mapping[str, Sequence[Curve]],
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
    points: bool = False,
    look: Mapping[str, tuple[str, str]] | None = None,
) -> Callable:
    """For each name its curves, one for each seed, faint, and their mean; named at the right.

    Args:
        levels: name and value of horizontal lines.
        points: mark the values, which are few.
        look: of the names where other panels show them too, see :func:`looks`.
    """
    look = look or looks(list(groups))

    def draw(axes) -> None:
        ends = []
        for name, each in groups.items():
            color, style = look[name]
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


def heat(
    grid: Sequence[Sequence[float]],
    columns: Sequence[str],
    rows: Sequence[str],
    x_label: str,
    y_label: str,
    label: str,
) -> Callable:
    """Values as colours, and written; NaN stays empty."""

    def draw(axes) -> None:
        values = np.asarray(grid, float)
        image = axes.imshow(values, cmap="viridis", aspect="auto")
        known = values[np.isfinite(values)]
        middle = (known.min() + known.max()) / 2 if len(known) else 0.0
        for (y, x), value in np.ndenumerate(values):
            text = f"{value:.3f}" if np.isfinite(value) else "-"
            color = INK if not np.isfinite(value) or value > middle else "white"
            axes.text(x, y, text, ha="center", va="center", color=color)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(False)
        axes.figure.colorbar(image, ax=axes, label=label)

    return draw
