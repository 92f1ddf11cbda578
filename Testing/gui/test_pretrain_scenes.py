"""EMIMPretrain's panel when a scene is added, opened or closed: whose choices it shows then."""

# ruff: noqa: F811  fixtures are imported

import gc
import weakref

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from pretrain_story import panel, shot, show_table, table  # noqa: E402, F401


@pytest.fixture
def chosen(panel, host, table):
    """The panel with a scanned cohort, and labels drawn on one of its cases."""
    show_table(panel, table)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation.GetSegmentation().AddEmptySegment("lesion", "Lesion")
    image = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    panel.ui.labelSegmentationSelector.setCurrentNode(segmentation)
    panel.ui.labelReferenceSelector.setCurrentNode(image)
    panel.ui.labelCaseComboBox.setCurrentIndex(panel.ui.labelCaseComboBox.findData("p3"))
    panel.ui.structuresFromSegmentationButton.click()
    panel.ui.maskRatioSlider.value = 0.6
    assert_chosen(panel)
    assert panel.ui.labelCaseComboBox.currentText == "p3"
    return panel


def assert_chosen(panel):
    """What :func:`chosen` chose, but for what needs the scan, is shown, and stored in the scene."""
    node, ui = panel.state.parameterNode, panel.ui
    names = {"labelSegmentation": "drawn", "labelReference": "image"}
    assert {role: name(getattr(node, role)) for role in names} == names
    assert {role: name(node.parameterNode.GetNodeReference(role)) for role in names} == names
    assert name(ui.labelSegmentationSelector.currentNode()) == "drawn"
    assert name(ui.labelReferenceSelector.currentNode()) == "image"
    assert node.labelCase == "p3" and ui.structuresTable.rowCount == 1
    assert ui.maskRatioSlider.value == pytest.approx(0.6)
    assert ui.cohortPathLineEdit.currentPath == node.cohortFolder != ""


def name(node):
    return node.GetName() if node is not None else None


def test_a_scene_that_is_added_changes_no_choice(chosen, host, table, otherScene):
    slicer.util.loadScene(str(otherScene), {"clear": False})
    host.processEvents(0.05)
    assert slicer.util.getNode("other segmentation") is not None
    assert_chosen(chosen)
    assert chosen.state.table is table and chosen.ui.cohortTable.rowCount == 8
    assert chosen.ui.labelCaseComboBox.currentText == "p3"
    assert chosen.ui.exportLabelsButton.enabled, chosen.ui.exportLabelsButton.toolTip
    chosen.ui.finetuneCollapsibleButton.collapsed = chosen.ui.drawnLabelsGroupBox.collapsed = False
    shot(host, chosen, "scene-added", 2200)


@pytest.mark.parametrize("clear", [True, False], ids=["opened", "added"])
def test_a_saved_scene_brings_its_choices(chosen, host, tmp_path, clear):
    file = str(tmp_path / "scène.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear()
    host.processEvents(0.05)
    node, ui = chosen.state.parameterNode, chosen.ui
    assert node.labelSegmentation is None and node.labelReference is None and node.labelCase == ""
    assert ui.labelSegmentationSelector.currentNode() is None and chosen.state.table is None
    assert ui.labelReferenceSelector.currentNode() is None and ui.structuresTable.rowCount == 0

    slicer.util.mainWindow().moduleSelector().leave()  # the panel follows the scene also then
    slicer.util.loadScene(file, {"clear": clear})
    host.processEvents(0.05)
    assert_chosen(chosen)


def test_a_scene_that_was_closed_leaves_nothing_with_the_node(chosen):
    shown = weakref.ref(chosen.state.parameterNode)
    slicer.mrmlScene.Clear()
    assert shown() is None, "Slicer's own binding never lets go of it"
    gc.collect()
    chosen.state.parameterNode.Modified()
