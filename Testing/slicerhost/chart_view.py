"""Stand-in for Slicer's plot view: draws a vtkMRMLPlotChartNode with matplotlib."""

import numpy as np
import slicer


class ChartView:
    """Draws the chart that its plot view node names."""

    def __init__(self, node):
        self.node = node
        self._size = (500, 400)

    def resize(self, width, height):
        self._size = (width, height)

    def chart(self):
        """The chart node shown, or None."""
        return self.node.GetPlotChartNode()

    def pixels(self):
        """The chart as an array (row from the top, column, RGB), uint8."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        dpi = 90
        figure = Figure(figsize=(self._size[0] / dpi, self._size[1] / dpi), dpi=dpi, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        if self.chart():
            self._draw(self.chart(), figure.add_subplot())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _draw(self, chart, axes):
        ids = [chart.GetNthPlotSeriesNodeID(i) for i in range(chart.GetNumberOfPlotSeriesNodes())]
        for series in map(slicer.mrmlScene.GetNodeByID, ids):
            _draw_series(series, axes)
        axes.set_title(chart.GetTitle() or "")
        axes.set_xlabel(chart.GetXAxisTitle() or "")
        axes.set_ylabel(chart.GetYAxisTitle() or "")
        if chart.GetXAxisLogScale():
            axes.set_xscale("log")
        if chart.GetYAxisLogScale():
            axes.set_yscale("log")
        if not chart.GetXAxisRangeAuto():
            axes.set_xlim(chart.GetXAxisRange())
        if not chart.GetYAxisRangeAuto():
            axes.set_ylim(chart.GetYAxisRange())
        axes.grid(bool(chart.GetGridVisibility()), alpha=0.3)
        if ids and chart.GetLegendVisibility():
            axes.legend(fontsize="small")


_DASHES = ("None", "-", "--", ":", "-.", (0, (5, 2, 1, 2, 1, 2)))  # in the order of vtkPen's line types
_MARKERS = ("", "x", "+", "s", "o", "D")


def _column(series, name):
    table = series.GetTableNode().GetTable() if series.GetTableNode() else None
    column = table.GetColumnByName(name) if table is not None and name else None
    if column is None:
        return None
    return np.array([float(column.GetVariantValue(i).ToDouble()) for i in range(column.GetNumberOfValues())])


def _no_column(series, name):
    return ValueError(f"plot series '{series.GetName()}': its table has no column '{name}'")


def _draw_series(series, axes):
    y = _column(series, series.GetYColumnName())
    if y is None:
        raise ValueError(
            f"plot series '{series.GetName()}': its table has no column '{series.GetYColumnName()}'"
        )
    x = _column(series, series.GetXColumnName())
    if series.IsXColumnRequired() and x is None:
        raise ValueError(
            f"plot series '{series.GetName()}': its table has no column '{series.GetXColumnName()}'"
        )
    x = np.arange(len(y)) if x is None else x
    options = {"color": series.GetColor(), "alpha": series.GetOpacity(), "label": series.GetName()}
    kind = series.GetPlotType()
    if kind in (series.PlotTypeBar, series.PlotTypeScatterBar):
        axes.bar(x, y, **options)
        return
    axes.plot(
        x,
        y,
        linestyle=_DASHES[series.GetLineStyle()],
        linewidth=series.GetLineWidth(),
        marker=_MARKERS[series.GetMarkerStyle()],
        markersize=series.GetMarkerSize() / 2,
        **options,
    )
