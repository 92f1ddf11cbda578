"""Stand-in for slicer.parameterNodeWrapper, on the real parameter node.

Supported types: int, float, str, bool, pathlib.Path, enumerations and MRML node classes (also Optional), with
the validators below. Another type is an error. Values are stored as Slicer stores them (parameters as text,
nodes as references), so scenes can be exchanged; they are read again only when the node says that it was
modified, as in Slicer. Slicer's own binding of widgets, ``connectGui``, is absent: EMIMLib.parameter_gui has
one.
"""

import enum
import pathlib
import types
import typing
import weakref

import slicer
import vtk

from slicerhost import gui_connectors
from slicerhost.gui_connectors import GuiConnector

__all__ = [
    "parameterNodeWrapper",
    "Validator",
    "WithinRange",
    "Minimum",
    "Maximum",
    "Choice",
    "Default",
    "GuiConnector",
    "createGuiConnector",
]


class Validator:
    """Base of the annotations that restrict a value."""

    def validate(self, value):
        raise NotImplementedError


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is greater than {self.maximum}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


class Default:
    def __init__(self, value):
        self.value = value


def _node_classes(kind):
    """The MRML classes of a node type, of a union of them or of an Optional; else None."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    classes = [c for c in (typing.get_args(kind) if union else (kind,)) if c is not type(None)]
    if all(isinstance(c, type) and issubclass(c, slicer.vtkMRMLNode) for c in classes):
        return tuple(classes)
    return None


class DataType:
    """A parameter's type as declared: the type itself, its limits, and what kind it is."""

    def __init__(self, annotated):
        self.annotated = annotated
        self.type, *self.annotations = typing.get_args(typing.Annotated[annotated, None])[:-1]
        self.validators = [a for a in self.annotations if isinstance(a, Validator)]
        self.nodes = _node_classes(self.type)
        self.isEnum = isinstance(self.type, type) and issubclass(self.type, enum.Enum)


def createGuiConnector(widget, datatype):
    """The connector of a widget and a (possibly annotated) type."""
    return gui_connectors.connector(widget, DataType(datatype))


class Parameter(DataType):
    """One declared parameter, and how it is kept in the parameter node."""

    def __init__(self, owner, name, annotated):
        super().__init__(annotated)
        self.name = name
        plain = self.type in (int, float, str, bool, pathlib.Path)
        if not (self.nodes or self.isEnum or plain):
            raise TypeError(f"{owner.__name__}.{name}: the test host has no parameters of type {self.type}")
        self.default = self._default(owner)

    def _default(self, owner):
        if hasattr(owner, self.name):
            return getattr(owner, self.name)
        for annotation in self.annotations:
            if isinstance(annotation, Default):
                return annotation.value
        choices = next((v.choices for v in self.validators if isinstance(v, Choice)), None)
        if self.nodes:
            return None
        if self.isEnum:
            return next(iter(self.type))
        return choices[0] if choices else self.type()

    def check(self, value):
        """Raises TypeError or ValueError for a value that the parameter cannot take."""
        if self.nodes:
            good = value is None or isinstance(value, self.nodes)
        elif self.type is float:
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif self.type is int:
            good = isinstance(value, int) and not isinstance(value, bool)
        else:
            good = isinstance(value, self.type)
        if not good:
            raise TypeError(f"parameter '{self.name}': {value!r} is no {self.type}")
        for validator in self.validators:
            validator.validate(value)

    def write(self, node, value):
        self.check(value)
        if self.nodes:
            node.SetParameter(self.name, "")  # so that HasParameter is true, also of a node that is None
            node.SetNodeReferenceID(self.name, value.GetID() if value else None)
        else:
            node.SetParameter(self.name, value.name if self.isEnum else str(value))

    def read(self, node):
        """The value; one that the node does not hold, as after it was reset, is the default again."""
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        if self.nodes:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.type is bool:
            return text == "True"
        return self.type[text] if self.isEnum else self.type(text)


class CachedParameter:
    """A parameter's value as of the node's last ModifiedEvent.

    A scene's import resolves the references of nodes without such an event.
    """

    def __init__(self, parameter, node):
        self._parameter, self._node, self._writing = parameter, node, False
        self.value = parameter.read(node)
        reference = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: reference()._modified())

    def __del__(self):
        self._node.RemoveObserver(self._tag)

    def _modified(self):
        if not self._writing:
            self.value = self._parameter.read(self._node)

    def write(self, value):
        self._writing = True
        try:
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, value)
                self.value = self._parameter.read(self._node)
        finally:
            self._writing = False


class Wrapper:
    """Base of every wrapped class: its parameters are attributes, kept in a parameter node."""

    allParameters = {}

    def __init__(self, parameterNode, prefix=None):
        self.parameterNode = parameterNode
        self._cached = {name: CachedParameter(p, parameterNode) for name, p in self.allParameters.items()}

    def __setattr__(self, name, value):
        own = name.startswith("_") or name == "parameterNode" or hasattr(type(self), name)
        if not own:
            raise AttributeError(f"{type(self).__name__} has no parameter '{name}'")
        super().__setattr__(name, value)

    def getValue(self, name):
        return self._cached[name].value

    def setValue(self, name, value):
        self._cached[name].write(value)

    def dataType(self, name):
        return self.allParameters[name].annotated

    def default(self, name):
        return Default(self.allParameters[name].default)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying):
        return self.parameterNode.EndModify(wasModifying)

    def Modified(self):
        self.parameterNode.Modified()


def _attribute(name):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def parameterNodeWrapper(cls):
    """Class decorator: makes the annotated attributes parameters of a parameter node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: Parameter(cls, name, annotated) for name, annotated in hints.items()}
    hidden = ("__dict__", "__weakref__", "__annotations__")
    body = {k: v for k, v in vars(cls).items() if k not in parameters and k not in hidden}
    body.update({name: _attribute(name) for name in parameters}, allParameters=parameters)
    return type(cls.__name__, (Wrapper,), body)
