"""Stand-in for slicer.parameterNodeWrapper's GUI connectors: which widget can show which parameter.

The pairs are those of Slicer; another pair is an error.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SLIDERS = ("ctkSliderWidget", "ctkDoubleSlider", "qMRMLSliderWidget")
_FLOATS = (*_SLIDERS, "ctkDoubleSpinBox", "qMRMLSpinBox")


@dataclass
class Binding:
    """How a widget says that it changed (None: never), how to read it and how to write it."""

    signal: Any
    read: Callable
    write: Callable


def _attribute(widget, name, signal, read=lambda value: value, write=lambda value: value):
    return Binding(
        signal, lambda: read(getattr(widget, name)), lambda value: setattr(widget, name, write(value))
    )


def bind(widget, parameter):
    """The binding of one widget and parameter; RuntimeError where Slicer has none for the pair."""
    name = type(widget).__name__
    for applies, make in _CONNECTORS:
        if applies(name, parameter):
            return make(widget, parameter)
    raise RuntimeError(f"parameter '{parameter.name}' ({parameter.type}) cannot be bound to a {name}")


def _choices(parameter):
    return next((v.choices for v in parameter.validators if hasattr(v, "choices")), None)


def _limit(parameter, name):
    return next((getattr(v, name) for v in parameter.validators if hasattr(v, name)), None)


def _node(widget, parameter):
    widget.nodeTypes = [kind.__name__ for kind in parameter.nodes]
    return Binding(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)


def _button(widget, parameter):
    widget.checkable = True
    return _attribute(widget, "checked", widget.toggled)


def _number(widget, parameter):
    minimum, maximum = _limit(parameter, "minimum"), _limit(parameter, "maximum")
    if None in (minimum, maximum) and type(widget).__name__ in (*_SLIDERS, "QSlider"):
        raise RuntimeError(f"parameter '{parameter.name}': a slider needs WithinRange")
    widest = 2**31 - 1
    if parameter.type is int and hasattr(widget, "decimals"):
        widget.decimals = 0
    widget.setRange(-widest if minimum is None else minimum, widest if maximum is None else maximum)
    return _attribute(widget, "value", widget.valueChanged, read=parameter.type)


def _combo_box(widget, parameter):
    items = list(_choices(parameter) or parameter.type)
    widget.clear()
    for item in items:
        widget.addItem(_label(item, parameter))
    return Binding(
        widget.currentIndexChanged,
        lambda: items[widget.currentIndex],
        lambda value: widget.setCurrentIndex(items.index(value)),
    )


def _label(item, parameter):
    if not parameter.isEnum:
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
