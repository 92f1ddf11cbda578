"""The command line: what it says and with which exit code, and that it starts at once."""

import json
import subprocess
import sys

import pytest

from emim.cli import main
from emim.demo import MARKER


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "emim", *arguments], capture_output=True, text=True)


def test_help_and_version_load_nothing_slow():
    code = (
        "import sys, emim\nfrom emim.cli import build_parser\nbuild_parser().format_help()\n"
        "slow = {'torch', 'monai', 'SimpleITK', 'matplotlib', 'numpy', 'nibabel'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_api_mirrors_the_commands_without_loading_torch():
    code = (
        "import sys, emim\nfor name in emim.__all__: getattr(emim, name)\n"
        "sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_scanning_loads_no_torch(phantoms):
    code = (
        f"import sys\nfrom emim.cli import main\ncode = main(['scan', {str(phantoms)!r}])\n"
        "sys.exit('torch is loaded' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sub-001" in done.stdout and "7 cases" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "/no/such/folder"], "/no/such/folder"),
        (["pretrain", "/no/such/folder", "--out", "RUN"], "/no/such/folder"),
        (["pretrain", "COHORT", "--out", "RUN", "--mask", "stripes"], "hybrid"),
        (["pretrain", "COHORT", "--out", "RUN", "--set", "train.stops=3"], "train.stops"),
        (["pretrain", "COHORT", "--out", "RUN", "--device", "cuda:77"], "cuda"),
        (["pretrain", "COHORT", "--out", "RUN", "--split", "/no/split.json"], "/no/split.json"),
        (["pretrain", "--out", "RUN"], "No cohort"),
        (["pretrain", "--out", "RUN", "--resume"], "resume"),
        (["pretrain", "COHORT", "--out", "RUN", "--pattern", "T1"], "MODALITY=PATTERN"),
        (["finetune", "COHORT", "--out", "RUN"], "--init"),
        (["finetune", "COHORT", "--out", "RUN", "--init", "/no/run"], "/no/run"),
        (["finetune", "COHORT", "--out", "RUN", "--init", "none", "--structure", "x=99"], "99"),
        (["segment", "--model", "/no/model", "--input", "T1=/a.nii", "--output", "RUN.nii.gz"], "/no/model"),
        (["segment", "--model", "COHORT", "--output", "RUN.nii.gz"], "--input"),
        (["segment", "--model", "COHORT", "--input", "T1", "--output", "RUN.nii.gz"], "MODALITY=FILE"),
        (["evaluate", "COHORT", "--predictions", "/no/folder"], "/no/folder"),
        (["report", "/no/run"], "/no/run"),
        (["info", "/no/model"], "/no/model"),
        (["pretrain", "COHORT", "--out", "RUN", "--spacing", "nan,1,1"], "spacing"),
        (["pretrain", "COHORT", "--out", "RUN", "--spacing", "5"], "3 of them"),
        (["pretrain", "COHORT", "--out", "RUN", "--set", "train.learning_rate=nan"], "learning_rate"),
        (["pretrain", "COHORT", "--out", "RUN", "--seed", "-1"], "seed"),
        (["pretrain", "COHORT", "--out", "RUN", "--set", "train.validation_share=1.5"], "validation_share"),
        (["pretrain", "COHORT", "--out", "RUN", "--modalities", "T1,T1"], "modalities"),
        (
            ["pretrain", "COHORT", "--out", "RUN", "--set", "mask.pattern=modal", "--modalities", "T1"],
            "modal",
        ),
        (["cache", "--cache", "COHORT", "--remove"], "not a cache"),
        (["phantom", "--out", "COHORT"], "overwrite"),
        (["demo", "--out", "COHORT"], "not a demo"),
    ],
)
def test_bad_input_is_exit_code_2_says_where_and_leaves_nothing(arguments, said, phantoms, tmp_path, capsys):
    place = {"COHORT": str(phantoms), "RUN": str(tmp_path / "run"), "RUN.nii.gz": str(tmp_path / "a.nii.gz")}
    before = sorted(p.name for p in phantoms.rglob("*"))
    assert main([place.get(a, a) for a in arguments]) == 2
    message = capsys.readouterr().err
    assert "error:" in message and said in message
    assert not list(tmp_path.iterdir()), "nothing half-written is left"
    assert sorted(p.name for p in phantoms.rglob("*")) == before


def test_a_demo_does_not_delete_the_cohort_it_is_to_use(tmp_path, capsys):
    cohort = tmp_path / "demo" / "mine"
    cohort.mkdir(parents=True)
    (tmp_path / "demo" / MARKER).write_text("{}")
    out = str(tmp_path / "demo")
    assert main(["demo", "--out", out, "--cohort", str(cohort), "--overwrite"]) == 2
    assert "holds what" in capsys.readouterr().err and cohort.is_dir()


@pytest.mark.parametrize("out", [None, "run"])
def test_an_unexpected_failure_is_kept_in_the_run_folder_and_no_other(out, tmp_path, monkeypatch):
    def fails(*args):
        raise RuntimeError("a defect")

    (tmp_path / "run").mkdir()
    for folder in (tmp_path, tmp_path / "run"):
        (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emim.cli._info" if out is None else "emim.cli._phantom", fails)
    assert main(["info"] if out is None else ["phantom", "--out", out]) == 1
    assert [f.parent.name for f in tmp_path.rglob("log.txt")] == ([] if out is None else ["run"])


def test_errors_as_events():
    done = run("scan", "/no/such/folder", "--json")
    assert done.returncode == 2
    event = json.loads(done.stdout.splitlines()[-1])
    assert event["type"] == "error" and event["what"] and event["where"] == "/no/such/folder"


def test_the_chain_on_the_command_line(phantoms, cache, tmp_path, capsys):
    """Each command, on a cohort whose folder has a space and an umlaut in its name."""
    place = tmp_path / "Köln 1"
    place.mkdir()
    small = ["--cache", str(cache), "--set=network.filters=4", "--set=network.blocks=1,1,1",
             "--set=train.crop=16", "--steps=3", "--device=cpu"]  # fmt: skip
    assert main(["scan", str(phantoms), "--out", str(place / "scan")]) == 0
    table = str(place / "scan" / "cohort.json")
    assert main(["pretrain", table, "--out", str(place / "pre"), *small]) == 0
    fine = ["finetune", table, "--structure=WT=1,2,3", "--structure=ET=3", *small]
    assert main([*fine, "--init", str(place / "pre"), "--out", str(place / "fine")]) == 0
    assert "Weights from" in capsys.readouterr().err
    assert main([*fine, "--init", "none", "--plan", str(place / "pre"), "--out", str(place / "scratch")]) == 0
    assert "Weights from" not in capsys.readouterr().err
    case = phantoms / "sub-001"
    inputs = [f"--input={m}={case}/sub-001_{m}.nii.gz" for m in ("FLAIR", "T1", "T1ce")]  # T2 is missing
    segment = ["segment", "--model", str(place / "fine"), *inputs]
    assert main([*segment, "--output", str(place / "seg.nii.gz")]) == 0
    assert main([*segment, "--output", str(place / "seg.nii.gz")]) == 2, "never overwritten"
    assert main([*segment, "--output", str(place / "two.seg.nrrd"), "--probabilities"]) == 0
    for name in ("seg.nii.gz", "seg_measurements.csv", "seg_overlay.png", "two.seg.nrrd"):
        assert (place / name).stat().st_size, name
    folder = str(place / "all")
    cases = "--cases=sub-001,sub-002"
    assert (
        main(["segment", "--model", str(place / "fine"), "--cohort", table, cases, "--output", folder]) == 0
    )
    evaluate = ["evaluate", table, "--predictions", folder, "--model", str(place / "fine"), cases]
    assert main([*evaluate, "--output", str(place / "scores.json")]) == 0
    assert "WT" in capsys.readouterr().out
    recoded = ["--structure=WT=1,2,3,4", "--structure=ET=3,4"]
    assert main([*evaluate, *recoded, "--output", str(place / "recoded.json")]) == 0
    assert main([*evaluate, recoded[0]]) == 2, "a structure of the model is missing"
    scores = json.loads((place / "scores.json").read_text())
    assert json.loads((place / "recoded.json").read_text())["mean_dice"] == scores["mean_dice"]
    assert len(scores["cases"]) == 2 and 0 <= scores["mean_dice"] <= 1
    assert main(["report", str(place / "pre")]) == 0
    assert main(["info", str(place / "fine")]) == 0
    assert '"T1ce"' in capsys.readouterr().out
    assert main(["cache", "--cache", str(cache)]) == 0
    assert "cases" in capsys.readouterr().out


def test_a_table_never_replaces_a_datalist(phantoms, tmp_path, capsys):
    mine = tmp_path / "cohort.csv"
    mine.write_text(f"id,T1\nanna,{phantoms}/sub-001/sub-001_T1.nii.gz\n")
    before = mine.read_text()
    assert main(["scan", str(mine), "--out", str(tmp_path), "--overwrite"]) == 2
    assert main(["scan", str(phantoms), "--out", str(tmp_path)]) == 2
    assert mine.read_text() == before and "exists already" in capsys.readouterr().err
    assert main(["scan", str(phantoms), "--out", str(tmp_path / "table")]) == 0


def test_labels_are_never_taken_for_a_modality(phantoms, tmp_path, capsys):
    folder = phantoms / "sub-001"
    file = tmp_path / "list.csv"
    file.write_text(f"ID,T1,seg\nanna,{folder}/sub-001_T1.nii.gz,{folder}/sub-001_seg.nii.gz\n")
    assert main(["scan", str(file)]) == 2
    assert "name of labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ['{"training": 5}', '[{"id": 1, "images": {"T1": 5}}]', "[5]", '{"cases": 1}']
)
def test_malformed_datalists_are_bad_input(content, tmp_path, capsys):
    file = tmp_path / "list.json"
    file.write_text(content)
    assert main(["scan", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
