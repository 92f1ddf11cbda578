"""What a radiologist does in EMIMPretrain, with the real worker on the CPU and synthetic heads."""

# ruff: noqa: F811  fixtures are imported

import numpy as np
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from pretrain_story import (  # noqa: E402, F401
    cohort_folder,
    combo_texts,
    panel,
    shot,
    stuck_where,
    table_texts,
    window_shot,
)

STEPS, CROP = 8, 16


def scan(host, panel, folder):
    panel.ui.cohortPathLineEdit.currentPath = str(folder)
    panel.ui.scanButton.click()
    assert host.processEvents(60, until=lambda: panel.state.task is None), "still scanning"
    assert panel.state.table is not None, panel.ui.cohortStatusLabel.text


def phase(panel):
    return panel.state.monitor.phase


def wait_for(host, panel, wanted, seconds):
    host.processEvents(seconds, until=lambda: phase(panel) == wanted or not panel.state.monitor.running)
    monitor = panel.state.monitor
    assert phase(panel) == wanted, f"{phase(panel)}: {monitor.error}\n{monitor.log[-3000:]}"
    host.processEvents(0.7)


def test_from_a_folder_to_an_installed_model(panel, host, cohort_folder, caplog):
    scan(host, panel, cohort_folder)
    assert len(panel.state.table.rows) == 8
    assert len(panel.state.table.labelledRows) == 4
    texts = table_texts(panel.ui.cohortTable)
    cells = [cell for row in texts for cell in row[1:5]]
    assert set(cells) == {"✓", "–"} and cells.count("–") < 4  # some heads lack a modality

    panel.ui.stepsSpinBox.value = STEPS
    panel.ui.cropSpinBox.value = CROP
    panel.ui.runNameLineEdit.text = "Köpfe"
    panel.ui.estimateButton.click()
    assert host.processEvents(120, until=lambda: panel.state.task is None)
    assert f"steps: {STEPS};" in panel.ui.estimateLabel.text

    panel.ui.startPretrainButton.click()
    assert panel.state.monitor.name == "Köpfe"
    wait_for(host, panel, "running", 60)
    assert host.processEvents(
        60, until=lambda: panel.state.monitor.canPause and panel.state.monitor.state.step
    )
    panel.ui.pauseButton.click()
    wait_for(host, panel, "paused", 30)
    stopped = panel.state.monitor.state.step
    assert 0 < stopped < STEPS and panel.ui.resumeButton.enabled
    assert "paused" in table_texts(panel.ui.runsTable)[0][3]
    window_shot(host, "paused")

    panel.ui.resumeButton.click()
    wait_for(host, panel, "finished", 180)
    assert panel.state.monitor.state.step == STEPS
    assert panel.ui.openReportButton.enabled
    assert panel.ui.verdictLabel.text and panel.watch._pane.text
    panel.ui.showLossButton.click()
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert any(node.GetName().startswith("validation") for node in series)
    modalities = combo_texts(panel.ui.previewModalityComboBox)
    assert set(modalities) == {"T1", "T1ce", "T2", "FLAIR"}
    panel.ui.previewModalityComboBox.setCurrentIndex(modalities.index("FLAIR"))
    panel.ui.showPreviewButton.click()
    shown = [
        slicer.app.layoutManager().sliceWidget(view).mrmlSliceCompositeNode().GetBackgroundVolumeID()
        for view in ("Red", "Yellow", "Green")
    ]
    assert len(set(shown)) == 3 and all(shown)
    names = [slicer.mrmlScene.GetNodeByID(i).GetName() for i in shown]
    assert all("FLAIR" in name for name in names) and "original" in names[0]
    assert "yellow" in panel.ui.previewLabel.text
    window_shot(host, "reconstruction")
    panel.ui.cohortTable.selectRow(2)
    panel.ui.showCaseButton.click()
    orientations = [n.GetOrientation() for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    assert sorted(orientations) == ["Axial", "Coronal", "Sagittal"]
    assert "yellow" not in panel.ui.previewLabel.text

    panel.ui.finetuneCollapsibleButton.collapsed = False
    assert panel.state.parameterNode.init == str(panel.state.monitor.folder)  # proposed
    table = panel.ui.structuresTable
    assert table.rowCount == len(panel.state.table.labelValues) > 0
    table.item(0, 0).setText("Tumeur")
    panel.ui.modelNameLineEdit.text = "Têtes"
    panel.ui.finetuneStepsSpinBox.value = 4
    assert panel.ui.startFinetuneButton.enabled, panel.ui.startFinetuneButton.toolTip
    panel.ui.startFinetuneButton.click()
    assert panel.state.monitor.command == "finetune"
    wait_for(host, panel, "finished", 180)
    assert not panel.ui.verdictLabel.text.startswith("<b></b>")
    shot(host, panel, "fine-tuned", 1500)

    assert panel.ui.installModelButton.enabled
    panel.ui.installModelButton.click()
    assert "Têtes" in panel.ui.installedLabel.text
    (model,) = panel.logic.registry.models()
    assert model.card.name == "Têtes" and model.problem is None
    assert "Tumeur" in [s.name for s in model.card.structures]
    assert any("Têtes" in text for text in combo_texts(panel.ui.initComboBox))

    assert panel.logic.isInstalled(panel.state.monitor)
    panel.ui.installModelButton.click()  # asks whether to replace it; in testing mode the answer is yes
    assert len(panel.logic.registry.models()) == 1
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_practice_cohort_is_made_and_scanned(panel, host):
    panel.ui.practiceButton.click()
    assert panel.ui.practiceButton.text == "Cancel"
    host.processEvents(120, until=lambda: panel.state.table is not None or panel.state.task is None)
    assert panel.state.task is None, stuck_where(host, panel.state.task._run)
    assert panel.state.table is not None, panel.ui.cohortStatusLabel.text
    assert len(panel.state.table.rows) == 12 and len(panel.state.table.labelledRows) == 6
    assert panel.ui.cohortPathLineEdit.currentPath == str(panel.logic.practiceFolder())
    assert panel.ui.startPretrainButton.enabled
    panel.ui.cohortTable.cellDoubleClicked.emit(0, 0)
    row = panel.state.table.rows[0]
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert {node.GetAttribute("EMIM.case") for node in volumes} == {row.id}
    assert slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
    window_shot(host, "case-in-views")
    panel.ui.cohortTable.cellDoubleClicked.emit(1, 0)
    shown = {
        node.GetAttribute("EMIM.case"): bool(node.GetDisplayNode().GetVisibility())
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    }
    assert shown == {row.id: False, panel.state.table.rows[1].id: True}  # no labels on a wrong head


def draw(panel, row, name, half=2):
    """A segmentation of one cube on the first image of a case."""
    (image, *_others) = panel.logic.loadCase(row)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "gezeichnet")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(image)
    labels = np.zeros_like(slicer.util.arrayFromVolume(image), np.uint8)
    labels[tuple(slice(n // 2 - half, n // 2 + half) for n in labels.shape)] = 1
    identifier = segmentation.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(labels, segmentation, identifier, image)
    return segmentation


def count(file):
    """Voxels that a label map marks."""
    return np.count_nonzero(slicer.util.arrayFromVolume(slicer.util.loadLabelVolume(str(file))))


def test_labels_drawn_in_slicer_are_exported_and_counted(panel, host, cohort_folder, monkeypatch):
    scan(host, panel, cohort_folder)
    row = panel.state.table.rows[-1]
    assert not row.label.path
    segmentation = draw(panel, row, panel.logic.structures(panel.state.parameterNode)[0]["name"])
    before = len(panel.finetune.labels.labelledIds())
    panel.ui.labelSegmentationSelector.setCurrentNode(segmentation)
    assert panel.ui.labelCaseComboBox.currentText == row.id  # told from the image it was drawn on
    assert panel.ui.exportLabelsButton.enabled, panel.ui.exportLabelsButton.toolTip
    panel.ui.exportLabelsButton.click()
    assert table_texts(panel.ui.exportedLabelsTable)[0][0] == row.id
    assert len(panel.finetune.labels.labelledIds()) == before + 1
    assert "drawn in Slicer: 1" in panel.ui.labelsLabel.text
    file = panel.finetune.labels.exported[row.id]
    assert count(file) == 64
    other = panel.state.table.rows[0].id
    panel.ui.labelCaseComboBox.setCurrentIndex(panel.ui.labelCaseComboBox.findData(other))
    assert not panel.ui.exportLabelsButton.enabled, "it was drawn on another case"
    assert f"drawn on case {row.id}" in panel.ui.exportLabelsButton.toolTip
    panel.ui.labelCaseComboBox.setCurrentIndex(panel.ui.labelCaseComboBox.findData(row.id))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: False)
    panel.ui.removeLabelsButton.click()
    assert file.exists()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: True)
    panel.ui.removeLabelsButton.click()
    assert not file.exists() and len(panel.finetune.labels.labelledIds()) == before


def test_labels_of_another_day_are_shown_and_never_replaced_unasked(panel, host, cohort_folder, monkeypatch):
    asked, answers = [], []

    def answer(text):
        asked.append(text)
        return answers.pop()

    def export(segmentation):
        asked.clear()
        panel.ui.labelSegmentationSelector.setCurrentNode(segmentation)
        assert panel.ui.exportLabelsButton.enabled, panel.ui.exportLabelsButton.toolTip
        panel.ui.exportLabelsButton.click()

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", answer)
    scan(host, panel, cohort_folder)
    caseId = panel.state.table.rows[-1].id
    drawn = draw(panel, panel.state.table.row(caseId), "Läsion")
    panel.ui.labelSegmentationSelector.setCurrentNode(drawn)
    panel.ui.structuresFromSegmentationButton.click()
    values = {s["name"]: s["values"] for s in panel.logic.structures(panel.state.parameterNode)}
    export(drawn)
    export(drawn)
    file = panel.finetune.labels.exported[caseId]
    assert asked == [] and count(file) == 64

    slicer.mrmlScene.Clear()
    assert panel.logic.structures(panel.state.parameterNode) == []
    scan(host, panel, cohort_folder)
    now = {s["name"]: s["values"] for s in panel.logic.structures(panel.state.parameterNode)}
    assert now["Läsion"] == values["Läsion"] and sorted(now.values()) == sorted(values.values())
    other = draw(panel, panel.state.table.row(caseId), "Läsion", half=1)
    answers[:] = [False]
    export(other)
    assert caseId in asked[0] and str(file) in asked[0] and count(file) == 64
    panel.ui.loadLabelCaseButton.click()
    shown = slicer.util.getNode(f"{caseId} label")
    assert [shown.GetSegmentation().GetNthSegment(0).GetName()] == ["Läsion"]
    export(shown)
    assert asked == [] and count(file) == 64
    answers[:] = [True]
    export(other)
    assert len(asked) == 1 and count(file) == 8
