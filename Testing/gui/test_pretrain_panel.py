"""EMIMPretrain's panel without a worker: what is shown, explained, allowed and remembered."""

# ruff: noqa: F811  fixtures are imported

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import slicerhost

slicerhost.start()
import qt  # noqa: E402
import slicer  # noqa: E402
from pretrain_story import (  # noqa: E402, F401
    ROOT,
    combo_texts,
    panel,
    shot,
    show_table,
    table,
    table_texts,
    training,
    window_shot,
    write_events,
    written_run,
)
from PySide6.QtTest import QTest  # noqa: E402

# What a user can do something with, by class.
BUTTONS = {"QPushButton", "QToolButton", "QCheckBox", "QRadioButton", "ctkColorPickerButton"}
EDITORS = {"QComboBox", "QLineEdit", "QSpinBox", "QDoubleSpinBox", "QPlainTextEdit", "QTextEdit"}
SLICERS = {"ctkPathLineEdit", "ctkSliderWidget", "qMRMLNodeComboBox"}
OTHERS = {"QTableWidget", "QProgressBar", "ctkCollapsibleButton", "ctkCollapsibleGroupBox"}
INTERACTIVE = BUTTONS | EDITORS | SLICERS | OTHERS


def close_panel():
    slicer.util.mainWindow().moduleSelector().leave()
    slicer.modules.emimpretrain.cleanup()
    slicer.mrmlScene.Clear()


def _explained(widget):
    """Whether it, or the compound control it is a part of, has a tooltip."""
    part = widget.className() == "QToolButton" and not widget.name  # the arrow of a section
    while widget is not None:
        if widget.toolTip:
            return True
        widget = widget.parent()
        if widget is not None and widget.className() == "ctkCollapsibleButton" and not part:
            return False  # the section is explained, what lies in it is not
        if widget is None or widget.className() not in EDITORS | SLICERS | {"ctkCollapsibleButton"}:
            return False
    return False


def test_every_control_has_a_tooltip(panel, table):
    show_table(panel, table)
    panel.ui.structuresFromCohortButton.click()
    panel.patterns.addPattern("T1", "*t1*")
    silent = [
        f"{widget.className()} {widget.name}"
        for widget in slicer.util.findChildren(panel.parent)
        if hasattr(widget, "className") and widget.className() in INTERACTIVE and not _explained(widget)
    ]
    assert silent == []


def test_nothing_can_start_without_a_cohort_and_says_why(panel):
    assert not panel.ui.scanButton.enabled and "folder" in panel.ui.scanButton.toolTip
    assert not panel.ui.startPretrainButton.enabled
    assert "Scan a cohort" in panel.ui.startPretrainButton.toolTip
    assert not panel.ui.estimateButton.enabled
    assert not panel.ui.startFinetuneButton.enabled
    assert "Scan a cohort" in panel.ui.finetuneHintLabel.text
    for button in (panel.ui.pauseButton, panel.ui.resumeButton, panel.ui.cancelButton):
        assert not button.enabled and button.toolTip


def test_cells_are_coloured_marked_and_explained(panel, host, table):
    show_table(panel, table)
    texts = table_texts(panel.ui.cohortTable)
    assert texts[0] == ["p1", "✓", "✓", "✓", "✓", "✓"]
    assert texts[4][3] == "–"
    assert texts[5][0].startswith("✕") and texts[5][4].startswith("✕")
    assert texts[6][1] == "✓ !"
    cells = panel.ui.cohortTable
    colors = {cells.item(r, c).background().color().name() for r, c in ((0, 1), (4, 3), (5, 4), (6, 1))}
    assert len(colors) == 4
    assert "every voxel is 0" in cells.item(5, 4).toolTip()
    cells.setCurrentCell(5, 4)
    assert "every voxel is 0" in panel.ui.caseDetailsLabel.text
    cells.setCurrentCell(4, 3)
    assert "missing" in panel.ui.caseDetailsLabel.text
    assert "Cases: 8; subjects: 8; modalities: 4" in panel.ui.cohortSummaryLabel.text
    panel.ui.patternsGroupBox.collapsed = False
    shot(host, panel, "cohort", 1500)


def test_cases_are_left_out_by_check_box_and_by_button(panel, table):
    show_table(panel, table)
    cells = panel.ui.cohortTable
    cells.item(1, 0).setCheckState(qt.Qt.Unchecked)
    assert table.excludedIds == ["p2"]
    assert panel.state.parameterNode.excludedCases == "p2"
    cells.selectRow(2)
    panel.ui.excludeCasesButton.click()
    assert table.excludedIds == ["p2", "p3"]
    assert cells.item(2, 0).checkState() == qt.Qt.Unchecked
    assert not panel.ui.excludeCasesButton.enabled and panel.ui.includeCasesButton.enabled
    panel.ui.includeCasesButton.click()
    assert table.excludedIds == ["p2"]
    cells.selectRow(5)  # not usable: nothing to choose
    assert not panel.ui.includeCasesButton.enabled and not panel.ui.excludeCasesButton.enabled
    for row in range(8):
        cells.selectRow(row)
        panel.ui.excludeCasesButton.click()
    assert "No case" in panel.ui.startPretrainButton.toolTip


def test_settings_survive_leaving_the_module(panel):
    panel.ui.presetComboBox.currentIndex = 1
    panel.exit()
    panel.enter()
    assert panel.state.parameterNode.preset == "base"
    assert panel.ui.presetComboBox.currentText == "base"


def test_a_node_that_is_shown_no_more_is_written_no_more(panel):
    old = panel.state.parameterNode
    old.preset, old.modelName = "base", "alt"
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    panel.setParameterNode(type(old)(other))
    panel.ui.presetComboBox.currentIndex = 2
    panel.ui.modelNameLineEdit.text = "neu"
    assert (old.preset, old.modelName) == ("base", "alt")
    assert (panel.state.parameterNode.preset, panel.state.parameterNode.modelName) == ("large", "neu")
    panel.enter()
    assert (panel.ui.presetComboBox.currentText, panel.ui.modelNameLineEdit.text) == ("base", "alt")


def test_what_is_being_typed_is_left_alone(panel):
    box, edit = panel.ui.regulariserWeightSpinBox, panel.ui.modelNameLineEdit
    box.selectAll()
    QTest.keyClicks(box, "0.25")
    assert box.value == panel.state.parameterNode.regulariserWeight == 0.25
    edit.text = "Gliome"
    edit.cursorPosition = 2
    QTest.keyClicks(edit, "ob")
    assert edit.text == panel.state.parameterNode.modelName == "Globiome" and edit.cursorPosition == 4


def test_another_folder_needs_another_scan(panel, table):
    show_table(panel, table)
    assert panel.ui.startPretrainButton.enabled
    panel.ui.cohortPathLineEdit.currentPath = "/data/other"
    assert panel.state.parameterNode.cohortFolder == "/data/other"
    assert panel.state.table is None and not panel.ui.startPretrainButton.enabled


def test_cases_left_out_of_one_cohort_are_used_in_the_next(panel, table):
    node, logic, row = panel.state.parameterNode, panel.logic, table.usedRows[0]
    row.included = False
    logic.rememberExcluded(node, table)
    row.included = True
    logic.applyExcluded(node, table)
    assert not row.included
    node.excludedOf = "/another/cohort"
    logic.applyExcluded(node, table)
    assert row.included


def test_a_cleared_folder_is_no_folder(panel, table):
    show_table(panel, table)
    panel.ui.cohortPathLineEdit.currentPath = ""
    assert panel.state.parameterNode.cohortFolder == ""
    assert panel.state.table is None and not panel.ui.scanButton.enabled


def test_half_a_typed_path_is_left_alone(panel, table):
    show_table(panel, table)
    edit = panel.ui.cohortPathLineEdit
    edit.blockSignals(True)  # as CTK does while the text is no folder
    edit.currentPath = "/data/coh"
    edit.blockSignals(False)
    panel.update()
    assert edit.currentPath == "/data/coh"


def test_no_second_run_while_one_is_training(panel, table, tmp_path, monkeypatch):
    written_run(tmp_path / "essais" / "andere", done=10)
    other = written_run(tmp_path / "essais" / "fertig", done=40, ended={"type": "result"})
    monkeypatch.setattr("emim.run_state.in_use", lambda folder: folder.name == "andere")
    show_table(panel, table)
    panel.runs.refresh()
    panel.runs.attach(other)
    assert not panel.ui.startPretrainButton.enabled
    assert "“andere” is training" in panel.ui.startPretrainButton.toolTip
    monkeypatch.setattr("emim.run_state.in_use", lambda folder: False)
    panel.runs.refresh()
    assert panel.ui.startPretrainButton.enabled


def test_a_second_click_while_a_run_is_being_started_is_ignored(panel, table, tmp_path, monkeypatch):
    run, started = written_run(tmp_path / "essais" / "neu", done=0), []

    def start(*arguments, **settings):
        started.append(settings)
        return panel.logic.attach(run)

    monkeypatch.setattr(panel.logic, "startPretraining", start)
    show_table(panel, table)
    panel.ui.startPretrainButton.enabled = True
    qt.QTimer.singleShot(0, panel.ui.startPretrainButton.click)  # delivered by the wait cursor of the first
    panel.ui.startPretrainButton.click()
    assert len(started) == 1


def test_only_the_selected_run_is_watched(panel, tmp_path):
    folders = [written_run(tmp_path / "essais" / name, done=10) for name in ("eins", "zwei")]
    panel.runs.attach(folders[0])
    first = panel.state.monitor
    panel.runs.attach(folders[1])
    assert panel.state.monitor._timer.active and not first._timer.active
    panel.runs.attach(folders[0])
    assert panel.state.monitor.name == "eins" and panel.state.monitor._timer.active


def test_patterns_are_tried_on_names_as_they_are_typed(panel, host, tmp_path):
    folder = tmp_path / "Köpfe" / "p1"
    folder.mkdir(parents=True)
    for name in ("p1_0000.nii.gz", "p1_0001.nii.gz", "p1_flair.nii.gz", "p1_maske.nii.gz"):
        (folder / name).touch()
    panel.state.parameterNode.cohortFolder = str(folder.parent)
    panel.ui.patternsGroupBox.collapsed = False
    assert host.processEvents(3, until=lambda: panel.ui.previewTable.rowCount == 4)
    assert dict(table_texts(panel.ui.previewTable))["p1_0001.nii.gz"] == "not used"
    panel.patterns.addPattern("T1", "*_0000*")
    panel.ui.addPatternButton.click()
    cells = panel.ui.patternsTable
    cells.item(1, 0).setText("T1ce")
    assert panel.state.parameterNode.patterns == "T1=*_0000*"  # half a line does not count yet
    cells.item(1, 1).setText("*_0001*")
    assert panel.state.parameterNode.patterns == "T1=*_0000*\nT1ce=*_0001*"
    panel.ui.labelPatternLineEdit.text = "*_maske*"
    assert host.processEvents(
        3, until=lambda: dict(table_texts(panel.ui.previewTable)).get("p1_maske.nii.gz") == "labels"
    )
    found = dict(table_texts(panel.ui.previewTable))
    assert found["p1_0000.nii.gz"] == "T1" and found["p1_0001.nii.gz"] == "T1ce"
    assert found["p1_flair.nii.gz"] == "FLAIR"
    assert "T1ce 1" in panel.ui.previewSummaryLabel.text
    cells.item(1, 1).setText("re:(")
    assert host.processEvents(3, until=lambda: "not valid" in panel.ui.previewSummaryLabel.text)
    cells.setCurrentCell(1, 0)
    panel.ui.removePatternButton.click()
    assert panel.state.parameterNode.patterns == "T1=*_0000*"


def test_settings_that_cannot_work_disable_start(panel, table):
    show_table(panel, table)
    assert panel.ui.startPretrainButton.enabled
    assert panel.ui.cropSpinBox.text == "48 (preset)"
    panel.ui.cropSpinBox.value = 50
    assert not panel.ui.startPretrainButton.enabled
    assert "50" in panel.ui.startPretrainButton.toolTip
    panel.ui.cropSpinBox.value = 64
    assert panel.ui.startPretrainButton.enabled
    panel.ui.presetComboBox.currentIndex = 2
    assert panel.state.parameterNode.preset == "large"
    assert "hundreds of cases" in panel.ui.presetLabel.text
    assert panel.ui.stepsSpinBox.text == "100000 (preset)"


def test_device_is_kept_on_the_machine_not_in_the_scene(panel):
    from EMIMLib import settings

    panel.ui.deviceComboBox.setCurrentIndex(panel.ui.deviceComboBox.findData("auto"))
    assert settings.device() == "auto"
    node = panel.state.parameterNode.parameterNode
    assert "device" not in " ".join(node.GetParameterNames()).lower()


def test_structures_from_the_labels_are_edited_in_the_table(panel, table, host):
    show_table(panel, table)
    panel.ui.structuresFromCohortButton.click()
    cells, logic = panel.ui.structuresTable, panel.logic
    assert [row[:2] for row in table_texts(cells)] == [["label 1", "1"], ["label 2", "2"]]
    cells.item(0, 0).setText("Œdème")
    cells.item(0, 1).setText("1, 2")
    cells.cellWidget(0, 2).setColor(qt.QColor(10, 20, 30))
    box = cells.cellWidget(0, 3)
    box.setCurrentIndex(box.findText("Edema"))
    first = logic.structures(panel.state.parameterNode)[0]
    assert (first["name"], first["values"], first["color"]) == ("Œdème", [1, 2], [10, 20, 30])
    assert "SCT^79654002^Edema" in first["terminology"]
    panel.ui.addStructureButton.click()
    assert len(logic.structures(panel.state.parameterNode)) == 3
    panel.state.parameterNode.init = "scratch"
    assert "no name" in panel.ui.finetuneHintLabel.text
    cells.setCurrentCell(2, 0)
    panel.ui.removeStructureButton.click()
    assert len(logic.structures(panel.state.parameterNode)) == 2
    panel.ui.modelNameLineEdit.text = "Tumeur"
    assert panel.ui.startFinetuneButton.enabled
    assert "Very few labels" in panel.ui.finetuneHintLabel.text
    panel.ui.finetuneCollapsibleButton.collapsed = False
    panel.ui.drawnLabelsGroupBox.collapsed = False
    shot(host, panel, "fine-tune", 1900)


def test_structures_from_a_segmentation_keep_names_colours_and_terms(panel):
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    identifier = segmentation.GetSegmentation().AddEmptySegment("", "Lésion", (1.0, 0.0, 0.0))
    term = "Mine~SCT^1^Category~SCT^2^Special lesion~^^~Anatomy~^^~^^"
    segment = segmentation.GetSegmentation().GetSegment(identifier)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), term)
    assert not panel.ui.structuresFromSegmentationButton.enabled
    panel.ui.labelSegmentationSelector.setCurrentNode(segmentation)
    panel.ui.structuresFromSegmentationButton.click()
    (structure,) = panel.logic.structures(panel.state.parameterNode)
    assert structure == {"name": "Lésion", "values": [1], "color": [255, 0, 0], "terminology": term}
    box = panel.ui.structuresTable.cellWidget(0, 3)
    assert box.currentText == "Special lesion"


def exported_label(panel, table, row, *named_values):
    """An exported label map of a case, empty, beside it what its values stand for."""
    from EMIMPretrainLib.label_export import labelFile
    from EMIMPretrainLib.label_meaning import writeMeaning

    file = labelFile(panel.logic.labelsFolder(table), row)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    structures = [
        {"name": n, "values": [v], "color": [1, 2, 3], "terminology": None} for n, v in named_values
    ]
    writeMeaning(file, structures)
    return file


def test_a_scan_in_a_new_scene_brings_back_the_structures_of_exported_labels(panel, table, caplog):
    file = exported_label(panel, table, table.rows[0], ("core", 2), ("edema", 3))
    panel.state.parameterNode.cohortFolder = table.source
    panel.cohort._onScanned(SimpleNamespace(table=table))
    panel.update()
    shown = [["core", "2"], ["edema", "3"], ["label 1", "1"]]
    cells = panel.ui.structuresTable
    assert [row[:2] for row in table_texts(cells)] == shown
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    for name in ("Edema", "cyst"):
        segmentation.GetSegmentation().AddEmptySegment("", name)
    panel.ui.labelSegmentationSelector.setCurrentNode(segmentation)
    for number in (2, 1, 0):
        cells.setCurrentCell(number, 0)
        panel.ui.removeStructureButton.click()
    panel.ui.structuresFromSegmentationButton.click()
    assert [row[:2] for row in table_texts(cells)] == [["edema", "3"], ["cyst", "4"]]
    panel.ui.structuresFromCohortButton.click()
    assert [row[:2] for row in table_texts(cells)] == shown
    cells.item(0, 1).setText("3")
    cells.item(1, 1).setText("2")
    node = panel.state.parameterNode
    node.init, node.modelName = "scratch", "Tumeur"
    panel.ui.startFinetuneButton.click()
    assert "exported labels of case p1: 'core' has the label value 2 there, and 3" in caplog.text
    assert str(file) in caplog.text and panel.state.monitor is None


def test_a_removed_segmentation_is_not_followed_by_another(panel):
    """The export would write the neighbour's labels, over those of another case."""
    one, other = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", n) for n in ("one", "other"))
    panel.ui.labelSegmentationSelector.setCurrentNode(one)
    assert panel.state.parameterNode.labelSegmentation is one
    slicer.mrmlScene.RemoveNode(one)
    assert panel.state.parameterNode.labelSegmentation is None
    assert panel.ui.labelSegmentationSelector.currentNode() is None and other.GetScene() is not None


def test_a_run_of_a_shell_is_listed_watched_and_judged(panel, host, tmp_path):
    folder = written_run(tmp_path / "essais" / "coquille", done=30)
    panel.ui.refreshRunsButton.click()
    assert [row[1:4] for row in table_texts(panel.ui.runsTable)] == [
        ["coquille", "pre-train", "paused 30/40"]
    ]
    panel.ui.runsTable.selectRow(0)
    assert panel.state.monitor.folder == folder
    assert "Healthy" in panel.ui.verdictLabel.text
    assert panel.ui.resumeButton.enabled and not panel.ui.pauseButton.enabled
    assert panel.ui.openRunFolderButton.enabled and not panel.ui.openReportButton.enabled
    panel.ui.openRunFolderButton.click()
    assert host.openedUrls[0].endswith("coquille")
    panel.ui.showLossButton.click()
    chart = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")[0]
    assert "coquille" in chart.GetTitle() and chart.GetNumberOfPlotSeriesNodes() >= 5
    panel.ui.showRankButton.click()
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode")
    panel.ui.showRankButton.click()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == count
    window_shot(host, "watch")


def test_new_events_of_a_watched_run_reach_the_panel(panel, host, tmp_path, monkeypatch):
    folder = written_run(tmp_path / "essais" / "lauf", done=10)
    monkeypatch.setattr("emim.run_state.in_use", lambda folder: True)  # somebody trains in it
    panel.runs.refresh()
    panel.runs.attach(folder)
    assert panel.ui.pauseButton.enabled and panel.ui.cancelButton.enabled
    assert not panel.ui.resumeButton.enabled
    write_events(folder, [{"type": "status", "text": "Schön weiter."}, *training(40, 40)])
    assert host.processEvents(5, until=lambda: "Step 40 of 40" in panel.watch._pane.statusLabel.text)
    assert "Schön weiter." in panel.watch._pane.text
    assert table_texts(panel.ui.runsTable)[0][3] == "running 40/40"
    panel.ui.pauseButton.click()
    assert (folder / "cancel").is_file()
    assert host.processEvents(3, until=lambda: "pausing" in table_texts(panel.ui.runsTable)[0][3])
    assert not panel.ui.pauseButton.enabled
    monkeypatch.setattr("emim.run_state.in_use", lambda folder: False)
    assert host.processEvents(5, until=lambda: panel.ui.resumeButton.enabled)


def test_a_fresh_panel_attaches_to_the_run_that_trains(panel, host, tmp_path, monkeypatch):
    folder = written_run(tmp_path / "essais" / "läuft", done=10)
    monkeypatch.setattr("emim.run_state.in_use", lambda folder: True)
    close_panel()  # as a restart of Slicer, without a saved scene
    fresh = host.enter(slicer.modules.emimpretrain)
    assert fresh is not panel
    assert fresh.state.monitor is not None and fresh.state.monitor.folder == folder
    assert fresh.ui.pauseButton.enabled


def test_a_folder_without_a_run_is_refused(panel, host, tmp_path, caplog):
    (tmp_path / "nothing").mkdir()
    host.answer(str(tmp_path / "nothing"))
    panel.ui.addRunButton.click()
    assert "not a run folder" in caplog.text
    elsewhere = written_run(tmp_path / "elsewhere" / "run")
    host.answer(str(elsewhere))
    panel.ui.addRunButton.click()
    panel.ui.runsTable.selectRow(0)
    assert panel.state.monitor.folder == elsewhere and panel.ui.removeRunButton.enabled
    panel.ui.removeRunButton.click()
    assert panel.ui.runsTable.rowCount == 0 and elsewhere.is_dir()
    written_run(elsewhere.parent / "other")
    host.answer(str(elsewhere.parent))
    panel.ui.addRunButton.click()
    assert {row[1] for row in table_texts(panel.ui.runsTable)} == {"run", "other"}
    panel.ui.runsTable.selectRow(1)
    panel.ui.removeRunButton.click()
    assert panel.ui.runsTable.rowCount == 0


def test_scene_closed_while_watching(panel, host, table, tmp_path):
    folder = written_run(tmp_path / "essais" / "run")
    show_table(panel, table)
    panel.runs.attach(folder)
    panel.ui.showLossButton.click()
    slicer.mrmlScene.Clear()
    host.processEvents(1)
    node = panel.state.parameterNode
    assert node.cohortFolder == "" and panel.state.table is None
    assert panel.state.monitor.folder == folder and node.currentRun == str(folder)
    write_events(folder, training(25, 40))
    host.processEvents(1)
    panel.ui.showLossButton.click()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") > 0


def test_the_scene_file_brings_the_settings_back(panel, host, table, tmp_path):
    folder = written_run(tmp_path / "essais" / "run")
    show_table(panel, table)
    table.row("p2").included = False
    panel.logic.rememberExcluded(panel.state.parameterNode, table)
    panel.runs.refresh()
    panel.runs.attach(folder)
    panel.ui.structuresFromCohortButton.click()
    panel.patterns.addPattern("T1", "*_eins*")
    panel.ui.maskRatioSlider.value = 0.6
    panel.ui.stepsSpinBox.value = 300
    panel.ui.modelNameLineEdit.text = "Größe"
    file = tmp_path / "Szene.mrb"
    assert slicer.util.saveScene(str(file))
    slicer.mrmlScene.Clear()
    panel.selectRun(None)
    assert panel.state.parameterNode.steps == 0
    slicer.util.loadScene(str(file))
    host.processEvents(0.5)
    node = panel.state.parameterNode
    assert node.cohortFolder == table.source and node.excludedCases == "p2"
    assert panel.ui.maskRatioSlider.value == pytest.approx(0.6)
    assert panel.ui.stepsSpinBox.value == 300 and panel.ui.modelNameLineEdit.text == "Größe"
    assert panel.ui.cohortPathLineEdit.currentPath == table.source
    assert table_texts(panel.ui.patternsTable) == [["T1", "*_eins*"]]
    assert [row[0] for row in table_texts(panel.ui.structuresTable)] == ["label 1", "label 2"]
    assert panel.state.monitor is not None and panel.state.monitor.folder == folder


def test_closing_leaves_no_timer_and_no_callback(panel, host, tmp_path, slot_errors):
    folder = written_run(tmp_path / "essais" / "run")
    panel.runs.attach(folder)
    monitor, timers = panel.state.monitor, (panel.runs._timer, panel.patterns._timer)
    close_panel()
    assert monitor.onEvent is None and monitor.onState is None
    assert not any(timer.active for timer in timers)
    host.processEvents(0.3)
    again = host.enter(slicer.modules.emimpretrain)
    assert again.ui.runsTable.rowCount == 1
    assert slot_errors == []


def test_reload_leaves_nothing_behind_and_fills_the_new_panel(panel, tmp_path, reload):
    folder = written_run(tmp_path / "essais" / "run")
    panel.runs.attach(folder)
    monitor, timers = panel.state.monitor, (panel.runs._timer, panel.patterns._timer)
    again = reload(panel)
    assert monitor.onEvent is None and monitor.onState is None
    assert not any(timer.active for timer in timers)
    assert again.ui.runsTable.rowCount == 1 and again.runs._timer.active
    assert again.state.monitor.folder == folder


def test_start_points_list_runs_models_and_scratch(panel, tmp_path):
    folder = written_run(tmp_path / "essais" / "run")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.pt").touch()
    panel.enter()
    texts = combo_texts(panel.ui.initComboBox)
    assert texts[0] == "Choose…" and texts[1].startswith("run (") and texts[-1].startswith("From scratch")
    panel.ui.initComboBox.setCurrentIndex(1)
    assert panel.state.parameterNode.init == str(folder)
    panel.state.parameterNode.init = "/gone/away"
    assert panel.ui.initComboBox.currentText == "/gone/away (not found)"


def test_module_test_class(panel):
    slicer.modules.EMIMPretrainInstance.runTest(msec=0)


def test_ui_file_has_no_text_without_translation_and_all_bindings_exist(panel):
    names = set(panel.state.parameterNode.allParameters)
    bound = {
        widget.property("SlicerParameterName")
        for widget in vars(panel.ui).values()
        if widget.property("SlicerParameterName")
    }
    assert bound and bound <= names
    assert json.loads(panel.state.parameterNode.structures or "[]") == []


def test_limits_of_the_ui_file_hold(panel):
    """Slicer takes them from the parameter's type where that has any, and lifts the others."""
    ui = ElementTree.parse(ROOT / "EMIMPretrain" / "Resources" / "UI" / "EMIMPretrain.ui")
    limits = {
        (widget.get("name"), limit): float(value.findtext("*"))
        for widget in ui.iter("widget")
        for limit in ("minimum", "maximum")
        for value in widget.findall(f"property[@name='{limit}']")
    }
    assert len(limits) > 10
    assert {(name, limit): getattr(getattr(panel.ui, name), limit) for name, limit in limits} == limits
