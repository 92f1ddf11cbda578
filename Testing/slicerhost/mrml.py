"""The MRML scene and Slicer's own logics, as the application makes them at its start. Real Slicer, no Qt.

From the wheel slicer-core: nodes, storage, logics, colours, units. A stand-in is only the upkeep of
subject-hierarchy items (subject_hierarchy.py), which a Qt class does in Slicer.
"""

import colorsys
import contextlib
import tempfile

import slicer
import vtk

from slicerhost.subject_hierarchy import SubjectHierarchyItems

# Module names in Slicer, and the logic of each.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


@contextlib.contextmanager
def _quiet():
    """The wheel lacks the application's colour and terminology files; that this is missed is no news."""
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_INFO)


def _add_generic_colors(scene):
    """Stand-in for the colours of label maps, in the application read from a file that the wheel lacks."""
    node = slicer.vtkMRMLColorTableNode()
    node.SetName("GenericColors")
    node.SetSingletonTag("FileGenericColors.txt")
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    for value in range(256):
        rgb = colorsys.hsv_to_rgb(value * 0.618 % 1.0, 0.7, 0.9) if value else (0.0, 0.0, 0.0)
        node.SetColor(value, str(value), *rgb, 1.0 if value else 0.0)
    node.HideFromEditorsOff()
    node.SaveWithSceneOff()
    scene.AddNode(node)


class MRMLHost:
    """The scene, the application logic and the modules' logics ({name: logic})."""

    def __init__(self):
        with _quiet():
            self._set_up()
        slicer.mrmlScene = self.scene

    def _set_up(self):
        self.scene = scene = slicer.vtkMRMLScene()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.logics = {}
        self._cache = tempfile.TemporaryDirectory(prefix="slicerhost-cache-")
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        self.applicationLogic.SetMRMLScene(scene)
        self.applicationLogic.SetTemporaryPath(self._cache.name)
        self.applicationLogic.GetColorLogic().SetMRMLScene(scene)
        self.applicationLogic.GetColorLogic().AddDefaultColorNodes()
        _add_generic_colors(scene)
        self.applicationLogic.SetSliceLogics(vtk.vtkCollection())
        self.applicationLogic.SetViewLogics(vtk.vtkCollection())
        for name, className in LOGICS.items():
            self._add_logic(name, getattr(slicer, className)())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self._enable_file_access()
        self.hierarchy = SubjectHierarchyItems(scene)

    def _add_logic(self, name, logic):
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        logic.SetMRMLScene(self.scene)
        self.applicationLogic.SetModuleLogic(name, logic)
        self.logics[name] = logic

    def _enable_file_access(self):
        """What storage nodes and .mrb files need: a cache folder and the data I/O manager."""
        self._remoteIO = slicer.vtkMRMLRemoteIOLogic()
        self._remoteIO.SetMRMLScene(self.scene)
        self._remoteIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._remoteIO.GetCacheManager().SetRemoteCacheDirectory(self._cache.name)
        self._dataIO = slicer.vtkDataIOManagerLogic()
        self._dataIO.SetMRMLScene(self.scene)
        self._dataIO.SetMRMLApplicationLogic(self.applicationLogic)
        self._dataIO.SetAndObserveDataIOManager(self._remoteIO.GetDataIOManager())
        self._remoteIO.AddDataIOToScene()
