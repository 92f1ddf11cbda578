"""From what is loaded to cases in the cohort table, through the window that asks which is which."""

# ruff: noqa: F811  fixtures are imported

import numpy as np
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from pretrain_story import SHOTS, combo_texts, panel, shot, table_texts  # noqa: E402, F401

from EMIMLib import settings  # noqa: E402


def load(name, seed, parent=0):
    values = np.random.default_rng(seed).integers(0, 900, (9, 9, 9)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(values, name=name)
    if parent:
        items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        items.SetItemParent(items.GetItemByDataNode(node), parent)
    return node


def load_patient(number, *series):
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = items.CreateSubjectItem(items.GetSceneItemID(), f"Doe^Jane ({number})")
    items.SetItemAttribute(patient, "DICOM.PatientID", str(number))
    study = items.CreateStudyItem(patient, "MR head (20240131)")
    return [load(name, 10 * number + i, study) for i, name in enumerate(series)]


class Window:
    """What a user finds in the dialog."""

    def __init__(self, dialog):
        self.dialog = dialog
        (self.table,) = slicer.util.findChildren(dialog, className="QTableWidget")
        (self.listed,) = slicer.util.findChildren(dialog, className="QCheckBox")
        self.button = slicer.util.findChildren(dialog, text="Add and scan")[0]
        self.said = " ".join(w.text for w in slicer.util.findChildren(dialog, className="QLabel"))

    def choice(self, row):
        return self.table.cellWidget(row, 1)


def test_without_volumes_it_says_what_to_load(panel, caplog):
    panel.ui.addStudiesButton.click()
    assert "No volume is loaded" in caplog.text and "DICOM" in caplog.text


def test_loaded_studies_are_shown_changed_added_and_scanned(panel, host):
    load_patient(1, "t1_mprage_sag", "t2_tirm_dark-fluid", "AX t1 +c", "localizer")
    load_patient(2, "t1_mprage_sag", "series 7")
    load("somebody", 99)
    seen = {}

    def answer(dialog):
        window = Window(dialog)
        seen["rows"] = table_texts(window.table)
        seen["names"] = [window.choice(row).text for row in (0, 5, 8)]
        seen["silent"] = [
            w.className()
            for w in slicer.util.findChildren(dialog)
            if hasattr(w, "className")
            and w.className() in ("QPushButton", "QToolButton", "QLineEdit", "QComboBox", "QCheckBox")
            and not w.toolTip
        ]
        SHOTS.mkdir(parents=True, exist_ok=True)
        host.grabPanel(dialog, SHOTS / "EMIMPretrain-studies-window.png", (860, 560))
        window.choice(7).setCurrentIndex(window.choice(7).findData("T1"))  # series 7
        seen["both"] = window.button.enabled, Window(dialog).said
        window.choice(7).setCurrentIndex(window.choice(7).findData("FLAIR"))
        window.choice(5).text = "case-001"
        seen["taken"] = window.button.enabled, Window(dialog).said
        window.choice(5).text = "pat-12"
        assert window.button.enabled
        window.button.click()
        return dialog.result()

    host.answer(answer)
    panel.ui.addStudiesButton.click()
    assert seen["names"] == ["case-001", "case-002", "case-003"]
    assert [row[0].strip() for row in seen["rows"]][5:] == [
        "Doe^Jane (2) / MR head (20240131)", "t1_mprage_sag", "series 7", "somebody", "somebody",
    ]  # fmt: skip
    assert "no modality" in seen["rows"][7][2] and "no volume" in seen["rows"][8][2]
    assert seen["silent"] == []
    assert not seen["both"][0] and "2 volumes are chosen as T1" in seen["both"][1]
    assert not seen["taken"][0] and "is taken" in seen["taken"][1]
    folder = settings.runsFolder().parent / "cohort"
    assert panel.state.parameterNode.cohortFolder == str(folder)
    assert host.processEvents(60, until=lambda: panel.state.table is not None)
    assert [(row[0], row[1:]) for row in table_texts(panel.ui.cohortTable)] == [
        ("case-001", ["✓", "✓", "✓", "–"]),
        ("pat-12", ["✓", "–", "✓", "–"]),
    ]
    shot(host, panel, "studies-added", 1500)

    def cancel(dialog):
        window = Window(dialog)
        assert "in the folder already, as pat-12" in [row[2] for row in table_texts(window.table)]
        assert not window.button.enabled and "Tick the studies" in window.said
        return 0

    host.answer(cancel)
    panel.ui.addStudiesButton.click()
    assert panel.state.task is None and sorted(p.name for p in folder.iterdir()) == ["case-001", "pat-12"]


def test_a_folder_with_a_damaged_list_is_not_taken(panel, host, tmp_path, caplog):
    load("t1", 1)
    (tmp_path / "patients.csv").write_text("x\n1\n")

    def answer(dialog):
        line = slicer.util.findChildren(dialog, className="QLineEdit")[0]
        before = line.text
        line.text = str(tmp_path)
        line.editingFinished.emit()
        assert "list of patients" in caplog.text and line.text == before
        return 0

    host.answer(answer)
    panel.ui.addStudiesButton.click()


def test_an_error_leaves_the_window_open(panel, host, monkeypatch, caplog):
    load("t1", 1)
    load("t1 copy", 1)
    slicer.util.getNode("t1 copy").SetName("t2")

    def answer(dialog):
        window = Window(dialog)
        window.button.click()
        assert "same image" in caplog.text and dialog.result() == 0
        window.choice(2).setCurrentIndex(0)
        window.button.click()
        return dialog.result()

    host.answer(answer)
    panel.ui.addStudiesButton.click()
    assert host.processEvents(60, until=lambda: panel.state.table is not None)
