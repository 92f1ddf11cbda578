"""EMIMSegment's panel when a scene is added, opened or closed: whose choices it shows then."""

# ruff: noqa: F811  fixtures are imported

import gc
import weakref

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from segment_story import (  # noqa: E402, F401
    MODALITIES,
    case_folder,
    cohort_folder,
    combo_texts,
    load_case,
    model_package,
    panel,
    ready,
    shot,
)


@pytest.fixture
def chosen(ready, host):
    """The panel with everything chosen: inputs, one left out, the grid, an alignment, results."""
    node, rows = ready.state.parameterNode, ready.inputsSection.rows
    rows[1].notAvailable.click()
    for row in (rows[0], rows[2], rows[3]):
        row.selector.nodeActivated.emit(node.inputNode(row.modality))
    node.referenceModality = "T2"
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T1 to T2")
    node.inputNode("T1").SetNodeReferenceID("EMIM.alignment", shift.GetID())
    node.inputNode("T1").SetAndObserveTransformNodeID(shift.GetID())
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.GetSegmentation().AddEmptySegment("lesion", "Lesion")
    ready.ui.outputSelector.setCurrentNode(segmentation)
    node.outputTable = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "classes")
    host.processEvents(0.05)
    assert_chosen(ready)
    return ready


def assert_chosen(panel):
    """What :func:`chosen` chose is shown, and stored in the scene."""
    node, ui, rows = panel.state.parameterNode, panel.ui, panel.inputsSection.rows
    volumes = ["sub-001_T1", None, "sub-001_T2", "sub-001_FLAIR"]
    states = ["chosen", "notAvailable", "chosen", "chosen"]
    assert [name(node.inputNode(m)) for m in MODALITIES] == volumes
    assert [name(row.selector.currentNode()) for row in rows] == volumes
    assert [node.inputState(m) for m in MODALITIES] == states
    assert [row.notAvailable.checked for row in rows] == [False, True, False, False]
    assert combo_texts(ui.referenceComboBox)[ui.referenceComboBox.currentIndex].startswith("T2 (")
    assert ui.alignedRadioButton.checked and ui.undoAlignmentButton.enabled
    results = {"outputSegmentation": "mine", "outputTable": "classes"}
    assert {role: name(getattr(node, role)) for role in results} == results
    assert {role: name(node.parameterNode.GetNodeReference(role)) for role in results} == results
    assert name(ui.outputSelector.currentNode()) == "mine" and "mine" in ui.applyHintLabel.text
    assert not ui.resultFrame.isHidden() and "mine" in ui.resultLabel.text
    assert name(ui.segmentsTable.segmentationNode()) == "mine"


def name(node):
    return node.GetName() if node is not None else None


def test_a_scene_that_is_added_changes_no_choice(chosen, host, otherScene):
    slicer.util.loadScene(str(otherScene), {"clear": False})
    host.processEvents(0.05)
    assert slicer.util.getNode("other segmentation") is not None
    assert_chosen(chosen)
    shot(host, chosen, "scene-added", 1100)


def test_a_scene_that_is_added_while_another_module_is_open(chosen, host, otherScene):
    slicer.util.mainWindow().moduleSelector().leave()
    slicer.util.loadScene(str(otherScene), {"clear": False})
    host.processEvents(0.05)
    host.enter(slicer.modules.emimsegment)
    assert_chosen(chosen)


def test_a_scene_that_cannot_be_read_changes_no_choice(chosen, host, tmp_path):
    file = tmp_path / "broken.mrml"
    file.write_text("<MRML><Volume", encoding="utf-8")
    with pytest.raises(RuntimeError):
        slicer.util.loadScene(str(file), {"clear": False})
    host.processEvents(0.05)
    assert_chosen(chosen)


@pytest.mark.parametrize("kind", ["mrb", "mrml"])
@pytest.mark.parametrize("clear", [True, False], ids=["opened", "added"])
def test_a_saved_scene_brings_its_choices(chosen, host, tmp_path, kind, clear):
    file = str(tmp_path / f"scène.{kind}")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear()
    host.processEvents(0.05)
    node, ui = chosen.state.parameterNode, chosen.ui
    assert [node.inputState(m) for m in MODALITIES] == ["unset"] * 4
    assert node.outputSegmentation is None and node.outputTable is None
    assert ui.outputSelector.currentNode() is None and ui.resultFrame.isHidden()
    assert not any(row.selector.currentNode() for row in chosen.inputsSection.rows)

    slicer.util.loadScene(file, {"clear": clear})
    host.processEvents(0.05)
    assert_chosen(chosen)


def test_another_case_is_not_taken_for_that_of_the_scene(chosen, host, cohort_folder, tmp_path):
    file = str(tmp_path / "first.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear()
    load_case(host, cohort_folder / "sub-002")
    chosen.inputsSection.rows[2].notAvailable.click()  # of this patient; T1ce is of that one
    slicer.util.loadScene(file, {"clear": False})
    host.processEvents(0.05)
    assert_chosen(chosen)


def test_a_scene_that_was_closed_leaves_nothing_with_the_node(chosen):
    shown = weakref.ref(chosen.state.parameterNode)
    slicer.mrmlScene.Clear()
    assert shown() is None, "Slicer's own binding never lets go of it"
    gc.collect()
    chosen.state.parameterNode.Modified()
