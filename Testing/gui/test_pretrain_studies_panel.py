"""From what is loaded to cases in the cohort table, through the window that asks which is which."""

# ruff: noqa: F811  fixtures are imported

import numpy as np
import slicerhost

slicerhost.start()
import qt  # noqa: E402
import slicer  # noqa: E402
from pretrain_story import SHOTS, combo_texts, panel, shot, table_texts  # noqa: E402, F401
from PySide6.QtTest import QTest  # noqa: E402

from EMIMLib import settings  # noqa: E402


def load(name, seed, parent=0):
    values = np.random.default_rng(seed).integers(0, 900, (9, 9, 9)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(values, name=name)
    if parent:
        items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        items.SetItemParent(items.GetItemByDataNode(node), parent)
    return node


def load_patient(number, *series, patient=0):
    """A study of a new patient, or of one that is loaded; its volumes."""
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if not patient:
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
        lines = slicer.util.findChildren(dialog, className="QLineEdit")
        (self.folder,) = [line for line in lines if "Folder of the cohort" in line.toolTip]
        self.said = " ".join(w.text for w in slicer.util.findChildren(dialog, className="QLabel"))

    def choice(self, row):
        return self.table.cellWidget(row, 1)

    def choose(self, row, modality):
        self.choice(row).setCurrentIndex(self.choice(row).findData(modality))

    def tick(self, row, ticked):
        self.table.item(row, 0).setCheckState(qt.Qt.Checked if ticked else qt.Qt.Unchecked)

    def ticked(self, row):
        return self.table.item(row, 0).checkState() == qt.Qt.Checked

    def remark(self, row):
        return self.table.item(row, 2).text()

    def type_folder(self, folder):
        """As with the keyboard, without ending it."""
        self.folder.setFocus()
        self.folder.selectAll()
        QTest.keyClicks(self.folder, str(folder))


def look_at(panel, host, look):
    """Open the window for ``look``; what that raises is raised here, and not shown by the panel."""
    raised = []

    def answer(dialog):
        try:
            return look(Window(dialog))
        except BaseException as error:
            raised.append(error)
            return 0

    host.answer(answer)
    panel.ui.addStudiesButton.click()
    if raised:
        raise raised[0]


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
            and w.className() in ("QPushButton", "QToolButton", "QLineEdit", "ctkComboBox", "QCheckBox")
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

    def look(window):
        line = window.folder
        before = line.text
        line.text = str(tmp_path)
        line.editingFinished.emit()
        assert "list of patients" in caplog.text and line.text == before
        return 0

    look_at(panel, host, look)


def test_an_error_leaves_the_window_open(panel, host, monkeypatch, caplog):
    load("t1", 1)
    load("t1 copy", 1)
    slicer.util.getNode("t1 copy").SetName("t2")

    def look(window):
        window.button.click()
        assert "same image" in caplog.text and window.dialog.result() == 0
        window.choice(2).setCurrentIndex(0)
        window.button.click()
        return window.dialog.result()

    look_at(panel, host, look)
    assert host.processEvents(60, until=lambda: panel.state.table is not None)


def test_what_is_chosen_outlives_another_folder(panel, host, tmp_path):
    load_patient(1, "t1_mprage", "series 7")
    load_patient(2, "t2_tirm")
    load_patient(3, "flair")
    other = tmp_path / "other"
    (other / "case-004").mkdir(parents=True)
    (other / "patients.csv").write_text("case,patient,study\n")

    def look(window):
        window.choose(2, "T2")
        window.choice(0).text = "tumour-01"
        window.tick(3, False)
        window.choose(4, "FLAIR")  # a study that the user has unticked stays so
        combo = window.choice(4)
        for folder, listed, last in ((other, True, "case-007"), (tmp_path / "third", False, "case-003")):
            window.type_folder(folder)
            QTest.keyClick(window.folder, qt.Qt.Key_Return)
            assert window.choice(4) is combo  # a click may just be on it
            assert [window.ticked(row) for row in (0, 3, 5)] == [True, False, True]
            assert [window.choice(row).currentData for row in (1, 2, 4, 6)] == ["T1", "T2", "FLAIR", "FLAIR"]
            assert window.remark(2) == window.remark(4) == "chosen by you"
            assert (window.choice(0).text, window.choice(5).text) == ("tumour-01", last)
            assert window.listed.checked == listed
        window.listed.click()
        window.type_folder(tmp_path / "fourth")
        QTest.keyClick(window.folder, qt.Qt.Key_Return)
        assert window.listed.checked
        assert host.processEvents(5, until=lambda: window.button.enabled)
        window.button.click()
        return window.dialog.result()

    look_at(panel, host, look)
    assert host.processEvents(60, until=lambda: panel.state.table is not None)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.nrrd"))
    assert files == [f"fourth/{name}.nrrd" for name in ("case-003/FLAIR", "tumour-01/T1", "tumour-01/T2")]


def test_a_click_that_ends_the_typing_of_the_folder_writes_nothing(panel, host, tmp_path):
    load_patient(1, "t1")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "patients.csv").write_text("x\n1\n")

    def look(window):
        window.dialog.show()
        window.dialog.activateWindow()
        assert host.processEvents(5, until=lambda: window.dialog.isActiveWindow)
        for folder in (tmp_path / "new", "no full path", tmp_path / "damaged"):
            window.type_folder(folder)
            assert window.folder.hasFocus() and window.button.enabled
            QTest.mouseClick(window.button, qt.Qt.LeftButton)
            assert window.dialog.result() == 0 and window.folder.text == str(tmp_path / "new")
            assert host.processEvents(5, until=lambda: window.button.enabled)
        window.folder.setFocus()  # nothing is typed: the first click counts
        QTest.mouseClick(window.button, qt.Qt.LeftButton)
        return window.dialog.result()

    look_at(panel, host, look)
    assert host.processEvents(60, until=lambda: panel.state.table is not None)
    assert (tmp_path / "new" / "case-001" / "T1.nrrd").is_file()


def test_the_wheel_changes_no_modality(panel, host):
    load_patient(1, "t1", "t2")

    def look(window):
        combo = window.choice(1)
        middle = qt.QPointF(combo.rect.center())
        away = qt.QPoint(0, -120)
        turned = qt.QWheelEvent(
            middle, middle, qt.QPoint(), away, qt.Qt.NoButton, qt.Qt.NoModifier, qt.Qt.NoScrollPhase, False
        )
        qt.QApplication.sendEvent(combo, turned)
        assert combo.currentData == "T1" and not turned.isAccepted()  # so the table takes it
        return 0

    look_at(panel, host, look)


def test_a_modality_ticks_its_study_and_names_of_a_patient_go_together(panel, host):
    first = load_patient(1, "t1")
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = items.GetItemParent(items.GetItemParent(items.GetItemByDataNode(first[0])))
    load_patient(1, "series 7", patient=patient)
    load_patient(2, "series 8")

    def look(window):
        assert not window.ticked(2) and "no volume" in window.remark(2)
        window.choose(3, "T2")
        assert window.ticked(2) and window.remark(2) == ""
        window.choose(3, "")
        assert not window.ticked(2) and "no volume" in window.remark(2)
        window.choose(3, "T2")
        window.choice(0).text = "tumour-01"
        names = [window.choice(row).text for row in (0, 2, 4)]
        assert names == ["tumour-01", "tumour-01_ses-2", "case-002"] and window.button.enabled
        window.choice(0).text = "tumour-01_ses-pre"
        assert window.choice(2).text == "tumour-01_ses-2" and window.button.enabled
        window.choice(0).text = "tumour-01"
        window.choice(2).text = "other-01_ses-2"  # both are typed now: neither is changed
        assert window.choice(0).text == "tumour-01"
        assert not window.button.enabled and "are one patient" in Window(window.dialog).said
        window.choice(0).text = "other-01"
        assert window.button.enabled
        return 0

    look_at(panel, host, look)
