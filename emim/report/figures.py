"""The plots of a run, as SVG text; each is None while there is nothing to plot.

Lines are named beside their right end instead of in a legend. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart; ordered things (pyramid levels) go from dark to light.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from emim.objectives.verdict import CONSTANT_OUTPUT, LOW_RANK
from emim.report.record import RunRecord, is_number

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, INK, GREY = "#cc79a7", "#56b4e9", "#1f2933", "#7b8794"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

KINDS = {"modal": ("modal", BLUE), "position": ("position", ORANGE), "patch": ("patch", GREEN)}
# Symbol and meaning of each collapse line.
LINE_TEXTS = {
    "L_a": ("$L_a$", "one value"),
    "L_b": ("$L_b$", "one patch"),
    "L_c": ("$L_c$", "average anatomy"),
    "L_c_unseen": ("$L_c$", "on unseen subjects"),
}

_WIDE, _HALF = (10.4, 3.7), (5.05, 3.0)
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "emim",
    "font.size": 9.5,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "mathtext.default": "it",
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_POINTS = 600  # more would not be visible and make the page heavy


@dataclass(frozen=True)
class Line:
    """One curve: ``name`` is written beside its end; a ``faint`` one stays unnamed in the back."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    color: str
    faint: bool = False
    width: float = 1.6


@dataclass(frozen=True)
class Level:
    """A horizontal line at ``value`` with its name."""

    name: str
    value: float
    color: str = GREY
    style: str = "--"


def loss(run: RunRecord) -> str | None:
    """Reconstruction loss of training and validation, with the collapse lines."""
    raw = run.curve("train", "reconstruction")
    lines = _train_lines("training", raw, BLUE)
    validation = run.curve("validation", "reconstruction")
    if len(validation[0]):
        lines.append(Line("validation", *validation, RED, width=2.0))
    settled = [x.values for x in lines if not x.faint]
    log = bool(settled) and _spans_decades(np.concatenate(settled))
    return _chart(
        lines, _collapse_levels(run, tuple(LINE_TEXTS), True), "reconstruction loss", size=_WIDE, log=log
    )


def contrastive(run: RunRecord) -> str | None:
    """Contrastive loss of training and validation, with what chance would give in the latter."""
    lines = _train_lines("training", run.curve("train", "contrastive"), BLUE)
    lines.append(Line("validation", *run.curve("validation", "contrastive"), RED, width=2.0))
    chance = run.curve("validation", "chance")[1]
    levels = [Level("chance", float(chance[-1]), INK)] if len(chance) else []
    return _chart(lines, levels, "contrastive loss", size=_WIDE, bottom=0)


def found(run: RunRecord) -> str | None:
    return _train_and_validation(run, "found", "share of crops", top=1)


def alignment(run: RunRecord) -> str | None:
    return _train_and_validation(run, "alignment", "squared distance of partners")


def loss_by_kind(run: RunRecord) -> str | None:
    """Validation loss of the units hidden by each kind of mask."""
    lines = [Line(t, *run.curve("validation", k), c) for k, (t, c) in KINDS.items()]
    return _chart(lines, _collapse_levels(run, ("L_c", "L_c_unseen"), False), "validation loss")


def output_variance(run: RunRecord) -> str | None:
    line = Line("output", *run.curve("validation", "output_variance"), BLUE, width=2.0)
    level = Level("constant", CONSTANT_OUTPUT, RED)
    return _chart([line], [level], "variance, share of the target's", log=True)


def rank(run: RunRecord) -> str | None:
    return _pyramid(run, "rank_ratio", "effective / attainable rank", [Level("collapsed", LOW_RANK, RED)])


def correlation(run: RunRecord) -> str | None:
    return _pyramid(run, "correlation", "mean |correlation| of features", [])


def uniformity(run: RunRecord) -> str | None:
    return _pyramid(run, "uniformity", "mean squared cosine", [])


def mask_ratio(run: RunRecord) -> str | None:
    """Realised share of hidden units, and its parts hidden by each kind of mask."""
    lines = [Line("total", *_smooth(*run.curve("train", "mask_ratio")), INK, width=2.0)]
    for kind, (text, color) in KINDS.items():
        lines.append(Line(text, *_smooth(*run.curve("train", f"mask_{kind}")), color))
    return _chart(lines, [], "share of units hidden", bottom=0, top=1)


def regulariser(run: RunRecord) -> str | None:
    steps, values = run.curve("train", "regulariser")
    weights = run.curve("train", "regulariser_weight")[1]
    if not len(weights) or not weights.any() or not values.any():
        return None
    return _chart(_train_lines("training", (steps, values), PURPLE), [], "regulariser, before its weight")


def learning_rate(run: RunRecord) -> str | None:
    return _chart([Line("", *run.curve("train", "learning_rate"), INK)], [], "learning rate", bottom=0)


def gradient_norm(run: RunRecord) -> str | None:
    clip = run.config.get("train", {}).get("grad_clip") if isinstance(run.config.get("train"), dict) else None
    steps, values = run.curve("train", "grad_norm")
    levels = [Level("clipped", clip)] if is_number(clip) and clip > 0 else []
    log = _spans_decades(values)
    return _chart(_train_lines("", (steps, values), GREEN), levels, "gradient norm", log=log)


def dice(run: RunRecord, colors: dict[str, str]) -> str | None:
    """Validation Dice of each structure (in its own colour where ``colors`` has it) and their mean."""
    parts = run.curves("validation", "dice_per_structure")
    lines = [
        Line(name, *curve, _readable(colors.get(name, CYCLE[i % len(CYCLE)])))
        for i, (name, curve) in enumerate(parts.items())
    ]
    if len(parts) != 1:
        lines.append(Line("mean", *run.curve("validation", "dice"), INK, width=2.4))
    return _chart(lines, [], "Dice on validation cases", size=_WIDE, bottom=0, top=1)


def class_scores(run: RunRecord) -> str | None:
    """Validation AUC and balanced accuracy of classification."""
    names = (("AUC", "auc", BLUE), ("balanced accuracy", "balanced_accuracy", ORANGE))
    lines = [Line(text, *run.curve("validation", name), _readable(color)) for text, name, color in names]
    return _chart(lines, [Level("guessing (AUC)", 0.5)], "on validation cases", size=_WIDE, bottom=0, top=1)


def class_entropy(run: RunRecord) -> str | None:
    """Validation cross-entropy of classification."""
    line = Line("validation", *run.curve("validation", "cross_entropy"), BLUE)
    return _chart([line], [], "cross-entropy", size=_WIDE, bottom=0)


def train_loss(run: RunRecord) -> str | None:
    return _chart(_train_lines("training", run.curve("train", "loss"), BLUE), [], "training loss")


def _collapse_levels(run: RunRecord, names: Sequence[str], meaning: bool) -> list[Level]:
    """The collapse lines that are known, named with their meaning and value, or by their symbol alone."""
    colors = {"L_a": PURPLE, "L_b": ORANGE, "L_c": INK, "L_c_unseen": INK}
    levels = []
    for name in names:
        value = run.collapse_lines.get(name)
        if is_number(value):
            symbol, means = LINE_TEXTS[name]
            short = f"{symbol} unseen" if name == "L_c_unseen" else symbol
            text = f"{symbol} {means} {value:.3f}" if meaning else short
            levels.append(Level(text, value, colors[name], "--" if name == "L_c_unseen" else "-"))
    return levels


def _pyramid(run: RunRecord, name: str, label: str, levels: list[Level]) -> str | None:
    curves = run.curves("validation", name)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, max(len(curves), 1)))
    lines = []
    for i, (key, curve) in enumerate(curves.items()):
        lines.append(Line(f"level {int(key) + 1}", *curve, matplotlib.colors.to_hex(shades[i])))
    return _chart(lines, levels, label, bottom=0)


def _train_and_validation(run: RunRecord, name: str, label: str, top: float | None = None) -> str | None:
    lines = _train_lines("training", run.curve("train", name), BLUE)
    lines.append(Line("validation", *run.curve("validation", name), RED, width=2.0))
    return _chart(lines, [], label, bottom=0, top=top)


def _train_lines(name: str, curve: tuple[np.ndarray, np.ndarray], color: str) -> list[Line]:
    """The values of single steps, faint, and their moving mean."""
    if not len(curve[0]):
        return []
    return [Line("", *curve, color, faint=True), Line(name, *_smooth(*curve), color)]


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moving mean over a twentieth of the curve, centred except at its ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return steps, (total[last] - total[first]) / (last - first)


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``_POINTS`` points with the same look: of each stretch its lowest and highest value."""
    if len(values) <= _POINTS:
        return steps, values
    edges = np.linspace(0, len(values), _POINTS // 2 + 1).astype(int)
    kept = {0, len(values) - 1}
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        kept.update((a + int(values[a:b].argmin()), a + int(values[a:b].argmax())))
    index = np.array(sorted(kept))
    return steps[index], values[index]


def _spans_decades(values: np.ndarray) -> bool:
    positive = values[values > 0]
    return bool(len(positive)) and len(positive) == len(values) and positive.max() > 15 * positive.min()


def _chart(
    lines: Sequence[Line],
    levels: Sequence[Level],
    y_label: str,
    size: tuple[float, float] = _HALF,
    log: bool = False,
    bottom: float | None = None,
    top: float | None = None,
) -> str | None:
    lines = [x for x in lines if len(x.steps)]
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        axes = figure.add_axes(_area(size, lines, levels))
        for line in lines:
            steps, values = _thin(line.steps, line.values)
            if log:
                values = np.maximum(values, 1e-6)
            marker = "o" if len(steps) == 1 else None
            style = {"alpha": 0.25, "linewidth": 0.7} if line.faint else {"linewidth": line.width}
            axes.plot(
                steps, values, color=line.color, marker=marker, markersize=4, clip_on=not marker, **style
            )
        for level in levels:
            axes.axhline(level.value, color=level.color, linestyle=level.style, linewidth=1.1, zorder=1.5)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
        _set_limits(axes, lines, levels, 8 if size == _WIDE else 4, log, bottom, top)
        axes.set_xlabel("step")
        axes.set_ylabel(y_label)
        ends = [(x.values[-1], x.name, x.color) for x in lines if x.name]
        _name_at_right(axes, ends + [(x.value, x.name, x.color) for x in levels])
        out = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the browser has the glyphs this font lacks
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return out.getvalue().replace("'DejaVu Sans'", _FONTS.replace("'", "&apos;"))


def _area(size: tuple[float, float], lines: Sequence[Line], levels: Sequence[Level]) -> list[float]:
    """The axes' place in the figure, leaving room at the right for the longest name."""
    longest = max([len(x.name.replace("$", "")) for x in (*lines, *levels)], default=0)
    width, height = size
    left, below, above = 0.72, 0.48, 0.2
    # Small charts stand beside each other, so all have the same margin.
    right = 0.95 if size == _HALF else min(0.2 + 0.072 * longest, 0.4 * width)
    return [left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height]


def _set_limits(axes, lines, levels, nbins, log, bottom, top) -> None:
    steps = np.concatenate([x.steps for x in lines])
    axes.set_xlim(0, max(steps.max(), 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}"))
    shown = [x.values for x in lines if not x.faint]
    # A wild start must not flatten the rest.
    high = max(max(min(v.max(), 8 * np.percentile(v, 75)), v[-1]) for v in shown)
    low = min(v.min() for v in shown)
    for line in (x for x in lines if x.faint):
        low = min(low, np.percentile(line.values, 1))
        high = max(high, np.percentile(line.values, 98))
    high = max([high, *(x.value for x in levels)])
    low = min([low, *(x.value for x in levels)])
    if log:
        low = max(low, 1e-6)
        axes.set_ylim(low / 1.5, max(high, low) * 1.5)
        return
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(
        max(low - room, 0) if bottom is None and low >= 0 else low - room if bottom is None else bottom,
        high + room if top is None else top,
    )


def _name_at_right(axes, names: Sequence[tuple[float, str, str]]) -> None:
    """Write each name beside its value, moved apart where they would overlap."""
    if not names:
        return
    height = axes.bbox.height * 72 / axes.figure.dpi
    gap = 11.5 / height  # a line of text, as a share of the axes' height
    to_axes = axes.transScale + axes.transLimits
    wanted = [(float(np.clip(to_axes.transform((1, v))[1], 0, 1)), n, c) for v, n, c in names]
    wanted.sort()
    places = [w[0] for w in wanted]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    places[-1] = min(places[-1], 1.0)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap)
    for (at, name, color), place in zip(wanted, places, strict=True):
        axes.annotate(
            name,
            (1, at),
            (1 + 0.16 * 72 / (axes.bbox.width * 72 / axes.figure.dpi), place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=_readable(color),
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            parse_math=name.startswith("$L_"),
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _readable(color: str) -> str:
    """``color``, darkened until text in it stands out from white."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    while rgb @ (0.2126, 0.7152, 0.0722) > 0.45:
        rgb = rgb * 0.9
    return matplotlib.colors.to_hex(rgb)
