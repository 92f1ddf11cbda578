"""Pictures of a panel and of the views, arranged as in the application's window."""

import numpy as np
from PIL import Image, ImageDraw

from slicerhost.widget_pixels import pixels_of

GAP = 4  # between pictures, in pixels
_BAR, _GREY = 18, 60


def panel(widget, size=None):
    """A widget as an array (row, column, RGB). Size is (width, height); without, as large as it wants."""
    import slicer

    if size:
        width, height = size
        widget.resize(width, height)
        widget.show()
        slicer.app.processEvents()
        # The application scrolls a panel and never makes it lower than its wrapped texts need.
        widget.resize(width, max(height, widget.heightForWidth(width)))
    else:
        widget.adjustSize()
        widget.show()
    slicer.app.processEvents()
    return pixels_of(widget)


def views(layoutManager, width, height):
    """All views of the present layout in one array (row, column, RGB), arranged as the layout says."""
    canvas = np.full((height, width, 3), _GREY, np.uint8)
    _fill(canvas, layoutManager.layoutRoot(), layoutManager)
    return canvas


def _children(element):
    return [element.GetNestedElement(i) for i in range(element.GetNumberOfNestedElements())]


def _fill(canvas, element, layoutManager):
    """Draws a <layout>, <item> or <view> of the layout's description into the whole canvas."""
    if element.GetName() == "view":
        view = layoutManager.viewOf(
            element.GetAttribute("class"),
            element.GetAttribute("singletontag") or element.GetAttribute("type"),
        )
        _draw_bar(canvas[:_BAR], view.node)
        canvas = canvas[_BAR:]
        view.resize(canvas.shape[1], canvas.shape[0])
        canvas[:] = view.pixels()
        return
    children = _children(element)
    if element.GetName() == "item":
        return _fill(canvas, children[0], layoutManager)
    kind = element.GetAttribute("type")
    if kind == "tab":
        return _fill(canvas, children[0], layoutManager)
    for child, place in zip(children, _places(canvas.shape[:2], children, kind), strict=True):
        _fill(canvas[place], child, layoutManager)


def _draw_bar(strip, node):
    """The bar above a view: its colour, its name and, for a slice, its orientation."""
    color = tuple(round(255 * part) for part in node.GetLayoutColor())
    text = node.GetLayoutLabel() or node.GetLayoutName()
    if node.IsA("vtkMRMLSliceNode"):
        text += f"    {node.GetOrientation()}"
    bar = Image.new("RGB", (strip.shape[1], strip.shape[0]), color)
    ImageDraw.Draw(bar).text((6, 3), text, fill="black")
    strip[:] = np.asarray(bar)


def _places(shape, items, kind):
    """The part of the canvas for each item, as slices (rows, columns)."""
    if kind == "grid":
        cells = [(int(i.GetAttribute("row") or 0), int(i.GetAttribute("column") or 0)) for i in items]
    elif kind == "horizontal":
        cells = [(0, n) for n in range(len(items))]
    else:
        cells = [(n, 0) for n in range(len(items))]
    rows, columns = (1 + max(cell[axis] for cell in cells) for axis in (0, 1))
    return [(_part(shape[0], row, rows), _part(shape[1], column, columns)) for row, column in cells]


def _part(length, index, count):
    start, stop = round(length * index / count), round(length * (index + 1) / count)
    return slice(start, stop - (GAP if index + 1 < count else 0))


def sideBySide(parts):
    """Pictures of the same height in one row."""
    gap = np.full((parts[0].shape[0], GAP, 3), _GREY, np.uint8)
    row = [piece for part in parts for piece in (gap, part)][1:]
    return np.concatenate(row, axis=1)


def save(pixels, path):
    Image.fromarray(pixels).save(path)
