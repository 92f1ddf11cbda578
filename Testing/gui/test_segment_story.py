"""What a radiologist does in EMIMSegment, with the real worker on the CPU and a model of known results."""

# ruff: noqa: F811  fixtures are imported

import html
import shutil

import numpy as np
import slicerhost

slicerhost.start()
import qt  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from PySide6 import QtCore  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from segment_story import (  # noqa: E402, F401
    MODALITIES,
    SHOTS,
    case_folder,
    cohort_folder,
    data_nodes,
    load_case,
    model_package,
    panel,
    ready,
    segment,
    shot,
)
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402


def test_four_grids_to_overlay_and_table(ready, host, tmp_path, monkeypatch):
    ui, node = ready.ui, ready.state.parameterNode
    assert [node.inputState(m) for m in MODALITIES] == ["guess"] * 4
    for modality in MODALITIES:
        file = node.inputNode(modality).GetStorageNode().GetFileName()
        assert file.endswith(f"_{modality}.nii.gz")
    shot(host, ready, "guesses")

    ui.referenceComboBox.setCurrentIndex(3)
    segment(host, ready)

    segmentation = node.outputSegmentation
    names = [segmentation.GetSegmentation().GetNthSegment(i).GetName() for i in range(2)]
    assert names == ["Lesion", "Enhancing"]
    table = ui.measurementsTable
    assert (table.rowCount, table.columnCount) == (2, 7)
    assert 20 < float(table.item(0, 1).text()) < 100  # mL
    assert "made without" not in ui.resultLabel.text
    assert overlay_colors(host), "the structure is not seen in the slice view"
    shot(host, ready, "result", 1700)
    host.screenshot(SHOTS / "EMIMSegment-window.png", size=(1600, 1350))

    for button, ending in (("exportNiftiButton", ".nii.gz"), ("exportSegNrrdButton", ".seg.nrrd")):
        file = tmp_path / f"résultat{ending}"
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_, file=file: str(file))
        getattr(ui, button).click()
        assert file.is_file() and file.name in ui.resultLabel.text
    ui.copyMeasurementsButton.click()
    lines = qt.QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:2] == ["Structure", "Volume [mL]"] and lines[1].startswith("Lesion\t")


def test_missing_sequence_is_named_and_the_scene_file_brings_all_back(ready, host, tmp_path):
    ui, node = ready.ui, ready.state.parameterNode
    node.quality = "fast"
    row = ready.inputsSection.rows[1]
    assert row.modality == "T1ce"
    row.notAvailable.click()
    assert node.inputState("T1ce") == "notAvailable"
    assert "left out" in row.mark.text and ui.applyButton.enabled

    segment(host, ready)
    assert "made without T1ce" in ui.resultLabel.text
    assert ui.measurementsTable.columnCount == 6
    shot(host, ready, "missing", 1700)

    names = {m: node.inputNode(m).GetName() for m in ("T1", "T2", "FLAIR")}
    volume = ui.measurementsTable.item(0, 1).text()
    file = str(tmp_path / "scène.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear()
    host.processEvents(0.05)
    assert ready.state.parameterNode.outputSegmentation is None and ui.resultFrame.isHidden()
    slicer.util.loadScene(file)
    host.processEvents(0.05)

    node = ready.state.parameterNode
    assert {m: node.inputNode(m).GetName() for m in names} == names
    assert [node.inputState(m) for m in MODALITIES] == ["guess", "notAvailable", "guess", "guess"]
    assert ui.qualityComboBox.itemData(ui.qualityComboBox.currentIndex) == "fast"
    assert ui.measurementsTable.item(0, 1).text() == volume
    assert "made without T1ce" in ui.resultLabel.text and "Edited" not in ui.resultLabel.text
    assert ui.applyButton.enabled


def test_a_corrected_result_says_that_the_table_is_the_models(ready, host, tmp_path, monkeypatch):
    ui, node = ready.ui, ready.state.parameterNode
    segment(host, ready)
    segmentation, volume = node.outputSegmentation, node.inputNode("FLAIR")
    assert "Edited" not in ui.resultLabel.text
    segments = segmentation.GetSegmentation()
    lesion = segments.GetSegmentIdBySegmentName("Lesion")
    segments.GetSegment(lesion).SetName("Läsion")
    segmentation.GetDisplayNode().SetOpacity2DFill(0.3)
    ready.update()
    assert "Edited" not in ui.resultLabel.text

    kind = vtk.reference("")
    assert segments.GetSegment(lesion).GetTag("DICOM.SegmentAlgorithmType", kind) and str(kind) == "AUTOMATIC"

    segments.AddEmptySegment("drawn", "drawn")
    ready.update()
    assert "Edited since: these are the model's measurements." in html.unescape(ui.resultLabel.text)
    segments.RemoveSegment("drawn")
    ready.update()
    assert "Edited" not in ui.resultLabel.text

    slicer.modules.emimsegment.exit()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, lesion, volume).copy()
    mask[tuple(np.argwhere(mask)[0])] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, lesion, volume)
    slicer.modules.emimsegment.enter()
    assert "Edited" in ui.resultLabel.text
    kind = vtk.reference("")
    assert segments.GetSegment(lesion).GetTag("DICOM.SegmentAlgorithmType", kind)
    assert str(kind) == "SEMIAUTOMATIC", "what an export as DICOM SEG says of it"
    ui.copyMeasurementsButton.click()
    last = qt.QApplication.clipboard().text().splitlines()[-1]
    assert last == "Edited since: these are the model's measurements."
    looked = []
    monkeypatch.setattr(ready.logic, "isEdited", lambda segmentation: looked.append(1))
    ready.update()
    assert not looked, "voxels are read again only when they changed"
    monkeypatch.undo()

    file = str(tmp_path / "scène.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(file)
    host.processEvents(0.05)
    assert "Edited" in ui.resultLabel.text
    segment(host, ready)
    assert "Edited" not in ui.resultLabel.text


def test_hand_corrections_are_not_replaced_without_a_question(ready, host):
    ui, node = ready.ui, ready.state.parameterNode
    node.quality = "fast"
    segment(host, ready)
    corrected = node.outputSegmentation
    assert ready.state.model.version in ui.resultLabel.text
    corrected.GetSegmentation().AddEmptySegment("drawn", "drawn")
    slicer.app.setTesting(False)
    asked = []

    def answer(button):
        host.answer(lambda box: asked.append(box.text) or press(box, button))

    answer("Cancel")
    ui.applyButton.click()
    assert ready.state.job is None and corrected.GetName() in asked[0]
    assert node.outputSegmentation is corrected and kept(corrected)
    host.answer(lambda box: box.close())  # by its corner, or Escape
    ui.applyButton.click()
    assert ready.state.job is None and node.outputSegmentation is corrected and kept(corrected)

    answer("New segmentation")
    segment(host, ready)
    assert node.outputSegmentation is not corrected and kept(corrected)
    assert data_nodes()["Segmentation"] == 2
    segment(host, ready)  # the new one is as EMIM wrote it: nobody is asked
    assert data_nodes()["Segmentation"] == 2

    ui.outputSelector.setCurrentNode(corrected)
    answer("Replace")
    segment(host, ready)
    assert node.outputSegmentation is corrected and not kept(corrected)
    assert data_nodes()["Segmentation"] == 2 and len(asked) == 3


def kept(segmentation):
    return segmentation.GetSegmentation().GetSegment("drawn") is not None


def press(box, text):
    next(button for button in box.buttons() if button.text == text).click()


def test_second_run_replaces_the_first_unless_a_new_one_is_wanted(ready, host):
    ui, node = ready.ui, ready.state.parameterNode
    segment(host, ready)
    first, nodes = node.outputSegmentation, data_nodes()
    assert first.GetName() in ui.applyHintLabel.text
    segment(host, ready)
    assert node.outputSegmentation is first
    assert data_nodes() == nodes

    ui.outputSelector.setCurrentNode(None)
    assert ui.measurementsTable.rowCount == 2, "the former result stays in view"
    ui.probabilitiesCheckBox.click()
    ui.surfaceCheckBox.click()
    assert node.probabilities and not node.showSurface
    segment(host, ready)
    second = node.outputSegmentation
    assert second is not first
    assert data_nodes()["Segmentation"] == nodes["Segmentation"] + 1
    assert data_nodes()["ScalarVolume"] == nodes["ScalarVolume"] + 2
    look(ui, second)


def look(ui, segmentation):
    """Surface, probability, opacity and fill are switched in the panel."""
    display = segmentation.GetDisplayNode()
    assert not ui.surface3DCheckBox.checked
    ui.surface3DCheckBox.click()
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert display.GetVisibility3D()
    choose(ui.probabilityComboBox, "Lesion")
    foreground = red_composite().GetForegroundVolumeID()
    assert slicer.mrmlScene.GetNodeByID(foreground).GetName().endswith("Lesion")
    choose(ui.probabilityComboBox, "not shown")
    assert red_composite().GetForegroundVolumeID() is None
    ui.opacitySlider.value = 0.2
    assert abs(display.GetOpacity2DFill() - 0.2) < 1e-6
    ui.fillCheckBox.click()
    assert not display.GetVisibility2DFill() and display.GetVisibility2DOutline()


def test_align_look_and_undo(ready, host):
    ui, node = ready.ui, ready.state.parameterNode
    moved = node.inputNode("FLAIR")
    moved.SetOrigin(*(np.array(moved.GetOrigin()) + (12.0, 0.0, 0.0)))
    before = data_nodes()
    ui.alignmentCollapsibleButton.collapsed = False
    ui.alignButton.click()
    assert host.processEvents(120, until=lambda: ready.state.job is None)

    table = ui.alignmentTable
    rows = {table.item(r, 0).text(): float(table.item(r, 1).text()) for r in range(table.rowCount)}
    assert abs(rows["FLAIR"] - 12) < 3 and rows["T2"] < 3
    assert ui.alignedRadioButton.checked
    shot(host, ready, "alignment", 1700)
    choose(ui.alignmentLookComboBox, "FLAIR")
    ui.alignmentFadeSlider.value = 0.8
    assert red_composite().GetForegroundVolumeID() == moved.GetID()
    assert abs(red_composite().GetForegroundOpacity() - 0.8) < 1e-6
    ui.asLoadedRadioButton.click()
    assert moved.GetParentTransformNode() is None
    ui.alignedRadioButton.click()
    assert moved.GetParentTransformNode() is not None
    ui.undoAlignmentButton.click()
    assert moved.GetParentTransformNode() is None and not ui.undoAlignmentButton.enabled
    assert data_nodes() == before


def test_batch_of_a_folder_is_gone_through(ready, host, cohort_folder, tmp_path, monkeypatch):
    cases = tmp_path / "cases"
    shutil.copytree(cohort_folder, cases)
    (cases / "sub-002" / "sub-002_FLAIR.nii.gz").unlink()
    slicer.mrmlScene.Clear()
    ui = ready.ui
    ui.batchCollapsibleButton.collapsed = False
    assert not ui.batchButton.enabled and "folder" in ui.batchButton.toolTip
    ui.batchFolderPathLineEdit.currentPath = str(cases)
    ui.batchOutputPathLineEdit.currentPath = str(tmp_path / "results")
    ui.batchFormatComboBox.setCurrentIndex(1)
    assert not ui.batchShowButton.isVisibleTo(ready.parent)
    ui.batchButton.click()
    assert host.processEvents(60, until=lambda: ui.batchTable.rowCount == 1), "rows come while it runs"
    assert ready.state.job is not None and ui.batchTable.item(0, 0).text() == "sub-002"
    ui.batchTable.selectRow(0)
    assert host.processEvents(120, until=lambda: ready.state.job is None)
    assert (tmp_path / "results" / "sub-001.seg.nrrd").is_file()

    table = ui.batchTable
    assert [index.row() for index in table.selectionModel().selectedRows()] == [1]  # still sub-002
    rows = {table.item(r, 0).text(): table.item(r, 1).text() for r in range(table.rowCount)}
    assert set(rows) == {"sub-001", "sub-002"}
    assert "Lesion" in rows["sub-001"] and "FLAIR" in rows["sub-002"]
    ui.batchShowButton.click()  # the failed one
    assert data_nodes()["ScalarVolume"] == 3 and data_nodes()["Segmentation"] == 0
    assert "sub-002 is shown" in ui.batchShownLabel.text
    QTest.keyClick(table, QtCore.Qt.Key_Up)
    host.processEvents(0.1)
    assert data_nodes()["Segmentation"] == 0, "the arrow keys load nothing"
    table.window().show()  # only a window on the screen has shortcuts
    table.window().activateWindow()
    table.setFocus()
    calls, showCase = [], ready.logic.showCase
    monkeypatch.setattr(ready.logic, "showCase", lambda *a, **k: calls.append(1) or showCase(*a, **k))
    for key in (QtCore.Qt.Key_Return, QtCore.Qt.Key_Enter):
        QTest.keyClick(table, key)
        host.processEvents(0.1)
    assert len(calls) == 2, "once each"
    table.blockSignals(True)  # as on macOS, where these keys activate no cell
    for key in (QtCore.Qt.Key_Return, QtCore.Qt.Key_Enter):
        QTest.keyClick(table, key)
        host.processEvents(0.1)
    table.blockSignals(False)
    assert len(calls) == 4
    table.window().hide()
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert {v.GetName() for v in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")} == {
        f"sub-001 {m}" for m in MODALITIES
    }
    assert ready.state.inputs() == {}, "a case to be looked at is no input"
    assert ready.resultSection.segmentation is segmentation and ui.measurementsTable.rowCount == 2
    assert "sub-001 is shown" in ui.batchShownLabel.text and overlay_colors(host)
    assert "Apply replaces" not in ui.applyHintLabel.text
    shot(host, ready, "batch", 1700)

    segmentation.GetSegmentation().RemoveSegment("Segment_2")
    QTest.keyClick(table, QtCore.Qt.Key_Down)
    table.cellActivated.emit(1, 0)
    assert "sub-001" in ui.batchShownLabel.text and not segmentation.GetDisplayNode().GetVisibility()
    slicer.mrmlScene.Clear()
    assert table.rowCount == 2 and ui.batchShownLabel.text == ""  # files can be loaded again


def choose(combo, text):
    """As a person does: the signal of a choice comes from the mouse only."""
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex)


def red_composite():
    return slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()


def overlay_colors(host):
    """Whether the Red view has pixels in the hue of the first structure, which no grey image has."""
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    view.forceRender()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.renderWindow())
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).astype(int)
    return (pixels[:, 0] - pixels[:, 2] > 60).sum() > 50
