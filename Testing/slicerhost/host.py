"""The test host: Slicer's real core with stand-ins for the application around it."""

import os
import sys
import time
import types

import qt
import slicer
import slicer.util

from slicerhost import (
    application,
    dialogs,
    i18n,
    modules,
    mrml,
    parameter_node,
    pictures,
    sample_data,
    scripted_module,
)
from slicerhost.widget_classes import stand_ins


class Host:
    """Made once in a process, by slicerhost.start()."""

    def __init__(self):
        qt.qInstallMessageHandler(_qt_message)
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QCoreApplication.setAttribute(qt.Qt.AA_ShareOpenGLContexts)
        for name, cls in stand_ins(("qMRML", "qSlicer")).items():
            setattr(slicer, name, cls)
        slicer.qSlicerScriptedLoadableModule = modules.qSlicerScriptedLoadableModule
        slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
        slicer.modules.sampleDataSources = {}
        self.restarts = 0
        self.app = slicer.app = application.qSlicerApplication()
        self.mrml = mrml.MRMLHost()
        for name, logic in self.mrml.logics.items():
            setattr(slicer.modules, name.lower(), modules.qSlicerModule(name, logic))
        _add_python_modules()
        self.useSettingsFolder(self.app.temporaryPath)
        self.app.configure(self)

    def useSettingsFolder(self, folder):
        """QSettings are kept in this folder from now on."""
        for scope in (qt.QSettings.UserScope, qt.QSettings.SystemScope):
            qt.QSettings.setPath(qt.QSettings.IniFormat, scope, str(folder))

    def answer(self, *values):
        """Queues the answers to the next modal dialogs; see dialogs.py."""
        dialogs.answers.extend(values)

    @property
    def openedUrls(self):
        """The addresses given to QDesktopServices.openUrl since the last reset."""
        return dialogs.openedUrls

    def reset(self):
        """Closes all panels and the scene; returns the answers that no dialog asked for."""
        self.app.setTesting(True)
        slicer.util.mainWindow().moduleSelector().leave()
        for module in list(vars(slicer.modules).values()):
            if isinstance(module, slicer.qSlicerScriptedLoadableModule):
                module.cleanup()
        slicer.mrmlScene.Clear()
        self.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self.app.processEvents()
        self.restarts = 0
        unasked = list(dialogs.answers)
        dialogs.answers.clear()
        dialogs.openedUrls.clear()
        return unasked

    def loadModule(self, path):
        """Loads a module's Python file; then the application reports that it has started up."""
        module = modules.loadScripted(str(path))
        self.app.startupCompleted.emit()
        self.app.disconnect("startupCompleted()")
        return module

    def enter(self, module):
        """Opens the module's panel; returns the module's Python widget."""
        slicer.util.selectModule(module)
        return module.widgetRepresentation().self()

    def processEvents(self, seconds=0.0, until=None):
        """Runs the event loop for so long, or until the condition holds; returns whether it holds."""
        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            if until is not None and until():
                return True
            if time.monotonic() >= end:
                return until is None
            time.sleep(0.01)

    def grabPanel(self, widget, path, size=None):
        """Saves a picture of a widget (or of a module's Python widget)."""
        pictures.save(pictures.panel(_qt_widget(widget), size), os.fspath(path))

    def screenshot(self, path, panel=None, size=(1400, 900), panelWidth=460):
        """Saves a picture like the application's window: the panel (the open module's, if none is given)
        and the views of the present layout."""
        if panel is None:
            name = slicer.util.selectedModule()
            panel = getattr(slicer.modules, name.lower()).widgetRepresentation() if name else None
        width, height = size
        # A taller panel is cut off, as the application scrolls it.
        parts = [pictures.panel(_qt_widget(panel), (panelWidth, height))[:height]] if panel else []
        room = width - sum(part.shape[1] + pictures.GAP for part in parts)
        parts.append(pictures.views(self.app.layoutManager(), room, height))
        pictures.save(pictures.sideBySide(parts), os.fspath(path))


def _qt_message(kind, context, message):
    """Qt's own warnings go to stderr, but for one that every window without a screen causes."""
    if "propagateSizeHints" not in message:
        print(f"Qt: {message}", file=sys.stderr)


def _qt_widget(panel):
    return panel if hasattr(panel, "metaObject") else panel.parent


def _add_python_modules():
    """Makes Slicer's Python modules that the wheel lacks importable."""
    for name, module in (
        ("i18n", i18n),
        ("ScriptedLoadableModule", scripted_module),
        ("parameterNodeWrapper", parameter_node),
    ):
        sys.modules["slicer." + name] = module
        setattr(slicer, name, module)
    sys.modules["SampleData"] = sample_data
