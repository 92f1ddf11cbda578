"""A Qt widget as an array of pixels."""

import numpy as np
from PySide6 import QtGui


def pixels_of(widget):
    """The widget's picture (row from the top, column, RGB), uint8."""
    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()
