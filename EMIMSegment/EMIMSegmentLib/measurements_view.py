"""The measurements of a segmentation as a small table."""

from __future__ import annotations

import math

from EMIMSegmentLib.tables import colorItem, fillTable


def showMeasurements(table, measurements, segmentation) -> bool:
    """Show the table node ``measurements``, each structure in its colour; False when there is none."""
    if measurements is None or measurements.GetNumberOfRows() == 0:
        return False
    columns = range(measurements.GetNumberOfColumns())
    names = [measurements.GetColumnName(c) for c in columns]
    headers = [name.replace(" ", "\n") for name in names]  # narrow columns
    rows = [
        [_short(measurements.GetCellText(r, c)) for c in columns]
        for r in range(measurements.GetNumberOfRows())
    ]
    fillTable(table, headers, rows)
    for c, name in enumerate(names):
        table.horizontalHeaderItem(c).setToolTip(name)
    for r in range(len(rows)):
        segments = segmentation.GetSegmentation()
        segment = segments.GetSegment(segments.GetSegmentIdBySegmentName(rows[r][0]))
        if segment is not None:
            colorItem(table.item(r, 0), segment.GetColor())
    return True


def _short(text: str) -> str:
    """A number with the digits that mean something to a reader; any other text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    if math.isnan(number):
        return "–"
    return (
        f"{number:.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"
    )
