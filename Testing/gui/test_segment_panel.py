"""EMIMSegment's panel without a worker: models, guesses, refusals, and a tooltip on every control."""

# ruff: noqa: F811  fixtures are imported

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import slicerhost

slicerhost.start()
import ctk  # noqa: E402
import qt  # noqa: E402
import slicer  # noqa: E402
from segment_story import (  # noqa: E402, F401
    MODALITIES,
    ROOT,
    case_folder,
    cohort_folder,
    combo_texts,
    fake_worker,
    load_case,
    model_package,
    panel,
    ready,
    shot,
)

from emim.package.archive import checksums  # noqa: E402

CONTROLS = (
    qt.QAbstractButton,
    qt.QComboBox,
    qt.QLineEdit,
    qt.QAbstractSlider,
    qt.QAbstractSpinBox,
    qt.QPlainTextEdit,
    qt.QAbstractItemView,
    ctk.ctkCollapsibleButton,
    slicer.qMRMLNodeComboBox,
)


def test_without_a_model_it_says_what_to_do(panel, host):
    ui = panel.ui
    assert "Import" in ui.modelCardLabel.text and "EMIM Pretrain" in ui.modelCardLabel.text
    assert not ui.applyButton.enabled and ui.applyButton.toolTip == "Choose a model."
    shot(host, panel, "empty", 800)


def test_the_card_of_a_model(ready):
    text = ready.ui.modelCardLabel.text
    for words in ("Lesion", "#e69f00", "FLAIR; better also with", "0.81", "20", "Not a medical device"):
        assert words in text


def test_a_damaged_package_is_refused(panel, model_package, tmp_path, caplog):
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(model_package, damaged)
    (damaged / "models" / "model.pt").write_bytes(b"something else")
    panel.modelSection.importModel(str(damaged))
    assert panel.ui.modelComboBox.count == 0 and "model.pt" in caplog.text


def test_import_choose_and_remove(ready, monkeypatch):
    ui = ready.ui
    assert combo_texts(ui.modelComboBox) == ["bright lesions (segmentation)"]
    path = ready.state.model.path
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: False)
    ui.removeModelButton.click()
    assert path.exists()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: True)
    ui.removeModelButton.click()
    assert not path.exists() and ui.modelComboBox.count == 0
    assert not ready.inputsSection.rows and not ui.applyButton.enabled


def test_a_scene_made_with_a_model_that_is_not_here(panel):
    panel.state.parameterNode.modelPath = "/elsewhere/models/glioma"
    assert "“glioma”" in panel.ui.modelCardLabel.text and "not installed" in panel.ui.modelCardLabel.text
    assert not panel.ui.applyButton.enabled


def test_a_model_that_lies_elsewhere_on_the_scenes_computer(ready):
    ui, node = ready.ui, ready.state.parameterNode
    here = ready.state.model
    for path in ("/home/a/models/bright lesions", r"C:\models\bright lesions", "/other/bright lesions/"):
        node.modelPath = path
        assert ready.state.model == here and ui.applyButton.enabled
        assert ui.modelComboBox.currentIndex == 0 and node.modelPath == path
        assert "same name" in ui.modelCardLabel.text and here.version in ui.modelCardLabel.text
    node.modelPath = "/home/a/models/glioma"
    assert ready.state.model is None and "“glioma”" in ui.modelCardLabel.text
    node.modelPath = str(here.path)
    assert ready.state.model == here and "same name" not in ui.modelCardLabel.text


def test_a_model_is_replaced_after_a_question(ready, model_package, tmp_path, monkeypatch, caplog):
    old, node = ready.state.model, ready.state.parameterNode
    result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "made with the old one")
    result.SetReferenceImageGeometryParameterFromVolumeNode(node.inputNode("FLAIR"))
    result.SetAttribute("EMIM.Model", old.name)
    result.SetAttribute("EMIM.ModelVersion", old.version)
    node.outputSegmentation = result
    newer = another_model(model_package, tmp_path / "newer", old.name)
    version = ready.logic.registry.package(newer).version
    asked = []

    def answer(yes):
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text) or yes)

    answer(False)
    ready.modelSection.importModel(newer)
    assert ready.state.model == old and old.version in asked[0] and version in asked[0]
    answer(True)
    weights = tmp_path / "newer" / "models" / "model.pt"
    content = weights.read_bytes()
    weights.write_bytes(b"half")
    ready.modelSection.importModel(newer)
    assert "model.pt" in caplog.text and len(asked) == 2
    assert ready.logic.registry.models() == [old] and ready.state.model == old
    assert node.outputSegmentation is result
    weights.write_bytes(content)
    ready.modelSection.importModel(newer)
    assert ready.state.model.version == version and ready.state.model.path == old.path
    assert version in ready.ui.modelCardLabel.text and old.version not in ready.ui.modelCardLabel.text
    assert node.outputSegmentation is None, "the next result is of another model"
    ready.modelSection.importModel(str(old.path))
    assert "installed already" in caplog.text and len(asked) == 3, "onto itself is no replacing"


def test_the_warning_about_a_sequence_follows_its_frame(ready, host):
    volume, ui = ready.state.parameterNode.inputNode("T2"), ready.ui
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "perfusion")
    for i in range(3):
        sequence.SetDataNodeAtValue(volume, str(i))
    browser = slicer.mrmlScene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(volume, sequence, False)
    host.processEvents(0.05)
    assert "frame 1 of 3" in ui.inputProblemsLabel.text and ui.applyButton.enabled
    browser.SetSelectedItemNumber(2)
    host.processEvents(0.05)
    assert "frame 3 of 3" in ui.inputProblemsLabel.text
    browser.SetPlaybackActive(True)
    host.processEvents(0.05)
    checked = []
    check = ready.logic.checkInputs
    ready.logic.checkInputs = lambda *given: checked.append(given) or check(*given)
    for frame in (0, 1, 0):
        browser.SetSelectedItemNumber(frame)
        host.processEvents(0.05)
    assert not checked, "not while it plays"
    browser.SetPlaybackActive(False)
    host.processEvents(0.05)
    assert checked and "frame 1 of 3" in ui.inputProblemsLabel.text
    slicer.mrmlScene.RemoveNode(browser)
    host.processEvents(0.05)
    assert not ui.inputProblemsLabel.text and not any(o[0] is browser for o in ready.Observations)


def test_guess_is_marked_and_becomes_a_choice(ready, host):
    ui, node = ready.ui, ready.state.parameterNode
    row = ready.inputsSection.rows[0]
    assert "guessed" in row.mark.text and "sub-001_T1" in row.mark.text
    other = slicer.mrmlScene.CopyNode(node.inputNode("T1"))
    other.SetName("another head")
    host.processEvents(0.05)
    row.selector.setCurrentNode(other)
    assert node.inputState("T1") == "chosen" and "chosen" in row.mark.text
    ui.guessAgainButton.click()
    assert node.inputState("T1") == "guess" and node.inputNode("T1") is not other


def test_a_guess_is_confirmed_by_choosing_the_same(ready):
    row, node = ready.inputsSection.rows[0], ready.state.parameterNode
    row.selector.nodeActivated.emit(node.inputNode("T1"))
    assert node.inputState("T1") == "chosen"


def test_volumes_that_come_later_are_guessed(panel, host, model_package, case_folder):
    panel.modelSection.importModel(str(model_package))
    assert "needed" in panel.inputsSection.rows[3].mark.text
    assert "FLAIR" in panel.ui.applyButton.toolTip
    load_case(host, case_folder)
    assert [panel.state.parameterNode.inputState(m) for m in MODALITIES] == ["guess"] * 4
    assert panel.ui.applyButton.enabled


def test_every_sequence_is_decided(ready):
    """A sequence that is missing is said to be missing, never passed over."""
    row = ready.inputsSection.rows[2]
    row.selector.setCurrentNode(None)
    assert not ready.ui.applyButton.enabled and "T2" in ready.ui.applyButton.toolTip
    row.notAvailable.click()
    assert ready.ui.applyButton.enabled and not row.selector.enabled
    row.notAvailable.click()
    assert ready.state.parameterNode.inputState("T2") == "guess"


def test_inputs_beside_a_chosen_one_are_of_its_patient(ready, host, cohort_folder):
    rows, node = ready.inputsSection.rows, ready.state.parameterNode
    first = {m: node.inputNode(m) for m in MODALITIES}
    second = load_case(host, cohort_folder / "sub-002")
    assert [node.inputNode(m) for m in MODALITIES] == list(second.values())
    rows[0].selector.setCurrentNode(first["T1"])
    assert [node.inputNode(m) for m in MODALITIES] == list(first.values())
    slicer.mrmlScene.RemoveNode(first["FLAIR"])
    host.processEvents(0.05)
    assert node.inputState("FLAIR") == "unset" and not ready.ui.applyButton.enabled
    rows[0].selector.setCurrentNode(second["T1"])
    assert [node.inputNode(m) for m in MODALITIES] == list(second.values())
    load_case(host, cohort_folder / "sub-001", ("T1", "FLAIR"))
    assert [node.inputNode(m) for m in MODALITIES] == list(second.values())


def test_not_available_is_of_one_patient(ready, host, cohort_folder):
    rows, node = ready.inputsSection.rows, ready.state.parameterNode
    rows[2].notAvailable.click()
    load_case(host, cohort_folder / "sub-001", ("T1",))  # once more the same patient
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folder = items.CreateFolderItem(items.GetSceneItemID(), "first")
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        items.SetItemParent(items.GetItemByDataNode(volume), folder)
    ready.refreshModels()
    assert node.inputState("T2") == "notAvailable" and rows[2].notAvailable.checked
    second = load_case(host, cohort_folder / "sub-002")
    assert [node.inputNode(m) for m in MODALITIES] == list(second.values())
    assert not rows[2].notAvailable.checked
    rows[2].notAvailable.click()
    others = (rows[0], rows[1], rows[3])
    for row in others:
        row.selector.nodeActivated.emit(second[row.modality])
    for row in others:  # each by hand
        assert node.inputState("T2") == "notAvailable"
        row.selector.setCurrentNode(slicer.util.getNode(f"sub-001_{row.modality}"))
    assert node.inputNode("T2").GetName() == "sub-001_T2"


def test_a_required_sequence_cannot_be_left_out(ready):
    assert ready.inputsSection.rows[3].required.parent() is not None
    assert ready.inputsSection.rows[3].notAvailable.parent() is None


def test_the_same_volume_twice_is_refused(ready, host):
    rows, node = ready.inputsSection.rows, ready.state.parameterNode
    rows[1].selector.setCurrentNode(node.inputNode("FLAIR"))
    assert "chosen both as T1ce and as FLAIR" in ready.ui.inputProblemsLabel.text
    assert not ready.ui.applyButton.enabled and "chosen both" in ready.ui.applyButton.toolTip
    shot(host, ready, "duplicate")


def test_volumes_apart_are_refused(ready):
    volume = ready.state.parameterNode.inputNode("T2")
    volume.SetOrigin(5000, 0, 0)
    ready.update()
    assert "do not overlap" in ready.ui.inputProblemsLabel.text and not ready.ui.applyButton.enabled


def test_a_removed_volume_leaves_its_row_open(ready, host):
    slicer.mrmlScene.RemoveNode(ready.state.parameterNode.inputNode("T1"))
    host.processEvents(0.05)
    assert ready.state.parameterNode.inputState("T1") == "unset"
    assert not ready.ui.applyButton.enabled
    assert ready.inputsSection.rows[0].selector.currentNode() is None, "the neighbour was not chosen"


def test_a_removed_result_is_followed_by_a_new_one(ready, host):
    node = ready.state.parameterNode
    result, other = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode") for _ in range(2))
    node.outputSegmentation = result
    slicer.modules.emimsegment.exit()  # also while another module is shown
    slicer.mrmlScene.RemoveNode(result)
    host.processEvents(0.05)
    assert node.outputSegmentation is None, "or the next run would replace what is somebody else's"
    slicer.modules.emimsegment.enter()
    assert ready.ui.outputSelector.currentNode() is None and other.GetScene() is not None


def test_the_grid_of_the_result(ready):
    combo, node = ready.ui.referenceComboBox, ready.state.parameterNode
    assert combo.count == 4 and combo_texts(combo)[0].startswith("T1 (")
    combo.setCurrentIndex(2)
    assert node.referenceModality == "T2" and ready.state.reference() == "T2"
    ready.inputsSection.rows[2].notAvailable.click()
    assert ready.state.reference() == "T1" and combo.count == 3


def test_device_is_of_this_machine_and_quality_of_the_scene(ready):
    from EMIMLib import settings

    ui = ready.ui
    ui.deviceComboBox.setCurrentIndex(0)
    assert settings.device() == "auto"
    ui.qualityComboBox.setCurrentIndex(2)
    assert ready.state.parameterNode.quality == "best"


def test_another_patient_gets_a_new_segmentation(ready, host):
    node = ready.state.parameterNode
    old = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "first patient")
    old.SetReferenceImageGeometryParameterFromVolumeNode(node.inputNode("T1"))
    ready.ui.outputSelector.setCurrentNode(old)
    assert node.outputSegmentation is old and "first patient" in ready.ui.applyHintLabel.text
    for modality in MODALITIES:
        other = slicer.mrmlScene.CopyNode(node.inputNode(modality))
        node.setInputNode(modality, other)
    assert node.outputSegmentation is None


def test_a_result_whose_patient_was_removed_is_not_replaced(ready, host, cohort_folder):
    node = ready.state.parameterNode
    old = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "first patient")
    old.SetReferenceImageGeometryParameterFromVolumeNode(node.inputNode("T1"))
    old.SetAttribute("EMIM.Model", ready.state.card.name)
    node.outputSegmentation = old
    slicer.mrmlScene.StartState(
        slicer.mrmlScene.BatchProcessState
    )  # as where a patient is deleted as a whole
    for modality in MODALITIES:
        slicer.mrmlScene.RemoveNode(node.inputNode(modality))
    slicer.mrmlScene.EndState(slicer.mrmlScene.BatchProcessState)
    load_case(host, cohort_folder / "sub-002")
    assert node.inputNode("T1").GetName() == "sub-002_T1"
    assert node.outputSegmentation is None and old.GetScene() is not None


def test_figures_of_an_alignment_are_shown_for_its_inputs_only(
    ready, host, cohort_folder, tmp_path, monkeypatch
):
    found = {"matrix_ras": np.eye(4).tolist(), "translation_mm": 1, "rotation_deg": 2}
    found |= {"similarity_before": 0.1, "similarity_after": 0.2, "warning": "No better place was found."}
    result = {"type": "result", "alignments": {"FLAIR": found}}
    fake_worker(tmp_path, monkeypatch, f"print({json.dumps(json.dumps(result))})")
    ui, node = ready.ui, ready.state.parameterNode
    ui.alignButton.click()
    assert host.processEvents(20, until=lambda: ready.state.job is None)
    assert ui.alignmentTable.rowCount == 1 and "No better place" in ui.alignmentWarningLabel.text

    first = [node.inputNode(m) for m in MODALITIES]
    load_case(host, cohort_folder / "sub-002")
    other = node.inputNode("FLAIR")
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    other.SetNodeReferenceID("EMIM.alignment", shift.GetID())  # as a scene file brings it
    other.SetAndObserveTransformNodeID(shift.GetID())
    ready.update()
    assert ready.logic.alignmentOf(other) is shift
    assert ui.alignmentTable.rowCount == 0 and not ui.alignmentWarningLabel.text
    for modality, volume in zip(MODALITIES, first, strict=True):
        node.setInputNode(modality, volume)
    assert ui.alignmentTable.rowCount == 1
    slicer.mrmlScene.Clear()
    assert not ready.alignmentSection._figures, "the next scene has transforms of the same IDs"


def test_every_control_has_a_tooltip(ready, host):
    ready.installation.checkButton.click()  # unfolds the report
    host.processEvents(60, until=lambda: ready.installation.checkButton.enabled)
    controls = [w for w in slicer.util.findChildren(ready.parent) if isinstance(w, CONTROLS)]
    assert len(controls) > 60
    silent = [f"{type(w).__name__} {w.objectName}" for w in controls if not has_tooltip(w)]
    assert not silent


def has_tooltip(widget):
    """Qt shows the tooltip of the nearest parent that has one; that of the whole section is too vague."""
    if isinstance(widget.parent(), ctk.ctkCollapsibleButton) and isinstance(widget, qt.QToolButton):
        return True  # the stand-in's title bar, which shows the tooltip of the section
    while not widget.toolTip:
        widget = widget.parent()
        if widget is None or isinstance(widget, (ctk.ctkCollapsibleButton, slicer.qMRMLWidget)):
            return False
    return True


def test_leave_come_back_and_reload(ready, reload):
    selected = [ready.state.parameterNode.inputNode(m) for m in MODALITIES]
    slicer.modules.emimsegment.exit()
    slicer.modules.emimsegment.enter()
    assert [row.selector.currentNode() for row in ready.inputsSection.rows] == selected
    again = reload(ready)
    assert [row.selector.currentNode() for row in again.inputsSection.rows] == selected


def test_nothing_heavy_is_imported():
    """In a process of its own: the tests themselves may have loaded torch into this one."""
    program = """
import sys
import slicerhost
host = slicerhost.start()
for name in ("EMIMSegment", "EMIMPretrain"):
    host.enter(host.loadModule(f"{name}/{name}.py"))
print("heavy:", sorted({"torch", "monai", "SimpleITK", "filelock"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    path = os.pathsep.join([str(ROOT), str(ROOT / "Testing")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr


def test_reload_and_test(host):
    module = host.loadModule("EMIMSegment/EMIMSegment.py")
    host.enter(module)
    slicer.modules.EMIMSegmentInstance.runTest()


def another_model(model_package, folder, name=""):
    """A copy of the model with another name, that of the folder unless one is given."""
    shutil.copytree(model_package, folder)
    card = json.loads((folder / "configs" / "metadata.json").read_text())
    card["emim"]["name"] = name or folder.name
    card["emim"]["training"]["date"] = "2025-03-01"
    (folder / "configs" / "metadata.json").write_text(json.dumps(card))
    (folder / "checksums.json").unlink()
    (folder / "checksums.json").write_text(json.dumps(checksums(folder)))
    return str(folder)


def test_another_model_gets_inputs_and_leaves_the_firsts_result_alone(ready, model_package, tmp_path):
    other = another_model(model_package, tmp_path / "other")
    node = ready.state.parameterNode
    result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "corrected by hand")
    result.SetReferenceImageGeometryParameterFromVolumeNode(node.inputNode("FLAIR"))
    result.SetAttribute("EMIM.Model", ready.state.card.name)
    node.outputSegmentation = result
    ready.update()
    assert node.outputSegmentation is result
    node.setInputNode("T2", None)
    ready.modelSection.importModel(other)
    assert ready.state.card.name == "other" and node.outputSegmentation is None
    assert node.inputState("T2") == "guess", "without having to ask for it"
    node.outputSegmentation = result
    ready.update()
    assert node.outputSegmentation is result, "who chooses it means it"


def test_inputs_do_not_change_below_a_run(ready, host, case_folder):
    node = ready.state.parameterNode
    before = {m: node.inputNode(m) for m in MODALITIES}
    ready.state.job = ready.runSection.job
    for m in MODALITIES:
        slicer.mrmlScene.CopyNode(before[m]).SetName(f"another_{m}")
    slicer.mrmlScene.RemoveNode(before["T1"])
    ready.enter()
    host.processEvents(0.1)
    assert node.inputNode("T1") is None and node.inputNode("FLAIR") is before["FLAIR"]
    ready.state.job = None
    ready.enter()
    assert node.inputNode("T1") is not None


def test_after_the_scene_was_closed_the_model_chosen_last_is_proposed(
    ready, host, model_package, case_folder, tmp_path
):
    ready.modelSection.importModel(another_model(model_package, tmp_path / "a first one"))
    ready.modelSection.importModel(another_model(model_package, tmp_path / "middle"))
    assert len(combo_texts(ready.ui.modelComboBox)) == 3 and ready.state.card.name == "middle"
    slicer.mrmlScene.Clear()
    assert ready.state.card.name == "middle"

    shutil.rmtree(ready.state.model.path)  # several others: none is better than the other
    slicer.mrmlScene.Clear()
    load_case(host, case_folder)
    assert ready.state.model is None and ready.ui.modelComboBox.currentIndex == -1
    assert "Choose a model" in ready.ui.modelCardLabel.text
    assert not ready.ui.applyButton.enabled and ready.ui.applyButton.toolTip == "Choose a model."

    shutil.rmtree(next(m.path for m in ready.logic.registry.models() if m.name == "a first one"))
    slicer.mrmlScene.Clear()
    assert ready.state.card.name == "bright lesions"
