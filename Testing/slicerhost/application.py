"""Stand-ins for slicer.app and the main window."""

import logging
import tempfile

import qt
import slicer
from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, QObject, Signal

from slicerhost.io_manager import qSlicerCoreIOManager
from slicerhost.layout import qMRMLLayoutManager
from slicerhost.modules import qSlicerModuleManager


class CommandOptions:
    """What the command line of Slicer would have set."""

    __slots__ = ("runPythonAndExit",)

    def __init__(self):
        self.runPythonAndExit = False


class qSlicerApplication(W.QApplication):
    slicerClassName = "qSlicerApplication"
    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)
    majorVersion, minorVersion, revision, os, arch = 5, 12, "0", "linux", "amd64"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/5.12/"

    def __init__(self):
        super().__init__(["Slicer"])
        self.setApplicationName("Slicer")
        self.setApplicationVersion("5.12.4")
        self.setOrganizationName("slicerhost")
        self._folder = tempfile.TemporaryDirectory(prefix="slicerhost-")
        self._options = CommandOptions()
        self._testing = True

    def configure(self, host):
        self._host = host
        self._module_manager, self._io_manager = qSlicerModuleManager(), qSlicerCoreIOManager()
        self._layout_manager = qMRMLLayoutManager(host.mrml.applicationLogic, host.mrml.scene)
        self._main_window = qSlicerMainWindow()

    temporaryPath = Property(str, lambda self: self._folder.name)
    slicerHome = Property(str, lambda self: self._folder.name)

    def testingEnabled(self):
        """True, unless a test asks for the popups: ``slicer.app.setTesting(False)`` (test host only)."""
        return self._testing

    def setTesting(self, on):
        self._testing = on

    def commandOptions(self):
        return self._options

    def moduleManager(self):
        return self._module_manager

    def coreIOManager(self):
        return self._io_manager

    def ioManager(self):
        return self._io_manager

    def layoutManager(self):
        return self._layout_manager

    def mrmlScene(self):
        return self._host.mrml.scene

    def applicationLogic(self):
        return self._host.mrml.applicationLogic

    def userSettings(self):
        return qt.QSettings()

    def settings(self):
        return qt.QSettings()

    def translate(self, context, text):
        return text

    def moduleDocumentationUrl(self, name):
        return self.documentationBaseUrl + "user_guide/modules/" + name.lower() + ".html"

    def pauseRender(self):
        """Nothing is drawn until asked."""

    def resumeRender(self):
        """Nothing is drawn until asked."""

    def restart(self):
        """Counts the requests (``host.restarts``) instead of restarting."""
        logging.warning("test host: restart requested")
        self._host.restarts += 1


class ModuleSelector(QObject):
    """The module menu in the toolbar."""

    slicerClassName = "qSlicerModuleSelectorToolBar"
    moduleSelected = Signal(str)

    def __init__(self):
        super().__init__()
        self._selected = ""

    selectedModule = Property(str, lambda self: self._selected)

    def selectModule(self, name):
        if name == self._selected:
            return
        if not hasattr(slicer.modules, name.lower()):
            raise RuntimeError(f"no module '{name}' is loaded in the test host")
        self.leave()
        self._selected = name
        getattr(slicer.modules, name.lower()).enter()
        self.moduleSelected.emit(name)

    def leave(self):
        """Closes the open module, if any (test host only)."""
        if self._selected:
            getattr(slicer.modules, self._selected.lower()).exit()
        self._selected = ""


class qSlicerMainWindow(W.QMainWindow):
    slicerClassName = "qSlicerMainWindow"

    def __init__(self):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self):
        return self._selector
