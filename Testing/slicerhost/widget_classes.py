"""The stand-ins' widget classes by name, and the shorthand that declares their Qt properties."""

from PySide6.QtCore import Property

_classes = {}


def find(name):
    """The stand-in class of this name, or None."""
    return _classes.get(name)


def stand_in(cls):
    """Class decorator: names the class as Slicer does and makes it known to .ui files."""
    cls.slicerClassName = cls.__name__
    _classes[cls.__name__] = cls
    return cls


def stand_ins(prefixes):
    """All classes whose name begins with one of the prefixes: {name: class}."""
    return {name: cls for name, cls in _classes.items() if name.startswith(prefixes)}


def properties(**declared):
    """Qt properties with their setName methods: name=(type, default[, method called after a change]).

    Use as ``locals().update(properties(...))`` in a class body: PySide6 wants them there.
    """
    made = {}
    for name, (kind, default, *changed) in declared.items():
        get, set_ = _accessors("_property_" + name, kind, default, changed)
        made[name] = Property(kind, get, set_)
        made["set" + name[0].upper() + name[1:]] = set_
    return made


def _accessors(key, kind, default, changed):
    def get(self):
        return self.__dict__.get(key, default)

    def set_(self, value):
        if kind == "QStringList":
            value = tuple(value)
        elif not isinstance(kind, str) and value is not None:
            value = kind(value)
        self.__dict__[key] = value
        for method in changed:
            getattr(self, method)()

    return get, set_
