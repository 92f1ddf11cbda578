"""Stand-ins for Slicer's modules and the factory that loads scripted ones."""

import importlib.util
import os
import sys

import slicer
from PySide6 import QtWidgets as W
from PySide6.QtCore import QObject, Signal

from slicerhost.mrml_widgets import qMRMLWidget
from slicerhost.widget_classes import properties, stand_in


@stand_in
class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The panel of a scripted module; ``self()`` is the module's Python widget."""

    locals().update(properties(isEntered=(bool, False)))

    def self(self):
        return self._python

    def reload(self):
        """Makes the module's Python widget (anew): a panel that is entered stays so, without enter()."""
        name = self.objectName.removesuffix("ModuleWidget")
        self._python = getattr(sys.modules[name], name + "Widget")(self)
        setattr(slicer.modules, name + "Widget", self._python)
        self._python.setup()


class qSlicerModule:
    """A module of the application with a logic and no panel."""

    def __init__(self, name, logic=None, path=""):
        self.name, self.path, self._logic = name, path, logic
        self.title, self.categories, self.dependencies, self.contributors = name, [], [], []
        self.helpText = self.acknowledgementText = ""
        self.icon, self.hidden, self.index, self.associatedNodeTypes = None, False, -1, []

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None

    def enter(self):
        pass

    def exit(self):
        pass


class qSlicerScriptedLoadableModule(qSlicerModule):
    """A module that is a Python file; its panel is made when first wanted."""

    def __init__(self, name, path):
        super().__init__(name, None, path)
        self._widget = None

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self):
        widget = qSlicerScriptedLoadableModuleWidget()
        widget.setObjectName(self.name + "ModuleWidget")
        widget.setLayout(W.QVBoxLayout())
        widget.setMRMLScene(slicer.mrmlScene)
        widget.reload()
        return widget

    def enter(self):
        widget = self.widgetRepresentation()
        if not widget.isEntered:
            widget.isEntered = True
            widget.self().enter()

    def exit(self):
        if self._widget and self._widget.isEntered:
            self._widget.isEntered = False
            self._widget.self().exit()

    def cleanup(self):
        """What the application does with the panel when it ends."""
        if self._widget:
            self.exit()
            self._widget.self().cleanup()
            self._widget.delete()
            self._widget = None


class qSlicerModuleManager(QObject):
    slicerClassName = "qSlicerModuleManager"
    moduleAboutToBeUnloaded = Signal(str)

    def module(self, name):
        return getattr(slicer.modules, name.lower(), None)


def loadScripted(path):
    """Loads a scripted module's file as the module factory does; returns the module."""
    path = os.path.abspath(path)
    name = os.path.splitext(os.path.basename(path))[0]
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    python = importlib.util.module_from_spec(spec)
    sys.modules[name] = python
    spec.loader.exec_module(python)
    module = qSlicerScriptedLoadableModule(name, path)
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.modules, name + "Instance", getattr(python, name)(module))
    return module
