"""The module EMIMPretrain: pre-train on one's own unlabelled MRI, then make a model from few labels."""

import sys
from pathlib import Path

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

from EMIMPretrainLib.cohort_section import CohortSection
from EMIMPretrainLib.evaluate_section import EvaluateSection
from EMIMPretrainLib.finetune_section import FinetuneSection
from EMIMPretrainLib.logic import EMIMPretrainLogic
from EMIMPretrainLib.panel_state import PanelState
from EMIMPretrainLib.patterns_section import PatternsSection
from EMIMPretrainLib.pretrain_section import PretrainSection
from EMIMPretrainLib.runs_section import RunsSection
from EMIMPretrainLib.studies_section import StudiesSection
from EMIMPretrainLib.watch_section import WatchSection

from EMIMLib.installation_section import InstallationSection
from EMIMLib.parameter_gui import FIRST, GuiBinding, releaseNode


class EMIMPretrain(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("EMIM Pretrain")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The EMIM developers"]
        parent.helpText = _(
            "Teaches a network on your own MRI without labels (E-MIM: masked image modelling that does not "
            "collapse), and makes a model for segmentation or classification from few labelled cases. "
            "Everything stays on this computer. Not a medical device."
        )
        parent.acknowledgementText = _("Networks and training are built on MONAI and PyTorch.")


class EMIMPretrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Puts the sections of the panel together."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.state = None
        self.ui = None
        self.sections = []
        self._binding = None
        self._updating = False

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/EMIMPretrain.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = EMIMPretrainLogic()
        self.state = PanelState(self.update, self.selectRun)
        self.cohort = CohortSection(self.ui, self.logic, self.state)
        self.studies = StudiesSection(self.ui, self.logic, self.state, self.cohort.scan)
        self.patterns = PatternsSection(self.ui, self.logic, self.state, self.cohort.scan)
        self.pretrain = PretrainSection(self.ui, self.logic, self.state)
        self.runs = RunsSection(self.ui, self.logic, self.state)
        self.watch = WatchSection(self.ui, self.logic, self.state)
        self.finetune = FinetuneSection(self.ui, self.logic, self.state)
        self.evaluation = EvaluateSection(self.ui, self.logic, self.state)
        self.installation = InstallationSection(
            self.ui.installationCollapsibleButton.layout(), self.onInstallationChanged
        )
        # In the order of the data: what the first ones find decides what the later ones offer.
        self.sections = [self.cohort, self.studies, self.patterns]
        self.sections += [self.runs, self.pretrain, self.watch, self.finetune, self.evaluation]
        self.addObserver(
            slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeLeaves, priority=FIRST
        )
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndBatchProcessEvent, self.onSceneEndBatch)
        self.initializeParameterNode()
        if self.parent.isEntered:  # reloaded: nobody calls enter()
            self.enter()

    def cleanup(self):
        self.setParameterNode(None)
        self.removeObservers()
        self.selectRun(None)
        self.patterns.close()
        self.runs.close()
        self.installation.cleanup()
        self.logic.close()

    def enter(self):
        self.installation.update()
        self.initializeParameterNode()
        self.runs.watch(True)
        self.runs.attachRemembered()
        self.finetune.refresh()

    def exit(self):
        self.runs.watch(False)

    def onReload(self):
        for name in [n for n in sys.modules if n.split(".")[0] == "EMIMPretrainLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeLeaves(self, caller, event, node):
        if self.state.parameterNode is not None:
            releaseNode(self.state.parameterNode, node)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)
        self.watch.sceneClosed()

    def onSceneStartImport(self, caller, event):
        # At the end of the import Slicer's selectors let go of their nodes, which is no choice of the user's.
        self.setParameterNode(None)

    def onSceneEndBatch(self, caller, event):
        """The last event also when a scene was closed or imported."""
        if self.state.parameterNode is None:
            self.initializeParameterNode()
            self.runs.attachRemembered()

    def onInstallationChanged(self):
        self.runs.refresh()
        self.finetune.refresh()

    def initializeParameterNode(self):
        old, node = self.state.parameterNode, self.logic.getParameterNode()
        if self._binding is None or old.parameterNode is not node.parameterNode:
            self.setParameterNode(node)
        self.update()

    def setParameterNode(self, node):
        """Show the parameters of ``node``; None: of no scene."""
        if self._binding is not None:
            self._binding.release()
        self.state.parameterNode, self._binding = node, None
        if node is not None:
            self._binding = GuiBinding(node, self.ui, self.update)
        if node is not None and self.state.monitor is not None:
            node.currentRun = str(self.state.monitor.folder)

    def update(self):
        """Bring the whole panel up to date."""
        if self._updating or self.state.parameterNode is None:  # what a section changes, it has seen
            return
        self._updating = True
        try:
            for section in self.sections:
                section.update()
        finally:
            self._updating = False

    def selectRun(self, monitor):
        """Watch another run, or none."""
        old = self.state.monitor
        if old is not None and old is not monitor:
            old.onEvent = old.onState = None
        self.state.monitor = monitor
        if monitor is not None:
            monitor.onEvent, monitor.onState = self.onRunEvent, self.onRunState
            if self.state.parameterNode is not None:
                self.state.parameterNode.currentRun = str(monitor.folder)
        self.watch.show()
        if old is not None and old is not monitor:
            self.logic.release(old)
        self.update()

    def onRunEvent(self, monitor, event):
        self.watch.handle(event)

    def onRunState(self, monitor):
        self.watch.stateChanged()
        if not monitor.running:
            self.runs.refresh()
            self.finetune.refresh()
        self.update()


class EMIMPretrainTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer ("Reload and Test") in a few seconds, without training."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_parameterNode()
        self.setUp()
        self.test_settings()

    def test_parameterNode(self):
        self.delayDisplay("Parameters are kept in the scene")
        node = EMIMPretrainLogic().getParameterNode()
        self.assertEqual(node.preset, "tiny")
        node.maskRatio = 0.6
        self.assertAlmostEqual(EMIMPretrainLogic().getParameterNode().maskRatio, 0.6)
        with self.assertRaises(ValueError):
            node.maskRatio = 2.0

    def test_settings(self):
        self.delayDisplay("Settings that cannot work are refused in words")
        logic = EMIMPretrainLogic()
        node = logic.getParameterNode()
        self.assertEqual(logic.settingsProblem(logic.pretrainSettings(node)), "")
        node.crop = 50
        self.assertIn("50", logic.settingsProblem(logic.pretrainSettings(node)))
