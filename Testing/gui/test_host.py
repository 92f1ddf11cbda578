"""The host itself: strict where the application is strict, and true where it is real."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicerhost

slicerhost.start()
import ctk  # noqa: E402
import qt  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="layout">
<item><widget class="qMRMLNodeComboBox" name="selector">
<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="noneEnabled"><bool>true</bool></property>
<property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item>
<item><widget class="QSpinBox" name="stepsSpinBox">
<property name="SlicerParameterName" stdset="0"><string>steps</string></property></widget></item>
</layout></widget>
<connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""

MODULE = """
from typing import Annotated
import qt, slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from EMIMLib.parameter_gui import GuiBinding

class HostProbe(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Probe")

@parameterNodeWrapper
class HostProbeParameterNode:
    volume: slicer.vtkMRMLScalarVolumeNode
    steps: Annotated[int, WithinRange(1, 50)] = 7

class HostProbeWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/HostProbe.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.node = self.binding = None

    def enter(self):
        self.node = HostProbeParameterNode(ScriptedLoadableModuleLogicOfProbe().getParameterNode())
        self.binding = GuiBinding(self.node, self.ui, lambda: None)

    def exit(self):
        self.binding.release()
        self.binding = None

    def cleanup(self):
        if self.binding:  # reloaded
            self.exit()

class ScriptedLoadableModuleLogicOfProbe(ScriptedLoadableModuleLogic):
    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.moduleName = "HostProbe"
"""


@pytest.fixture
def probe(host, tmp_path):
    """A small scripted module, entered."""
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "HostProbe.ui").write_text(UI, encoding="utf-8")
    (tmp_path / "HostProbe.py").write_text(MODULE, encoding="utf-8")
    return host.enter(host.loadModule(tmp_path / "HostProbe.py"))


@pytest.fixture
def loadUI(tmp_path):
    def load(text):
        (tmp_path / "panel.ui").write_text(text, encoding="utf-8")
        return slicer.util.loadUI(str(tmp_path / "panel.ui"))

    return load


def _volume(shape=(4, 5, 6), name="volume"):
    """A volume node of this shape (K, J, I) with voxels 0, 1, 2, … and the identity as its grid."""
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=np.eye(4), name=name)


def _ijk_to_ras(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


# Strict


@pytest.mark.parametrize(
    "right, wrong, error",
    [
        ('name="noneEnabled"', 'name="noneEnable"', "no property 'noneEnable'"),
        ('"qMRMLNodeComboBox"', '"qMRMLNodeCombobox"', "widget class qMRMLNodeCombobox"),
        ("mrmlSceneChanged(", "sceneChanged(", "no signal"),
        ("setMRMLScene(", "setScene(", "setScene"),
        ("<receiver>selector", "<receiver>selektor", "selektor"),
        ("</ui>", "", "element"),
    ],
)
def test_ui_mistake(loadUI, right, wrong, error):
    loadUI(UI)
    with pytest.raises(Exception, match=error):
        loadUI(UI.replace(right, wrong))


def test_properties_are_attributes():
    button = qt.QPushButton("Apply")
    assert button.text == "Apply"
    button.enabled = False
    assert not button.enabled
    with pytest.raises(TypeError):
        button.text()


@pytest.mark.parametrize("make", [lambda: qt.QPushButton("Apply"), lambda: ctk.ctkSliderWidget()])
def test_misspelt_attribute(make):
    with pytest.raises(AttributeError, match="enable"):
        make().enable = False


def test_wrong_type():
    with pytest.raises(ValueError):
        qt.QSpinBox().value = "a"


@pytest.mark.parametrize(
    "widget, signal",
    [
        ("QComboBox", "currentIndexChanged(QString)"),
        ("QCheckBox", "checkStateChanged(Qt::CheckState)"),
        ("QPushButton", "click()"),
        ("QSpinBox", "valueChangd(int)"),
    ],
)
def test_unknown_signal(widget, signal):
    with pytest.raises(ValueError, match="no signal"):
        getattr(qt, widget)().connect(signal, print)


def test_unknown_widget_class_and_module():
    for module, name in ((slicer, "qMRMLNodeSelector"), (ctk, "ctkSlider"), (slicer.modules, "segmentation")):
        with pytest.raises(AttributeError):
            getattr(module, name)


def test_connections_can_be_undone():
    box, seen = qt.QSpinBox(), []
    box.connect("valueChanged(int)", seen.append)
    box.value = 3
    assert box.disconnect("valueChanged(int)", seen.append)
    box.value = 4
    assert seen == [3]
    assert not box.disconnect("valueChanged(int)", seen.append)


def test_a_static_method_of_timers_hides_their_property(host):
    timer, seen = qt.QTimer(), []
    with pytest.raises(AttributeError, match="can not be overwritten"):
        timer.singleShot = True
    timer.setSingleShot(True)
    qt.QTimer.singleShot(0, lambda: seen.append(1))
    assert timer.isSingleShot() and host.processEvents(1, until=lambda: seen)


def test_error_in_a_slot_is_seen(slot_errors):
    button = qt.QPushButton("Apply")
    button.connect("clicked(bool)", lambda: 1 / 0)
    button.click()
    assert [kind for kind, *_ in slot_errors] == [ZeroDivisionError]
    slot_errors.clear()


def test_dialog_needs_an_answer(host):
    with pytest.raises(RuntimeError, match="nobody answers"):
        qt.QFileDialog.getOpenFileName(None, "Model", "/")
    host.answer("/model.zip")
    assert qt.QFileDialog.getOpenFileName(None, "Model", "/") == "/model.zip"
    slicer.app.setTesting(False)
    host.answer(qt.QMessageBox.Cancel)
    assert not slicer.util.confirmOkCancelDisplay("Remove?")


def test_dialog_that_nobody_closes(monkeypatch):
    monkeypatch.setattr("slicerhost.dialogs._SECONDS", 0.2)
    dialog = qt.QDialog()
    dialog.windowTitle = "Import"
    with pytest.raises(RuntimeError, match="nobody closed QDialog 'Import'"):
        dialog.exec_()


def test_dialog_that_closes_itself(host):
    slicer.util.delayDisplay("Wait", 400)


def test_leftover_process_is_seen(monkeypatch):
    from slicerhost.fixtures import _MARK, _processes_with

    monkeypatch.setenv(_MARK, "probe")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert list(_processes_with("probe")) == [process.pid]
    process.communicate(b"\n")
    assert not _processes_with("probe")


# Widgets


def test_collapsing_keeps_hidden_what_the_module_hid():
    button = ctk.ctkCollapsibleButton("Inputs")
    layout = qt.QVBoxLayout(button)
    shown, hidden = qt.QLabel("a"), qt.QLabel("b")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.visible = False
    button.collapsed = True
    assert shown.isHidden()
    button.collapsed = False
    assert not shown.isHidden() and hidden.isHidden()


def test_node_selector_chooses_by_itself_only_where_its_node_goes():
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    volume = _volume()
    assert selector.nodeCount() == 1 and selector.currentNode() is None
    selector.setCurrentNode(volume)
    assert selector.currentNodeID == volume.GetID()
    other = _volume()
    slicer.mrmlScene.RemoveNode(volume)
    assert selector.currentNode() is other, "as Slicer's does"
    slicer.mrmlScene.RemoveNode(other)
    assert selector.currentNode() is None


@pytest.mark.parametrize("clear", [True, False], ids=["opened", "added"])
def test_node_selectors_let_go_when_a_scene_comes(tmp_path, clear):
    file = str(tmp_path / "scene.mrml")
    assert slicer.util.saveScene(file)
    volume, told = _volume(name="chosen"), []
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes, selector.noneEnabled = ["vtkMRMLScalarVolumeNode"], True
    selector.setMRMLScene(slicer.mrmlScene)
    selector.setCurrentNode(volume)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", told.append)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: selector.setCurrentNode(volume))
    slicer.util.loadScene(file, {"clear": clear})
    assert told == [None] and selector.currentNode() is None, "as Slicer's do, which have no rows then"
    assert selector.nodeCount() == (0 if clear else 1)


def test_node_selector_chooses_none_instead_of_what_it_does_not_offer():
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes, selector.noneEnabled = ["vtkMRMLScalarVolumeNode"], True
    selector.setMRMLScene(slicer.mrmlScene)
    for other in (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode").GetID(), "vtkMRMLVolumeNode77", ""):
        selector.setCurrentNode(_volume())
        selector.setCurrentNodeID(other)
        assert selector.currentNode() is None


def test_path_line_tells_what_it_accepts():
    edit, told, valid = ctk.ctkPathLineEdit(), [], []
    edit.connect("currentPathChanged(QString)", told.append)
    edit.connect("validInputChanged(bool)", valid.append)
    for path in ("/a", "", "/b.csv"):
        edit.currentPath = path
    edit.nameFilters = ["Tables (*.csv *.json)", "All files (*)"]
    edit.currentPath = "/c.tsv"
    assert told == ["/a", "/b.csv"] and valid == [True, False, True, False]


def test_path_line_takes_up_the_path_used_last_and_tells_of_its_list_being_put_in_order():
    def line():
        edit = ctk.ctkPathLineEdit()
        edit.settingKey = "Probe"
        return edit

    edit, told = line(), []
    for path in ("/a", "/b", "/a"):
        edit.currentPath = path
        edit.addCurrentPathToHistory()
    edit.connect("currentPathChanged(QString)", told.append)
    edit.addCurrentPathToHistory()
    assert edit.currentPath == "/a" and told == ["/b", "/a"]
    assert line().currentPath == "/a"
    named = ctk.ctkPathLineEdit()
    named.setObjectName("Probe")
    assert named.currentPath == "", "without a key the list is never read"


# Modules


def test_parameters_and_widgets_follow_each_other(probe):
    assert probe.ui.stepsSpinBox.value == probe.node.steps == 7
    probe.ui.stepsSpinBox.value = 9
    assert probe.node.steps == 9
    probe.node.volume = _volume()
    assert probe.ui.selector.currentNode() is probe.node.volume
    with pytest.raises(ValueError):
        probe.node.steps = 51
    with pytest.raises(TypeError):
        probe.node.steps = 1.5
    with pytest.raises(AttributeError):
        probe.node.step = 3


def test_a_reloaded_panel_stays_entered_without_enter(probe, reload):
    again = reload(probe)
    assert again is not probe and again.parent is probe.parent and again.parent.isEntered
    assert again.node is None, "enter() makes it"
    again.enter()


def test_parameter_node_survives_a_scene_file(probe, tmp_path):
    probe.node.steps, probe.node.volume = 11, _volume(name="kept")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    probe.exit()
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    probe.enter()
    assert probe.ui.stepsSpinBox.value == 11
    assert probe.ui.selector.currentNode().GetName() == "kept"


def test_parameters_are_read_again_only_when_their_node_was_modified(probe, tmp_path):
    probe.node.volume = _volume(name="kept")
    file = str(tmp_path / "scene.mrml")
    assert slicer.util.saveScene(file)
    probe.exit()
    probe.node.volume = None
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(file, {"clear": False})
    stored = probe.node.parameterNode.GetNodeReference("volume")
    assert stored.GetName() == "kept" and probe.node.volume is None, "as Slicer's wrapper"
    probe.node.Modified()
    assert probe.node.volume is stored
    probe.enter()


def test_unsupported_parameter_type():
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    class Node:
        values: set[int]

    with pytest.raises(TypeError, match="set"):
        parameterNodeWrapper(Node)


# Real Slicer


@pytest.mark.parametrize("flip", [1, -1], ids=["right-handed", "left-handed"])
def test_oblique_grid_keeps_its_place_in_the_world(tmp_path, flip):
    """Slicer turns a left-handed grid into a right-handed one; every voxel stays where it was."""
    nibabel = pytest.importorskip("nibabel")
    cosine, sine = np.cos(0.3), np.sin(0.3)
    affine = np.array([[cosine, -sine, 0, 10], [sine, cosine, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    affine = affine @ np.diag([1.0, 1.5, 2.0 * flip, 1.0])
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)  # I, J, K
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "image.nii.gz")
    node = slicer.util.loadVolume(str(tmp_path / "image.nii.gz"))
    loaded = _ijk_to_ras(node)
    assert np.linalg.det(loaded[:3, :3]) > 0
    for index in ((0, 0, 0), (2, 3, 4), (1, 2, 1)):
        ijk = np.rint(np.linalg.solve(loaded, affine @ [*index, 1]))[:3].astype(int)
        assert slicer.util.arrayFromVolume(node)[tuple(ijk[::-1])] == voxels[index]


def test_export_in_the_world(tmp_path):
    node, path = _volume(), str(tmp_path / "moved.nii.gz")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 10, 20, 30
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    count = slicer.mrmlScene.GetNumberOfNodes()
    assert slicer.util.exportNode(node, path, {}, world=True)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert np.allclose(_ijk_to_ras(node), np.eye(4)), "the node itself is left as it was"
    assert np.allclose(_ijk_to_ras(slicer.util.loadVolume(path)), matrix, atol=1e-5)


def test_subject_hierarchy_item_of_each_volume():
    node = _volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    assert item and hierarchy.GetItemName(item) == "volume"
    slicer.mrmlScene.RemoveNode(node)
    assert not hierarchy.GetItemByDataNode(node)


def test_segmentation_is_drawn_over_the_volume(host):
    volume = _volume(shape=(20, 20, 20))
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("a", "a", [1, 0, 0])
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:15, 5:15, 5:15] = 1
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    view = slicer.app.layoutManager().viewOf("vtkMRMLSliceNode", "Red")
    assert _red(view.pixels()) == 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    assert _red(view.pixels()) > 0.05


def _red(pixels):
    """The fraction of a picture that is clearly red."""
    red, green, blue = (pixels[..., channel].astype(int) for channel in range(3))
    return np.mean((red > green + 40) & (red > blue + 40))


def test_chart_is_drawn_in_the_layout(host, tmp_path):
    table = np.column_stack([np.arange(10.0), np.arange(10.0) ** 2])
    slicer.util.plot(table, xColumnIndex=0, columnNames=["step", "loss"], title="Loss")
    layout = slicer.app.layoutManager()
    assert layout.plotViewCount == 1
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")[0]
    series.SetColor(1, 0, 0)
    assert _red(layout.viewOf("vtkMRMLPlotViewNode", "PlotView1").pixels()) > 0.001
    series.SetYColumnName("los")
    with pytest.raises(ValueError, match="no column 'los'"):
        layout.viewOf("vtkMRMLPlotViewNode", "PlotView1").pixels()


def test_table_is_drawn_in_the_layout():
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.arange(6).reshape(3, 2), ["a", "b"])
    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    view = layout.viewOf("vtkMRMLTableViewNode", "TableView1")
    empty = view.pixels()
    slicer.app.applicationLogic().GetSelectionNode().SetActiveTableID(table.GetID())
    slicer.app.applicationLogic().PropagateTableSelection()
    assert layout.tableWidget(0).tableView().mrmlTableNode() is table
    assert (view.pixels() != empty).any()


def test_window_picture(host, probe, tmp_path):
    host.screenshot(tmp_path / "window.png", size=(900, 600))
    picture = qt.QImage(str(tmp_path / "window.png"))
    assert (picture.width(), picture.height()) == (900, 600)


def test_show_makes_a_picture_from_a_plain_shell(tmp_path):
    hidden = ("QT_QPA_PLATFORM", "VTK_DEFAULT_OPENGL_WINDOW", "PYTHONPATH", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    script = Path(slicerhost.__file__).with_name("show.py")
    command = [sys.executable, str(script), "EMIMPretrain", "--out", "panel.png", "--size", "900x700"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    picture = qt.QImage(str(tmp_path / "panel.png"))
    assert (picture.width(), picture.height()) == (900, 700)
