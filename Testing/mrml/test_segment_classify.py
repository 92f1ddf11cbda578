"""Classifying with the real worker: what arrives in the scene, and what is refused."""

import slicerhost

slicerhost.start()

import csv  # noqa: E402
import math  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
from class_model import CLASSES, write_class_model  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402
from EMIMSegmentLib.study_batch import CASE  # noqa: E402
from segment_scene import (  # noqa: E402
    CORE_RADIUS,
    dicom_study,
    fake_worker,
    head,
    node_ids,
    pair,
    told_of,
    transform,
)

from EMIMLib import EmimError  # noqa: E402
from EMIMLib.models import ModelRegistry  # noqa: E402

FIRST, LAST, OTHER = CLASSES


@pytest.fixture(scope="module")
def class_model(tmp_path_factory):
    return str(write_class_model(tmp_path_factory.mktemp("modèls") / "lésion", ("T1", "FLAIR")))


def rows(table):
    return [[table.GetCellText(r, c) for c in range(2)] for r in range(table.GetNumberOfRows())]


def test_inputs_go_by_name_and_transforms_and_tables_are_heeded(class_model):
    """Exchanging the volumes exchanges the classes, also where both are moved, and in the table given."""
    inputs, logic = pair(), EMIMSegmentLogic()
    before = node_ids()
    found = logic.classify(inputs, class_model, device="cpu")
    table = logic.run.table
    assert tuple(found) == CLASSES and math.isclose(sum(found.values()), 1)
    assert abs(found[FIRST] - found[LAST]) > 0.1
    first = rows(table)
    shift = np.eye(4)
    shift[:3, 3] = 40, -25, 10
    moved = transform(shift)
    for node in inputs.values():
        node.SetAndObserveTransformNodeID(moved.GetID())
    exchanged = logic.classify(
        {"T1": inputs["FLAIR"], "FLAIR": inputs["T1"]}, class_model, device="cpu", outputTable=table
    )
    assert exchanged[FIRST] == pytest.approx(found[LAST], abs=1e-3)
    assert exchanged[LAST] == pytest.approx(found[FIRST], abs=1e-3)
    assert logic.run.table is table and rows(table) != first
    kinds = [slicer.mrmlScene.GetNodeByID(i).GetClassName() for i in node_ids() - before]
    assert sorted(kinds) == ["vtkMRMLLinearTransformNode", "vtkMRMLTableNode"]


def test_the_table_says_all_and_survives_saving(class_model, tmp_path):
    inputs, logic = pair(), EMIMSegmentLogic()
    logic.classify(inputs, class_model, device="cpu", reference="flair")
    table = logic.run.table
    version = logic.registry.find(class_model).version
    assert version and logic.madeWith(table) == f"{logic.modelName(table)} (code {version})"
    assert table.GetName() == "Lésion type: FLAIR" and table.GetLocked()
    assert [table.GetColumnName(c) for c in range(2)] == ["Class", "Probability"]
    shares = logic.run.probabilities
    ranked = sorted(shares, key=shares.get, reverse=True)
    assert [name for name, _share in rows(table)] == ranked
    assert logic.classProbabilities(table) == {n: pytest.approx(shares[n], abs=1e-4) for n in ranked}
    assert logic.modelName(table) == "Lésion type" and logic.missingModalities(table) == []
    assert "not a diagnosis" in table.GetDescription()
    assert logic.run.summary.startswith("Classified in ")
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    again = slicer.util.getNode("Lésion type: FLAIR")
    assert list(logic.classProbabilities(again)) == ranked and logic.modelName(again) == "Lésion type"


def test_each_task_refuses_the_models_of_the_other(class_model, threshold_model):
    inputs, logic = pair(), EMIMSegmentLogic()
    with pytest.raises(EmimError, match="does not classify") as error:
        logic.classify(inputs, str(threshold_model), device="cpu")
    assert "process()" in error.value.hint
    with pytest.raises(EmimError, match="does not classify"):
        logic.classifyBatch("/data", str(threshold_model), "/results")
    with pytest.raises(EmimError, match="does not segment") as error:
        logic.process(inputs, class_model, device="cpu")
    assert "classify()" in error.value.hint
    with pytest.raises(EmimError, match="does not segment"):
        logic.batch([inputs], class_model)
    assert logic.run is None


def test_loaded_studies(class_model, tmp_path):
    """Those that cannot be classified are named; what a study got before is replaced, files never are."""
    for patient in ("pat01", "pat02"):
        head(f"{patient}_T1", bright=CORE_RADIUS), head(f"{patient}_FLAIR")
    head("pat03_T1")
    logic = EMIMSegmentLogic()
    studies = logic.loadedStudies(ModelRegistry().find(class_model).card)
    studies[1].inputs["T1"], studies[1].inputs["FLAIR"] = studies[1].inputs["FLAIR"], studies[1].inputs["T1"]
    run = logic.classifyBatch(studies, class_model, tmp_path, device="cpu")
    assert run.state == "finished" and run.failed == ["pat03"]
    assert run.summary == f"Classified 2 of 3 cases: {tmp_path / 'classes.csv'}. Failed: pat03."
    first, second, third = run.rows
    assert first["probabilities"][FIRST] == pytest.approx(second["probabilities"][LAST], abs=1e-3)
    assert {first["class"], second["class"]} == {FIRST, LAST} and third["class"] is None
    cells = [[run.table.GetCellText(r, c) for c in range(2)] for r in range(3)]
    assert cells == [["pat01", first["class"]], ["pat02", second["class"]], ["pat03", "failed"]]
    with open(tmp_path / "classes.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["class"] for row in written] == [first["class"], second["class"], ""]
    assert "needs FLAIR" in written[2]["error"]
    assert float(written[0][f"probability_{FIRST}"]) == pytest.approx(first["probabilities"][FIRST], abs=1e-5)

    before = node_ids()
    with pytest.raises(EmimError, match="results in the folder already"):
        logic.classifyBatch(studies, class_model, tmp_path, device="cpu")
    again = logic.classifyBatch(studies, class_model, device="cpu")
    assert [r["class"] for r in again.rows] == [r["class"] for r in run.rows]
    (new,) = node_ids() - before  # the table of this batch, which is of no folder
    assert slicer.mrmlScene.GetNodeByID(new) is again.table


def test_the_table_of_classes_names_no_patient(class_model, tmp_path):
    volumes = pair()
    dicom_study("1.2.840.1", *volumes.values())
    dicom_study("1.2.840.2", head("t1"))
    logic = EMIMSegmentLogic()
    studies = logic.loadedStudies(ModelRegistry().find(class_model).card)
    run = logic.classifyBatch(studies, class_model, tmp_path, device="cpu")
    text = (tmp_path / "classes.csv").read_text(encoding="utf-8")
    assert told_of(text) == [] and told_of(run.summary) == [] and len(run.failed) == 1
    cases = [s.name for s in studies]
    assert [row["case"] for row in csv.DictReader(text.splitlines())] == cases
    column = [run.table.GetColumnName(c) for c in range(3)]
    assert column == ["Case", "Study", "Class"] and "Smith" in run.table.GetCellText(0, 1)
    marked = [node for node in slicer.util.getNodesByClass("vtkMRMLTableNode") if node.GetAttribute(CASE)]
    assert [node.GetAttribute(CASE) for node in marked] == cases[:1]


def test_a_table_that_cannot_be_written_is_told(class_model, tmp_path):
    (tmp_path / "classes.csv").mkdir()
    logic = EMIMSegmentLogic()
    with pytest.raises(EmimError, match="cannot be written"):
        logic.classifyBatch([pair()], class_model, tmp_path, device="cpu", overwrite=True)
    assert logic.run.state == "failed" and logic.run.table.GetNumberOfRows() == 1


def test_bad_input_is_refused_before_the_worker(class_model):
    logic = EMIMSegmentLogic()
    with pytest.raises(EmimError, match="needs FLAIR"):
        logic.classify({"T1": head("T1")}, class_model)
    with pytest.raises(EmimError, match="cannot be the reference"):
        logic.classify(pair(), class_model, reference="T2")


def test_an_answer_without_a_class_leaves_no_table(class_model, tmp_path, monkeypatch):
    answer = {"type": "result", "probabilities": {FIRST: 1.0}}
    fake_worker(tmp_path, monkeypatch, f"print(json.dumps({answer!r}))")
    inputs = pair()
    before = node_ids()
    with pytest.raises(EmimError, match="could not be taken into the scene"):
        EMIMSegmentLogic().classify(inputs, class_model)
    assert node_ids() == before
