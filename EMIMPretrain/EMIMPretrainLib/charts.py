"""Curves of a run as Slicer's own table, series and chart nodes.

There is one set of nodes for all runs: showing another run, or the next step of one, changes them in
place. They are found again by an attribute, also in a scene that was saved and loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from emim.objectives.verdict import LOW_RANK

from .run_metrics import RunMetrics, isNumber, smooth

ATTRIBUTE = "EMIM.chart"
# Okabe and Ito's colours, told apart with any kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    (0.0, 0.0, 0.0),
    (0.902, 0.624, 0.0),
    (0.337, 0.706, 0.914),
    (0.0, 0.620, 0.451),
    (0.941, 0.894, 0.259),
    (0.0, 0.447, 0.698),
    (0.835, 0.369, 0.0),
    (0.800, 0.475, 0.655),
)
LEVELS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
# The last is the line that a healthy run must get clearly below.
LINES = {"L_a": GREEN, "L_b": ORANGE, "L_c": PURPLE, "L_c_unseen": VERMILION}


@dataclass
class Curve:
    """One line of a chart; ``style`` is "line", "points" (line with markers), "dashed" or "dotted"."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: tuple[float, float, float]
    style: str = "line"


@dataclass
class Chart:
    """A chart before it becomes nodes; ``role`` tells it from the others, shares lie between 0 and 1."""

    role: str
    title: str
    yTitle: str
    curves: list[Curve] = field(default_factory=list)
    isShare: bool = False


def pretrainingCharts(metrics: RunMetrics, name: str) -> list[Chart]:
    """Loss with collapse lines, and effective rank of each level."""
    contrastive = bool(metrics.series("training", "contrastive")[0])
    label = _("contrastive loss") if contrastive else _("reconstruction loss")
    loss = Chart("loss", _("{run}: loss").format(run=name), label)
    loss.curves += _lossCurves(metrics, "contrastive" if contrastive else "reconstruction")
    end = max([metrics.steps, *(x for c in loss.curves for x in c.x)], default=0)
    texts = {
        "L_a": _("L_a: constant"),
        "L_b": _("L_b: average patch"),
        "L_c": _("L_c: average anatomy"),
        "L_c_unseen": _("L_c_unseen: same, unseen subjects"),
    }
    for line, color in LINES.items():
        value = metrics.lines.get(line)
        if isNumber(value):
            # L_a and L_b often lie on each other.
            style = "dotted" if line == "L_b" else "dashed"
            loss.curves.append(Curve(texts[line], [0, max(1, end)], [value, value], color, style))
    title = _("{run}: effective rank").format(run=name)
    rank = Chart("rank", title, _("share of the attainable rank"), isShare=True)
    latest = metrics.validation[-1].get("rank_ratio") if metrics.validation else None
    for level in range(len(latest or ())):
        known = [
            (e["step"], e["rank_ratio"][level])
            for e in metrics.validation
            if isNumber(_item(e.get("rank_ratio"), level))
        ]
        label = _("level {n}").format(n=level + 1) + ("" if level else " " + _("(finest)"))
        rank.curves.append(
            Curve(label, [s for s, _v in known], [v for _s, v in known], _color(level), "points")
        )
    if rank.curves:
        x, y = [0, max(1, end)], [LOW_RANK, LOW_RANK]
        rank.curves.append(Curve(_("collapsed below"), x, y, BLACK, "dashed"))
    return [loss, rank]


def finetuningCharts(metrics: RunMetrics, name: str) -> list[Chart]:
    """Training loss, and validation Dice of each structure."""
    loss = Chart("loss", _("{run}: loss").format(run=name), _("segmentation loss"))
    loss.curves += _lossCurves(metrics, "loss")
    dice = Chart("dice", _("{run}: validation Dice").format(run=name), _("Dice"), isShare=True)
    for n, structure in enumerate(metrics.structures):
        known = [
            (e["step"], e["dice_per_structure"][structure])
            for e in metrics.validation
            if isNumber((e.get("dice_per_structure") or {}).get(structure))
        ]
        dice.curves.append(
            Curve(structure, [s for s, _v in known], [v for _s, v in known], _color(n), "points")
        )
    if len(metrics.structures) > 1:
        dice.curves.append(Curve(_("mean"), *metrics.series("validation", "dice"), BLACK, "dashed"))
    return [loss, dice]


def classificationCharts(metrics: RunMetrics, name: str) -> list[Chart]:
    """Loss, and how well the validation cases are told apart."""
    loss = Chart("loss", _("{run}: loss").format(run=name), _("cross-entropy"))
    loss.curves += _lossCurves(metrics, "loss")
    steps, values = metrics.series("validation", "cross_entropy")
    if steps:
        loss.curves.append(Curve(_("validation"), steps, values, BLACK, "points"))
    scores = Chart("scores", _("{run}: validation").format(run=name), _("score"), isShare=True)
    texts = {"auc": _("AUC"), "balanced_accuracy": _("balanced accuracy"), "accuracy": _("accuracy")}
    for n, (score, text) in enumerate(texts.items()):
        steps, values = metrics.series("validation", score)
        if steps:
            scores.curves.append(Curve(text, steps, values, _color(n), "points"))
    if scores.curves:
        end = max([1, metrics.steps, *(x for c in scores.curves for x in c.x)])
        scores.curves.append(Curve(_("AUC of guessing"), [0, end], [0.5, 0.5], BLACK, "dashed"))
    return [loss, scores]


def updateCharts(charts: Sequence[Chart]) -> dict[str, Any]:
    """Show ``charts`` in the nodes of their roles, which are made where they do not exist yet.

    Returns:
        The chart node of each role.
    """
    return {chart.role: _updateChart(chart) for chart in charts}


def exist() -> bool:
    """Whether the scene has charts of a run."""
    return any(n.GetAttribute(ATTRIBUTE) for n in slicer.util.getNodesByClass("vtkMRMLPlotChartNode"))


def _lossCurves(metrics: RunMetrics, name: str) -> list[Curve]:
    steps, values = metrics.series("training", name)
    curves = [Curve(_("training (smoothed)"), steps, smooth(values), SKY)]
    steps, values = metrics.series("validation", name)
    if steps:
        curves.append(Curve(_("validation"), steps, values, BLACK, "points"))
    return curves


def _updateChart(chart: Chart) -> Any:
    node = _node("vtkMRMLPlotChartNode", chart.role)
    wasModifying = node.StartModify()
    node.SetName(f"EMIM {chart.role}")
    node.SetTitle(chart.title)
    node.SetXAxisTitle(_("step"))
    node.SetYAxisTitle(chart.yTitle)
    node.SetLegendVisibility(True)
    node.SetGridVisibility(True)
    node.SetYAxisRangeAuto(not chart.isShare)
    if chart.isShare:
        node.SetYAxisRange(0.0, 1.0)
    shown = []
    for n, curve in enumerate(chart.curves):
        if len(curve.x) > 0:
            shown.append(_updateSeries(curve, f"{chart.role}.{n}").GetID())
    if shown != [node.GetNthPlotSeriesNodeID(i) for i in range(node.GetNumberOfPlotSeriesNodes())]:
        node.RemoveAllPlotSeriesNodeIDs()
        for identifier in shown:
            node.AddAndObservePlotSeriesNodeID(identifier)
    node.EndModify(wasModifying)
    return node


def _updateSeries(curve: Curve, role: str) -> Any:
    table = _node("vtkMRMLTableNode", role)
    table.SetName(f"EMIM {role}")
    columns = [np.asarray(curve.x, float), np.asarray(curve.y, float)]
    slicer.util.updateTableFromArray(table, columns, [_("step"), curve.name])
    series = _node("vtkMRMLPlotSeriesNode", role)
    wasModifying = series.StartModify()
    series.SetName(curve.name)  # the legend shows it
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(_("step"))
    series.SetYColumnName(curve.name)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    lines = {"dashed": series.LineStyleDash, "dotted": series.LineStyleDot}
    series.SetLineStyle(lines.get(curve.style, series.LineStyleSolid))
    series.SetMarkerStyle(series.MarkerStyleCircle if curve.style == "points" else series.MarkerStyleNone)
    series.SetMarkerSize(6)
    series.SetLineWidth(2)
    series.SetColor(*curve.color)
    series.EndModify(wasModifying)
    return series


def _node(className: str, role: str) -> Any:
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(ATTRIBUTE) == role:
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(className)
    node.SetAttribute(ATTRIBUTE, role)
    return node


def _item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _color(index: int) -> tuple[float, float, float]:
    return LEVELS[index % len(LEVELS)]
