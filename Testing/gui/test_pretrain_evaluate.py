"""Judging a model on labelled cases that it has not seen, in the panel and from the console."""

# ruff: noqa: F811  fixtures are imported

import json
import shutil

import pytest
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from EMIMPretrainLib.evaluation_run import evaluationFolder  # noqa: E402
from EMIMPretrainLib.label_export import labelFile  # noqa: E402
from EMIMPretrainLib.label_meaning import writeMeaning  # noqa: E402
from pretrain_story import (  # noqa: E402, F401
    MODALITIES,
    cohort_folder,
    fake_worker,
    panel,
    shot,
    table_texts,
    written_run,
)

from emim.cohort.scan import scan  # noqa: E402
from EMIMLib import EmimError, settings  # noqa: E402

SPLIT = {"training": ["sub-001"], "validation": ["sub-002"], "excluded": []}
# Three cases: one without a lesion in label and result, one that failed, one in between.
ANSWER = {
    "type": "result",
    "summary": {"Lésion": {"dice": {"mean": 0.5}, "hd95": {"mean": 41.0}, "both_empty": 1}},
    "cases": [
        {
            "id": case,
            "reference": f"/data/{case}_seg.nii.gz",
            "prediction": None if error else f"/data/{case}.seg.nrrd",
            "error": error,
            "scores": [{"structure": "Lésion", "dice": dice, "hd95": 41.0}],
        }
        for case, dice, error in (("a", 1.0, None), ("b", 0.0, "There is no prediction."), ("c", 0.5, None))
    ],
    "images": {case: {"T1": f"/data/{case}_T1.nii.gz"} for case in "abc"},
    "recode": {"a": {}, "b": {}, "c": {"1": 2, "2": 1}},
    "segments": {case: [{"name": "Œdème", "value": 2, "color": None, "terminology": None}] for case in "abc"},
    "failures": {"b": "T1 and FLAIR do not overlap."},
    "seen": {"learned": {"d": "training of <b>x"}, "pretrained": ["a"], "doubts": ["Who knows?"]},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A model that has learned nothing."""
    from emim.config import NetworkConfig, PreprocessConfig, Structure
    from emim.networks.segmenter import Segmenter
    from emim.package.bundle import write_package
    from emim.package.model import ModelCard

    card = ModelCard(
        name="Têtes",
        modalities=MODALITIES,
        optional=MODALITIES,
        structures=(Structure("Tumeur", (1, 2, 3), 1, (230, 159, 0)), Structure("Cœur", (1,), 2, (0, 9, 9))),
        overlapping=True,
        preprocess=PreprocessConfig(spacing=(6.0, 6.0, 6.0)),
        network=NetworkConfig(filters=2, blocks=(1, 1)),
        crop=16,
    )
    return write_package(
        tmp_path_factory.mktemp("m") / "model", card, Segmenter(4, 2, card.network).state_dict()
    )


@pytest.fixture
def run(panel, package, cohort_folder):
    """A finished run, in the list, that knows which two of the four labelled heads it has seen."""
    folder = written_run(settings.runsFolder() / "Essai", "finetune", ended={"type": "result"})
    shutil.copytree(package, folder / "model")
    (folder / "split.json").write_text(json.dumps(SPLIT), encoding="utf-8")
    (folder / "cohort.json").write_text(json.dumps(scan(cohort_folder).to_dict()), encoding="utf-8")
    panel.runs.refresh()
    return folder


def judge(host, panel, run, cases):
    panel.runs.attach(run)
    panel.ui.evaluateCollapsibleButton.collapsed = False
    panel.ui.evaluatePathLineEdit.currentPath = str(cases)
    assert panel.ui.evaluateButton.enabled, panel.ui.evaluateButton.toolTip
    panel.ui.evaluateButton.click()


def test_a_run_is_judged_on_what_it_has_not_seen(panel, host, run, cohort_folder):
    assert not panel.ui.evaluateButton.enabled and "Select" in panel.ui.evaluateModelLabel.text
    judge(host, panel, run, cohort_folder)
    assert panel.ui.evaluateButton.text == "Cancel"
    assert host.processEvents(120, until=lambda: panel.state.task is None)
    assert not panel.ui.evaluateStatusLabel.text
    texts = table_texts(panel.ui.evaluationTable)
    assert texts[0][0] == "Mean of 2" and {row[0] for row in texts[1:]} == {"sub-003", "sub-004"}
    said = panel.ui.evaluationLabel.text
    assert "sub-001 (training of Essai)" in said and "sub-002 (validation of Essai)" in said
    results = run / "evaluation" / cohort_folder.name
    assert (results / "scores.txt").is_file() and (results / "sub-003.seg.nrrd").is_file()
    shot(host, panel, "evaluated", 1200)

    assert "in mm" in panel.ui.evaluationTable.horizontalHeaderItem(1).toolTip()
    show = panel.ui.evaluationShowButton
    assert not show.enabled and "Choose a case" in show.toolTip
    panel.ui.evaluationTable.selectRow(0)  # the means show nothing
    panel.ui.evaluationTable.cellActivated.emit(0, 0)
    assert not show.enabled and not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    panel.ui.evaluationTable.selectRow(1)
    panel.ui.evaluationTable.cellActivated.emit(1, 0)
    assert show.enabled
    show.click()
    label, prediction = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert label.GetDisplayNode().GetVisibility2DFill() and label.GetDisplayNode().GetVisibility()
    display = prediction.GetDisplayNode()
    assert display.GetVisibility() and not display.GetVisibility2DFill()
    assert prediction.GetName() == f"{texts[1][0]} by the model"
    other = next(row for row in panel.logic.scan(cohort_folder, waitForCompletion=True).table.rows)
    panel.logic.loadCase(other)
    assert not display.GetVisibility()

    other = written_run(settings.runsFolder() / "autre", "finetune", done=5)
    panel.runs.attach(other)
    assert not panel.ui.evaluationTable.visible and not panel.ui.evaluateButton.enabled
    assert not show.visible
    panel.runs.attach(run)
    assert panel.ui.evaluationTable.visible


def test_what_must_be_known_of_the_scores_is_said(panel, host, run, tmp_path, monkeypatch):
    odd = [
        {"type": "warning", "what": "The reference has odd values.", "where": f"/data/{case}_seg.nii.gz"}
        for case in "ac"
    ]
    body = f"for event in {odd!r}: say(**event)\nsay(**{ANSWER!r})\nsys.exit(4)"  # some have failed
    fake_worker(tmp_path, monkeypatch, body)
    judge(host, panel, run, tmp_path)
    assert host.processEvents(20, until=lambda: panel.state.task is None)
    texts = table_texts(panel.ui.evaluationTable)
    assert texts == [
        ["Mean of 3", "0.50 · 41.0"],
        ["b", "failed"],
        ["c", "0.50 · 41.0"],
        ["a", "1.00 · 41.0"],
    ]
    assert [case.row.recode for case in panel.evaluation.evaluations[run].cases] == [{}, {1: 2, 2: 1}, {}]
    assert panel.ui.evaluationTable.item(1, 0).toolTip() == "T1 and FLAIR do not overlap."
    said = panel.ui.evaluationLabel.text
    for part in (
        "count as Dice 0: b",
        "1 of the cases",
        "d (training of &lt;b&gt;x)",
        "they count: a.",
        "Who knows?",
        "a, c: The reference",
    ):
        assert part in said


def test_cancelling_and_failing_leave_the_panel_as_it_was(panel, host, run, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "say(type='status', text='at it')\ntime.sleep(600)")
    judge(host, panel, run, tmp_path)
    assert host.processEvents(20, until=lambda: panel.ui.evaluateStatusLabel.text == "at it")
    panel.ui.evaluateButton.click()
    assert host.processEvents(20, until=lambda: panel.state.task is None)
    assert panel.ui.evaluateStatusLabel.text == "Cancelled." and not panel.ui.evaluationTable.visible
    failed = {"type": "error", "what": "No labelled case is new."}
    fake_worker(tmp_path, monkeypatch, f"say(**{failed!r})\nsys.exit(2)")
    panel.ui.evaluateButton.click()
    assert host.processEvents(20, until=lambda: panel.state.task is None)
    assert "No labelled case is new" in panel.ui.evaluateStatusLabel.text
    assert panel.ui.evaluateButton.enabled and panel.ui.evaluateButton.text == "Judge on labelled cases"


def test_the_console_judges_by_a_table_with_labels_drawn_in_slicer(
    panel, run, package, cohort_folder, tmp_path
):
    logic = panel.logic
    table = logic.scan(cohort_folder, waitForCompletion=True).table
    for row in table.rows:
        row.included = row.id in ("sub-001", "sub-002")  # the others were kept for this
    drawn = logic.labelsFolder(table)
    drawn.mkdir(parents=True)
    unlabelled = next(row for row in table.rows if not row.label.path)
    label = labelFile(drawn, unlabelled)
    shutil.copy(cohort_folder / "sub-003" / "sub-003_seg.nii.gz", label)
    writeMeaning(label, [{"name": "Tumeur", "values": [1, 2, 3], "color": [1, 2, 3], "terminology": None}])
    evaluation = logic.evaluate(logic.attach(run), table, waitForCompletion=True).evaluation
    assert {case.row.id for case in evaluation.cases} == {"sub-003", "sub-004", unlabelled.id}
    assert set(evaluation.learned) == {"sub-001", "sub-002"} and set(evaluation.means) == {"Tumeur", "Cœur"}
    assert evaluation.cases == sorted(evaluation.cases, key=lambda case: case.meanDice)
    assert evaluationFolder(run / "model", table.name).name == f"{evaluation.folder.name}-2"

    writeMeaning(label, [{"name": "Tumeur", "values": [4], "color": [1, 2, 3], "terminology": None}])
    with pytest.raises(EmimError, match="do not fit the exported labels"):
        logic.evaluate(run, table)
    with pytest.raises(EmimError, match="does not lie in a run folder"):
        logic.evaluate(package, cohort_folder)
    taken = tmp_path / "taken"
    evaluation = logic.evaluate(package, cohort_folder, taken, waitForCompletion=True).evaluation
    assert len(evaluation.cases) == 4 and "not recorded" in evaluation.doubts[0]
