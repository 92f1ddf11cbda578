"""EMIMSegment: segment multi-modal MRI with models made by EMIM. The panel; the work is done by its Logic.

From the Python console::

    from EMIMSegment import EMIMSegmentLogic
    segmentation = EMIMSegmentLogic().process(
        inputs={"T1": getNode("pat07_t1"), "FLAIR": getNode("pat07_flair")},
        model="glioma", waitForCompletion=True)
"""

from __future__ import annotations

import sys
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:
    import EMIMLib  # noqa: F401
except ImportError:  # run from a source checkout, where it lies beside the module's folder
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from EMIMSegmentLib.alignment_section import AlignmentSection
from EMIMSegmentLib.batch_section import BatchSection
from EMIMSegmentLib.class_result_section import ClassResultSection
from EMIMSegmentLib.inputs_section import InputsSection
from EMIMSegmentLib.logic import EMIMSegmentLogic
from EMIMSegmentLib.model_section import ModelSection
from EMIMSegmentLib.panel_state import PanelState
from EMIMSegmentLib.result_section import ResultSection
from EMIMSegmentLib.run_section import RunSection
from EMIMSegmentLib.self_test import SelfTest

from EMIMLib import sample_data
from EMIMLib.error_display import showError
from EMIMLib.installation_section import InstallationSection
from EMIMLib.parameter_gui import FIRST, GuiBinding, releaseNode
from EMIMLib.sequence_frame import browsers


class EMIMSegment(ScriptedLoadableModule):
    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("EMIM Segment")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The EMIM developers"]
        self.parent.helpText = _(
            "Segments or classifies multi-modal MRI with a model from EMIM Pretrain or elsewhere. "
            "The MRI sequences may lie on different grids, and some may be missing. "
            "For research; every result must be checked by a physician."
        )
        self.parent.acknowledgementText = _("Networks and inference are built on MONAI and PyTorch.")
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self) -> None:
        sample_data.register(self.resourcePath("Icons/EMIMSegment.png"))


class EMIMSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Holds the sections together and follows the scene."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._binding = None
        self._updating = False

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/EMIMSegment.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = EMIMSegmentLogic()
        self.state = PanelState(self.update)
        self._makeSections()
        self._sceneTimer = qt.QTimer()  # many nodes come at once: look at them once, when all are there
        self._sceneTimer.setSingleShot(True)
        self._sceneTimer.setInterval(0)
        self._sceneTimer.connect("timeout()", self._onSceneContentChanged)
        self._observeScene()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self._sceneTimer.stop()
        for job in self._jobs():
            job.abandon()
        self.installation.cleanup()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.installation.update()
        self.initializeParameterNode()

    def onReload(self) -> None:
        for name in [n for n in sys.modules if n.split(".")[0] == "EMIMSegmentLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def initializeParameterNode(self) -> None:
        old, node = self.state.parameterNode, self.logic.getParameterNode()
        if self._binding is None or old.parameterNode is not node.parameterNode:
            self.setParameterNode(node)
        self._followSequences()
        self.refreshModels()

    def setParameterNode(self, node) -> None:
        """Show the parameters of ``node``; None: of no scene."""
        if self._binding is not None:
            self._binding.release()
        self.state.parameterNode, self._binding = node, None
        if node is not None:
            self._binding = GuiBinding(node, self.ui, self.update)

    def refreshModels(self) -> None:
        """Read the folder of models again."""
        if self.state.parameterNode is None:
            return
        self.modelSection.refresh()
        self._guess()
        self.update()

    def _guess(self) -> None:
        """Fill in the inputs, but not while a run works on those that are shown."""
        if self.state.job is None:
            self.inputsSection.guess()

    def update(self) -> None:
        """Bring every section up to date with the parameter node and with what is running."""
        busy = self._updating or slicer.mrmlScene.IsBatchProcessing()  # half a scene is no scene
        if self.state.parameterNode is None or busy:
            return
        self._updating = True
        try:
            for section in self.sections:
                section.update()
        finally:
            self._updating = False

    def _makeSections(self) -> None:
        ui, logic, state = self.ui, self.logic, self.state
        self.modelSection = ModelSection(ui, logic, state, self._guess)
        self.inputsSection = InputsSection(ui, logic, state)
        self.alignmentSection = AlignmentSection(ui, logic, state)
        self.resultSection = ResultSection(ui, logic, state)
        self.classResultSection = ClassResultSection(ui, logic, state)
        self.runSection = RunSection(
            ui,
            logic,
            state,
            self.inputsSection.reason,
            self.resultSection.showRun,
            self.classResultSection.showRun,
        )
        self.batchSection = BatchSection(ui, logic, state, self.resultSection.show)
        self.sections = (
            self.modelSection,
            self.inputsSection,
            self.alignmentSection,
            self.runSection,
            self.resultSection,
            self.classResultSection,
            self.batchSection,
        )
        self.installation = InstallationSection(ui.installationFrame.layout(), self.refreshModels)

    def _jobs(self):
        return self.alignmentSection.job, self.runSection.job, self.batchSection.job

    def _observeScene(self) -> None:
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self._onSceneStartImport)
        self.addObserver(scene, scene.EndBatchProcessEvent, self._onSceneEndBatch)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, self._onSceneEvent)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeLeaves, priority=FIRST)

    def _followSequences(self) -> None:
        """The inputs' warning names the frame of a sequence that is shown."""
        for browser in browsers():
            if not self.hasObserver(browser, vtk.vtkCommand.ModifiedEvent, self._onBrowserModified):
                self.addObserver(browser, vtk.vtkCommand.ModifiedEvent, self._onBrowserModified)

    def _onBrowserModified(self, browser, event) -> None:
        if not browser.GetPlaybackActive():  # each frame of a film would be checked
            self._onSceneEvent(browser, event)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeLeaves(self, caller, event, node) -> None:
        if self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._onBrowserModified):
            self.removeObserver(node, vtk.vtkCommand.ModifiedEvent, self._onBrowserModified)
        if self.state.parameterNode is not None:
            releaseNode(self.state.parameterNode, node)

    def _onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)
        for section in (self.inputsSection, self.alignmentSection, self.resultSection, self.batchSection):
            section.forget()

    def _onSceneStartImport(self, caller, event) -> None:
        # At the end of the import Slicer's selectors let go of their nodes, which is no choice of the user's.
        self.setParameterNode(None)
        self.inputsSection.forget()

    def _onSceneEndBatch(self, caller, event) -> None:
        """The last event also when a scene was closed or imported."""
        if self.state.parameterNode is None and self.parent.isEntered:
            self.initializeParameterNode()
        self._onSceneEvent(caller, event)

    def _onSceneEvent(self, caller, event) -> None:
        if self.parent.isEntered and not self._sceneTimer.active:  # else enter() will look
            self._sceneTimer.start()

    def _onSceneContentChanged(self) -> None:
        if self.state.parameterNode is None or slicer.mrmlScene.IsBatchProcessing():
            return
        try:
            self._followSequences()
            self._guess()
            self.update()
        except Exception as error:
            showError(error)


class EMIMSegmentTest(ScriptedLoadableModuleTest):
    """Runs in Slicer by "Reload and Test"; needs no packages, no model and no internet."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()  # "Reload and Test" calls only this method
        SelfTest(self).run()
