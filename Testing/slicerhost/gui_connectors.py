"""Stand-in for slicer.parameterNodeWrapper's GUI connectors: which widget can show which parameter.

The pairs are those of Slicer; another pair is an error.
"""

import pathlib

_SLIDERS = ("ctkSliderWidget", "ctkDoubleSlider", "qMRMLSliderWidget")
_FLOATS = (*_SLIDERS, "ctkDoubleSpinBox", "qMRMLSpinBox")


class GuiConnector:
    """How a widget says that it changed (signal; None: never), how to read it and how to write it."""

    def __init__(self, widget, signal, read, write):
        self._widget, self._signal, self._read, self._write = widget, signal, read, write
        self._callback = None

    def widget(self):
        return self._widget

    def read(self):
        return self._read()

    def write(self, value):
        self._write(value)

    def onChanged(self, callback):
        """Calls ``callback()`` after each change of the widget; None: no more."""
        self._callback = callback
        if self._signal is not None:
            connect = self._signal.disconnect if callback is None else self._signal.connect
            connect(self._changed)

    def _changed(self, *_):
        if self._callback is not None:
            self._callback()


def _attribute(widget, name, signal, read=lambda value: value, write=lambda value: value):
    return GuiConnector(
        widget,
        signal,
        lambda: read(getattr(widget, name)),
        lambda value: setattr(widget, name, write(value)),
    )


def connector(widget, datatype):
    """The connector of a widget and a parameter's type; RuntimeError where Slicer has none for the pair."""
    name = type(widget).__name__
    for applies, make in _CONNECTORS:
        if applies(name, datatype):
            return make(widget, datatype)
    raise RuntimeError(f"a parameter of type {datatype.type} cannot be bound to a {name}")


def _choices(datatype):
    return next((v.choices for v in datatype.validators if hasattr(v, "choices")), None)


def _limit(datatype, name):
    return next((getattr(v, name) for v in datatype.validators if hasattr(v, name)), None)


def _node(widget, datatype):
    widget.nodeTypes = [kind.__name__ for kind in datatype.nodes]
    return GuiConnector(widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)


def _button(widget, datatype):
    widget.checkable = True
    return _attribute(widget, "checked", widget.toggled)


def _number(widget, datatype):
    minimum, maximum = _limit(datatype, "minimum"), _limit(datatype, "maximum")
    if None in (minimum, maximum) and type(widget).__name__ in (*_SLIDERS, "QSlider"):
        raise RuntimeError("a slider needs a parameter with WithinRange")
    widest = 2**31 - 1
    if datatype.type is int and hasattr(widget, "decimals"):
        widget.decimals = 0
    widget.setRange(-widest if minimum is None else minimum, widest if maximum is None else maximum)
    return _attribute(widget, "value", widget.valueChanged, read=datatype.type)


def _combo_box(widget, datatype):
    items = list(_choices(datatype) or datatype.type)
    widget.clear()
    for item in items:
        widget.addItem(_label(item, datatype))
    return GuiConnector(
        widget,
        widget.currentIndexChanged,
        lambda: items[widget.currentIndex],
        lambda value: widget.setCurrentIndex(items.index(value)),
    )


def _label(item, datatype):
    if not datatype.isEnum:
        return str(item)
    return item.label() if hasattr(item, "label") else item.name


def _path(attribute, signal):
    return lambda w, p: _attribute(w, attribute, getattr(w, signal), read=pathlib.Path, write=str)


_CONNECTORS = (
    (lambda n, p: p.nodes and n == "qMRMLNodeComboBox", _node),
    (
        lambda n, p: p.type is bool and n in ("QCheckBox", "ctkCheckBox"),
        lambda w, p: _attribute(w, "checked", w.toggled),
    ),
    (lambda n, p: p.type is bool and n in ("QPushButton", "ctkPushButton"), _button),
    (lambda n, p: p.type is int and n in ("QSlider", "QSpinBox", *_FLOATS), _number),
    (lambda n, p: p.type is float and n in ("QDoubleSpinBox", *_FLOATS), _number),
    (lambda n, p: (p.isEnum or _choices(p)) and n in ("QComboBox", "ctkComboBox"), _combo_box),
    (lambda n, p: p.type is str and n == "QLineEdit", lambda w, p: _attribute(w, "text", w.textChanged)),
    (
        lambda n, p: p.type is str and n in ("QTextEdit", "QPlainTextEdit"),
        lambda w, p: _attribute(w, "plainText", w.textChanged),
    ),
    (lambda n, p: p.type is str and n == "QLabel", lambda w, p: _attribute(w, "text", None)),
    (
        lambda n, p: p.type is pathlib.Path and n == "ctkPathLineEdit",
        _path("currentPath", "currentPathChanged"),
    ),
    (
        lambda n, p: p.type is pathlib.Path and n == "ctkDirectoryButton",
        _path("directory", "directoryChanged"),
    ),
)
