"""Stand-ins for CTK's sliders and spin boxes."""

from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.widget_classes import properties, stand_in

_LARGE = 1e15  # a QDoubleSpinBox cannot hold infinity
_SLIDER_STEPS = 1000


class ValueWidget(W.QWidget):
    """A slider beside a spin box; the base of the classes below."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    locals().update(
        properties(
            singleStep=(float, 1.0, "_update"),
            pageStep=(float, 10.0),
            decimals=(int, 2, "_update"),
            prefix=(str, "", "_update"),
            suffix=(str, "", "_update"),
            tracking=(bool, True),
            spinBoxVisible=(bool, True, "_update"),
            minimum=(float, 0.0, "_update"),
            maximum=(float, 99.0, "_update"),
            tickInterval=(float, 0.0),
        )
    )
    hasSlider = True

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = W.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._spin_box = W.QSlider(Qt.Horizontal), W.QDoubleSpinBox()
        self._slider.setRange(0, _SLIDER_STEPS)
        self._slider.setVisible(self.hasSlider)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin_box)
        self._update()
        self._spin_box.valueChanged.connect(self._changed)
        self._slider.valueChanged.connect(self._slid)

    def _update(self):
        box = self._spin_box
        box.setDecimals(self.decimals)
        box.setRange(max(self.minimum, -_LARGE), min(self.maximum, _LARGE))
        box.setSingleStep(self.singleStep)
        box.setPrefix(self.prefix)
        box.setSuffix(self.suffix)
        box.setVisible(self.spinBoxVisible)
        self._place_slider()

    def _slid(self, step):
        self._spin_box.setValue(self.minimum + (self.maximum - self.minimum) * step / _SLIDER_STEPS)

    def _place_slider(self):
        span = self.maximum - self.minimum
        if 0 < span < _LARGE:
            blocked = self._slider.blockSignals(True)
            self._slider.setValue(round(_SLIDER_STEPS * (self._spin_box.value - self.minimum) / span))
            self._slider.blockSignals(blocked)

    def _changed(self, value):
        self._place_slider()
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _get(self):
        return self._spin_box.value

    def setValue(self, value):
        self._spin_box.setValue(float(value))

    value = Property(float, _get, setValue)

    def setRange(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum


@stand_in
class ctkSliderWidget(ValueWidget):
    pass


@stand_in
class ctkDoubleSlider(ValueWidget):
    pass


@stand_in
class ctkDoubleSpinBox(ValueWidget):
    hasSlider = False
