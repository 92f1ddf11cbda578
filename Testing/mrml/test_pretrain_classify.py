"""Fine-tuning for classification by the real worker, from the file of classes to the installed model."""

import csv
import json

import pytest
import slicerhost

slicerhost.start()
from EMIMPretrainLib.cohort_table import CohortTable  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from pretrain_files import RunFiles  # noqa: E402

from emim.phantom.generate import generate  # noqa: E402
from EMIMLib import EmimError, settings  # noqa: E402

TINY = {
    "preset": "tiny",
    "device": "cpu",
    "network.filters": 4,
    "network.blocks": (1, 1, 1),
    "train.crop": 16,
    "train.batch": 1,
    "train.steps": 4,
    "train.validate_every": 2,
    "train.validation_share": 0.4,
}


@pytest.fixture
def logic(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings.setRunsFolder(tmp_path / "runs")
    settings.setModelsFolder(tmp_path / "models")
    settings.setCacheFolder(tmp_path / "cache")
    logic = EMIMPretrainLogic()
    yield logic
    logic.close()


@pytest.fixture
def table():
    """Four cases of three subjects, and one that cannot be used."""
    subjects = {"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "c", "d-1": "d"}
    rows = [
        {
            "id": i, "subject": s, "usable": s != "d", "problems": [], "notes": [],
            "images": {"T1": f"/data/{i}.nii"}, "label": None, "label_values": [],
        }
        for i, s in subjects.items()
    ]  # fmt: skip
    return CohortTable.fromScan({"rows": rows, "modalities": ["T1"]}, "/data")


def write(file, text):
    file.write_text(text, encoding="utf-8")
    return file


def test_what_is_read_of_the_file(logic, table, tmp_path):
    file = write(tmp_path / "klassen.csv", "subject;class\na;süß\nb;süß\nc;10\nd;9\n")
    classes = logic.readClasses(file, table)
    assert classes == {"a-1": "süß", "a-2": "süß", "b-1": "süß", "c-1": "10"}  # d cannot be used
    assert list(logic.classCounts(classes).items()) == [("10", 1), ("süß", 3)]
    table.row("a-2").included = False
    assert logic.classCounts(logic.readClasses(file, table)) == {"10": 1, "süß": 2}


@pytest.mark.parametrize(
    "text, what",
    [
        ("case,class\na-1,x\n", "only the class 'x'"),
        ("case,class\na-1,x\nb-1,y\nz-9,y\n", "no usable case 'z-9'"),
        ("name,kind\na-1,x\n", "no such columns"),
        ("case,class\na-1,x\na-2,y\nb-1,X\n", "upper and lower case"),
        ("case,class\na-1,x\na-2,x\nb-1,y\n", "one subject only"),
    ],
)
def test_a_file_that_cannot_do_is_refused_before_the_worker(logic, table, tmp_path, text, what):
    file = write(tmp_path / "classes.csv", text)
    with pytest.raises(EmimError, match=what) as error:
        logic.startFinetuning(table, "scratch", classes=file, settings=TINY, name="nie")
    assert error.value.hint or what == "upper and lower case"
    structures = [{"name": "A", "values": [1], "color": [1, 2, 3], "terminology": None}]
    with pytest.raises(EmimError, match="Both structures and classes"):
        logic.startFinetuning(table, "scratch", structures, classes=file, settings=TINY)
    assert logic.runs() == []


def test_from_the_file_of_classes_to_the_installed_model(logic, tmp_path):
    heads = generate(tmp_path / "köpfe", subjects=7, labelled=1, spacing=5.0, classes=True)
    cohort = logic.scan(heads, waitForCompletion=True).table
    cohort.row("sub-007").included = False  # though the file names it
    with open(heads / "classes.csv", encoding="utf-8", newline="") as file:
        known = [row["class"] for row in csv.DictReader(file)]
    node = logic.getParameterNode()
    node.task, node.classificationMode = "classification", "linear"
    chosen = logic.finetuneSettings(node)
    assert chosen["classification.mode"] == "linear"
    run = logic.startFinetuning(
        cohort, "scratch", classes=heads / "classes.csv", settings=chosen | TINY, name="Läsionsart",
        waitForCompletion=True,
    )  # fmt: skip
    assert run.classifies and run.canInstall
    kept = json.loads((run.folder / "classes.json").read_text(encoding="utf-8"))
    assert len(kept["labels"]) == 6 and kept["classes"] == sorted(set(known))
    assert json.loads((run.folder / "config.json").read_text())["classification"]["mode"] == "linear"
    verdict = logic.verdict(run)
    assert verdict.title in (
        "Better than guessing",
        "No better than guessing",
        "Undecided: it may be guessing",
    )
    assert verdict.colour in ("green", "red", "amber") and "AUC" in verdict.text
    charts = logic.showCharts(run)
    assert set(charts) == {"loss", "scores"}
    names = [charts["scores"].GetNthPlotSeriesNode(n).GetName() for n in range(4)]
    assert names == ["AUC", "balanced accuracy", "accuracy", "AUC of guessing"]
    assert logic.previewText(run) == ""
    assert not logic.isInstalled(run)
    model = logic.installModel(run)
    assert model.problem is None and model.card.classes == tuple(sorted(set(known)))
    assert logic.isInstalled(run) and [m.name for m in logic.registry.models()] == ["Läsionsart"]


def validation(area, interval):
    recalls = {"benign": 0.8, "malignant": 0.1}
    return {
        "auc": area, "auc_interval": interval, "balanced_accuracy": 0.6, "accuracy": 0.65, "cases": 20,
        "cross_entropy": 0.6, "recall_per_class": recalls,
    }  # fmt: skip


@pytest.mark.parametrize(
    "area, interval, colour, title",
    [
        (0.9, [0.7, 0.99], "green", "Better than guessing"),
        (0.5, [0.3, 0.7], "red", "No better than guessing"),
        (0.7, [0.4, 0.9], "grey", "Undecided"),
        (None, None, "grey", "Undecided"),
    ],
)
def test_the_verdict_of_a_run_that_trains(logic, tmp_path, area, interval, colour, title):
    files = RunFiles(tmp_path / "run", "finetune", steps=10)
    config = {"version": 1, "command": "finetune", "task": "classification", "train": {"steps": 10}}
    files.write("config.json", config)
    run = logic.attach(files.folder)
    assert run.classifies and logic.verdict(run).title == "Too early to tell"
    files.step(1, 0.7)
    files.validate(1, **validation(0.9, [0.7, 0.99]))
    run.poll()
    assert logic.verdict(run).colour == "grey" and "only begun" in logic.verdict(run).text
    files.step(5, 0.6)
    files.validate(5, **validation(area, interval))
    run.poll()
    verdict = logic.verdict(run)
    assert (verdict.colour, verdict.title[: len(title)]) == (colour, title)
    assert "Recognised: benign 80%, malignant 10%." in verdict.text
    if area is not None:
        assert "Hardly ever recognised: malignant." in verdict.text
