"""Stand-in for PythonQt: makes the PySide6 classes behave as Python sees Qt inside Slicer.

Changed for the whole process, by patching PySide6's classes:

- Qt properties are attributes (``w.text``, ``w.enabled = False``), so that ``w.text()`` fails as in Slicer;
  setters stay methods (``w.setText``).
- ``obj.connect("clicked(bool)", fn)`` and ``obj.disconnect(...)``; the signature must exist.
- Setting an attribute that is no property of a Qt object raises AttributeError.
- ``obj.name`` is objectName; ``obj.delete()``, ``obj.className()`` and ``exec_()`` exist.

Not imitated: enums are objects here and ints in PythonQt, QByteArray, and the ownership rules.
"""

import inspect
import re

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

QObject = QtCore.QObject
MODULES = (QtCore, QtGui, QtWidgets)

# Methods of the same name that subclasses override in C++, or that take arguments.
_NOT_PROPERTIES = {"sizeHint", "minimumSizeHint", "spacing", "duration", "contentsMargins"}
_QT6_ONLY = {"checkStateChanged"}  # signals that Slicer 5's Qt lacks
_get_property, _set_property = QObject.property, QObject.setProperty


def _qt_classes(modules=MODULES):
    """All QObject classes of the modules, base classes first."""
    members = {getattr(m, name) for m in modules for name in dir(m) if name.startswith("Q")}
    classes = [c for c in members if isinstance(c, type) and issubclass(c, QObject)]
    return sorted(classes, key=lambda c: len(c.__mro__))


def _attribute(name, make=property):
    """A Python property that reads and writes the Qt property of this name."""

    def get(self):
        return _get_property(self, name)

    def set_(self, value):
        meta = self.metaObject()
        if not meta.property(meta.indexOfProperty(name)).isWritable():
            raise AttributeError(f"property '{name}' of {meta.className()} is not writable")
        if not _set_property(self, name, value):
            raise ValueError(f"cannot set {meta.className()}.{name} to {value!r}")

    return make(get, set_)


class _SingleShot:
    """``QTimer.singleShot(milliseconds, function)``, a static method; the property is hidden."""

    def __get__(self, timer, owner=None):
        return _call_later

    def __set__(self, timer, value):
        raise AttributeError("Slot 'singleShot' can not be overwritten on QTimer object")


def _call_later(milliseconds, function):
    timer = QtCore.QTimer(QtCore.QCoreApplication.instance())
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: function())
    timer.timeout.connect(timer.deleteLater)
    timer.start(milliseconds)


def _positional_arguments(function):
    """How many positional arguments the function takes, or None where it takes any number."""
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _find_signal(sender, signature):
    """The bound signal for a C++ signature, and its number of arguments."""
    match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", signature)
    if not match:
        raise ValueError(f"bad signal signature '{signature}'")
    name, arguments = match.group(1), [a for a in match.group(2).split(",") if a.strip()]
    normalized = QtCore.QMetaObject.normalizedSignature(signature)
    normalized = normalized if isinstance(normalized, str) else bytes(normalized).decode()
    stand_in = getattr(type(sender), "slicerSignals", {}).get(normalized)
    if stand_in:
        return getattr(sender, stand_in), len(arguments)
    if sender.metaObject().indexOfSignal(normalized) < 0 or name in _QT6_ONLY:
        raise ValueError(f"{sender.metaObject().className()} has no signal '{normalized}'")
    signal = getattr(sender, name)
    try:  # the overload that was named, where a signal has several
        return signal[_python_types(arguments)] if arguments else signal, len(arguments)
    except (KeyError, IndexError, TypeError):
        return signal, len(arguments)


def _python_types(arguments):
    known = {"int": int, "bool": bool, "double": float, "QString": str}
    types = tuple(known[a.replace("const", "").replace("&", "").strip()] for a in arguments)
    return types[0] if len(types) == 1 else types


def _connect(self, signature, *target):
    """``connect(signature, callable)`` or ``connect(signature, receiver, "slot()")``."""
    signal, count = _find_signal(self, signature)
    if len(target) == 2:
        function = getattr(target[0], re.match(r"\w+", target[1]).group())
    else:
        (function,) = target
    if not callable(function):
        raise TypeError("connect() needs a callable")
    accepted = _positional_arguments(function)
    count = count if accepted is None else min(count, accepted)
    # PySide6 hands over as many arguments as the slot declares, hence one lambda for each number.
    call = (
        lambda: function(),
        lambda a: function(a),
        lambda a, b: function(a, b),
        lambda a, b, c: function(a, b, c),
    )[count]
    signal.connect(call)
    self.__dict__.setdefault("_connections", []).append((signature.replace(" ", ""), function, signal, call))
    return True


def _disconnect(self, signature=None, function=None):
    """Disconnects what connect() connected: everything, one signal, or one signal from one function."""
    kept, found = [], False
    for connection in self.__dict__.get("_connections", []):
        named, connected, signal, call = connection
        if signature in (None, named) and function in (None, connected):
            signal.disconnect(call)
            found = True
        else:
            kept.append(connection)
    self.__dict__["_connections"] = kept
    return found


def _set_attribute(self, name, value):
    cls = type(self)
    declared = inspect.getattr_static(cls, name, None)
    if isinstance(declared, QtCore.Property):  # of a stand-in; PySide6 treats these outside descriptors
        if not _set_property(self, name, list(value) if isinstance(value, tuple) else value):
            raise ValueError(f"cannot set {cls.__name__}.{name} to {value!r}")
    elif hasattr(type(declared), "__set__"):
        declared.__set__(self, value)
    elif _is_strict(cls) and not name.startswith("_") and not _is_child(value, name):
        raise AttributeError(f"'{name}' is no property of {cls.__name__}, and none can be made")
    else:
        self.__dict__[name] = value


def _is_child(value, name):
    """PySide6's loader makes named children attributes, which they are in PythonQt, too."""
    signal = isinstance(value, QtCore.SignalInstance)
    return signal or isinstance(value, QObject) and value.objectName == name


def _is_strict(cls):
    """True for Qt's and the stand-ins' own classes; a module's own subclasses may have attributes."""
    return cls.__module__.startswith("PySide6.") or "slicerClassName" in vars(cls)


def _get_attribute(original):
    # PySide6 treats connect and disconnect specially, before looking at the class.
    own = {"connect": _connect, "disconnect": _disconnect}

    def __getattribute__(self, name):
        return own[name].__get__(self) if name in own else original(self, name)

    return __getattribute__


def patch():
    """Patches PySide6; a second call does nothing."""
    if hasattr(QObject, "className"):
        return
    for cls in _qt_classes():
        meta = cls.staticMetaObject
        for index in range(meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _NOT_PROPERTIES and (index >= meta.propertyOffset() or name in vars(cls)):
                setattr(cls, name, _attribute(name))
        if hasattr(cls, "exec") and not hasattr(cls, "exec_"):
            cls.exec_ = cls.exec
    for cls in _qt_classes((*MODULES, QtUiTools)):
        if "__getattribute__" in vars(cls):
            cls.__getattribute__ = _get_attribute(vars(cls)["__getattribute__"])
        if "__setattr__" in vars(cls):
            cls.__setattr__ = _set_attribute
    QObject.connect, QObject.disconnect = _connect, _disconnect
    QObject.name = _attribute("objectName")
    QtCore.QTimer.singleShot = _SingleShot()
    QObject.delete = lambda self: shiboken6.delete(self)
    QObject.className = lambda self: getattr(type(self), "slicerClassName", self.metaObject().className())
