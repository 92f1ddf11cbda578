"""Stand-in for Slicer's flat ``qt`` module: all Q* names of PySide6, and a strict loader of .ui files."""

import re
import xml.etree.ElementTree as ET

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import QObject, Qt  # noqa: F401

from slicerhost import dialogs, pythonqt, widget_classes

pythonqt.patch()
dialogs.install()
qInstallMessageHandler = QtCore.qInstallMessageHandler
for _module in pythonqt.MODULES:
    globals().update({name: getattr(_module, name) for name in dir(_module) if re.match(r"Q[A-Z]", name)})

Qt.qVersion = staticmethod(QtCore.qVersion)  # PythonQt keeps it there


class QUiLoader(QtUiTools.QUiLoader):
    """Loads .ui files; unknown classes, properties, signals, slots and receivers are errors."""

    _problem = None

    def createWidget(self, className, parent=None, name=""):
        # Called from C++, which an exception would crash: it is kept, and raised by load().
        if self._problem is None:
            try:
                return self._make(className, parent, name)
            except Exception as problem:
                self._problem = problem
        return super().createWidget("QWidget", parent, name)

    def _make(self, className, parent, name):
        stand_in = widget_classes.find(className)
        if stand_in:
            widget = stand_in(parent)
            widget.setObjectName(name)
            return widget
        if className not in self.availableWidgets():
            raise LookupError(f".ui uses the widget class {className}, which the test host does not know")
        return super().createWidget(className, parent, name)

    def load(self, device, parent=None):
        root = ET.fromstring(bytes(device.readAll()))
        connections = root.find("connections")
        if connections is not None:  # Qt's loader cannot connect to Python slots and skips them silently
            root.remove(connections)
        stripped = QtCore.QBuffer()
        stripped.setData(ET.tostring(root))
        stripped.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(stripped, parent)
        if self._problem:
            raise self._problem
        if widget is None:
            raise RuntimeError(f".ui cannot be loaded: {self.errorString()}")
        children = [widget, *widget.findChildren(QObject)]
        by_name = {child.objectName: child for child in children if child.objectName}
        _check_properties(root, by_name)
        for connection in connections if connections is not None else []:
            _make_connection(connection, by_name)
        return widget


def _check_properties(root, by_name):
    """Qt's loader turns an unknown property into a dynamic one; here it is an error."""
    for element in root.iter("widget"):
        meta = by_name[element.get("name")].metaObject()
        for prop in element.findall("property"):
            if prop.get("stdset") != "0" and meta.indexOfProperty(prop.get("name")) < 0:
                where = f"{element.get('class')} '{element.get('name')}'"
                raise AttributeError(f".ui: {where} has no property '{prop.get('name')}'")


def _make_connection(connection, by_name):
    sender, signal, receiver, slot = (
        connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")
    )
    for name in (sender, receiver):
        if name not in by_name:
            raise LookupError(f".ui connects '{name}', which is no widget of this file")
    by_name[sender].connect(signal, by_name[receiver], slot)


del QtGui, QtWidgets
