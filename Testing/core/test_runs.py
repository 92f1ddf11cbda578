"""Runs that survive: resuming is exact, whatever stopped the run; folders are never overwritten."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from emim.cli import EXIT_BAD_INPUT, main, run_command
from emim.commands.shared import say
from emim.config import NetworkConfig, PretrainConfig, override
from emim.errors import Cancelled, EmimError
from emim.events import Events, nobody_reads, to_terminal
from emim.replace import replace_file
from emim.run import RunFolder, load_tensors, read_config
from emim.training.finetune import finetune
from emim.training.preflight import refuse_inside
from emim.training.pretrain import pretrain


class StopAt(Events):
    """Asks a run to stop at a step, by the cancel file or by a signal."""

    def __init__(self, step, run, how):
        super().__init__()
        self.step, self.run, self.how = step, run, how

    def progress(self, done, total, unit="step", text=""):
        super().progress(done, total, unit, text)
        if unit == "step" and done == self.step:
            if self.how == "file":
                (self.run / "cancel").touch()
            else:
                os.kill(os.getpid(), self.how)


def weights(run):
    return load_tensors(run / "checkpoints" / "last.pt")["model"]


def metrics(run):
    """Training and validation metrics by (split, step), without times; the latest of each."""
    found = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "metric":
            found[event["split"], event["step"]] = {k: v for k, v in event.items() if k != "time"}
    return found


def assert_same_run(a, b):
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert metrics(a) == metrics(b)


@pytest.mark.parametrize(
    ("how", "step"),
    [("file", 4), (signal.SIGINT, 4), (signal.SIGTERM, 4), pytest.param("file", 3, id="within validation")],
)
def test_interrupted_pretraining_continues_bit_by_bit(phantoms, cache, tmp_path, small_pretrain, how, step):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    pretrain(phantoms, whole, small_pretrain(), cache=cache)
    with pytest.raises(Cancelled, match=f"step {step} of 6"):
        pretrain(phantoms, halves, small_pretrain(), cache=cache, events=StopAt(step, halves, how))
    assert load_tensors(halves / "checkpoints" / "last.pt")["step"] == step
    assert (("validation", 3) in metrics(halves)) == (step > 3)
    pretrain(None, halves, resume=True, cache=cache)
    assert_same_run(whole, halves)


@pytest.mark.parametrize("step", [2, pytest.param(6, id="within the last validation")])
def test_interrupted_finetuning_continues_bit_by_bit(
    phantoms, cache, tmp_path, small_finetune, small_pretrain, step
):
    pretrain(phantoms, tmp_path / "pre", small_pretrain(), cache=cache)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    finetune(phantoms, whole, tmp_path / "pre", small_finetune(), cache=cache)
    with pytest.raises(Cancelled):
        finetune(
            phantoms,
            halves,
            tmp_path / "pre",
            small_finetune(),
            cache=cache,
            events=StopAt(step, halves, "file"),
        )
    (tmp_path / "pre").rename(tmp_path / "gone")  # the weights are in the checkpoint by now
    finetune(None, halves, resume=True, cache=cache)
    assert_same_run(whole, halves)


def test_a_killed_run_continues(phantoms, cache, tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "emim",
        "pretrain",
        str(phantoms),
        "--out",
        str(run),
        "--cache",
        str(cache),
        "--json",
        "--steps=40",
        "--device=cpu",
        "--set=network.filters=4",
        "--set=network.blocks=1,1,1",
        "--set=train.crop=16",
        "--set=train.checkpoint_every=0",
        "--set=train.validate_every=20",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "progress" and event["unit"] == "step" and event["done"] >= 5:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    reached = load_tensors(run / "checkpoints" / "last.pt")["step"]
    assert 4 <= reached < 40
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "emim",
            "pretrain",
            "--out",
            str(run),
            "--cache",
            str(cache),
            "--resume",
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["type"] == "result"
    assert any(e["type"] == "status" and f"step {reached} of 40" in e["text"] for e in events)
    assert load_tensors(run / "checkpoints" / "last.pt")["step"] == 40
    whole = tmp_path / "whole"
    command[command.index(str(run))] = str(whole)
    assert subprocess.run(command, capture_output=True).returncode == 0
    one, other = weights(run), weights(whole)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_cancelling_from_outside_gives_exit_code_3(phantoms, cache, tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "emim",
        "pretrain",
        str(phantoms),
        "--out",
        str(run),
        "--cache",
        str(cache),
        "--json",
        "--steps=100000",
        "--device=cpu",
        "--set=network.filters=4",
        "--set=network.blocks=1,1,1",
        "--set=train.crop=16",
        "--set=train.validate_every=100000",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if json.loads(line)["type"] == "progress" and '"step"' in line:
                (run / "cancel").touch()
                break
        process.stdout.read()
        assert process.wait(60) == 3
    assert (run / "checkpoints" / "last.pt").is_file()


def test_existing_folders_are_not_overwritten(phantoms, cache, tmp_path, small_pretrain):
    run = tmp_path / "run"
    pretrain(phantoms, run, small_pretrain(train__steps=1), cache=cache)
    before = weights(run)
    with pytest.raises(EmimError, match="exists already"):
        pretrain(phantoms, run, small_pretrain(train__steps=1), cache=cache)
    pretrain(phantoms, run, small_pretrain(train__steps=1, train__seed=1), cache=cache, overwrite=True)
    after = weights(run)
    assert not all(torch.equal(before[k], after[k]) for k in before)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(EmimError, match="not a run folder"):
        pretrain(phantoms, mine, small_pretrain(), cache=cache, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(EmimError, match="no run to resume"):
        pretrain(phantoms, tmp_path / "other", small_pretrain(), cache=cache, resume=True)
    assert not (tmp_path / "other").exists()


def test_overwriting_spares_what_a_run_did_not_make_and_what_it_needs(
    phantoms, cache, tmp_path, small_pretrain, small_finetune
):
    run = pretrain(phantoms, tmp_path / "run", small_pretrain(train__steps=1), cache=cache)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(EmimError, match="holds what the new run needs"):
        finetune(phantoms, run, run, small_finetune(), cache=cache, overwrite=True)
    with pytest.raises(EmimError, match="holds what the new run needs"):
        pretrain(run / "cohort.json", run, small_pretrain(), cache=cache, overwrite=True)
    assert weights(run)
    pretrain(phantoms, run, small_pretrain(train__steps=1), cache=cache, overwrite=True)
    assert (run / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EmimError, match="not a run folder"):
        pretrain(phantoms, foreign, small_pretrain(), cache=cache, overwrite=True)
    assert (foreign / "config.json").exists()


def test_a_resumed_run_keeps_its_split_or_says_what_is_missing(phantoms, cache, tmp_path, small_pretrain):
    cohort = shutil.copytree(phantoms, tmp_path / "cohort")
    run = tmp_path / "run"
    with pytest.raises(Cancelled):
        pretrain(cohort, run, small_pretrain(), cache=cache, events=StopAt(2, run, "file"))
    split = json.loads((run / "split.json").read_text())
    shutil.rmtree(cohort / split["training"][0])
    with pytest.raises(EmimError, match=split["training"][0]):
        pretrain(cohort, run, resume=True, cache=cache)
    assert json.loads((run / "split.json").read_text()) == split


def test_resuming_with_other_settings_is_refused(phantoms, cache, tmp_path, small_pretrain, capsys):
    run = pretrain(phantoms, tmp_path / "run", small_pretrain(train__steps=1), cache=cache)
    assert main(["pretrain", "--out", str(run), "--resume", "--steps=5"]) == 2
    assert "--steps cannot be given with --resume" in capsys.readouterr().err
    assert main(["pretrain", "--out", str(run), "--resume", "--device=cpu", "--cache", str(cache)]) == 0


def test_loading_in_other_processes_gives_the_same_run(phantoms, cache, tmp_path, small_pretrain):
    one = pretrain(phantoms, tmp_path / "one", small_pretrain(train__steps=3), cache=cache)
    two = pretrain(phantoms, tmp_path / "two", small_pretrain(train__steps=3, train__workers=2), cache=cache)
    assert_same_run(one, two)


def test_a_diverging_run_stops_before_it_spoils_its_checkpoint(phantoms, cache, tmp_path, small_pretrain):
    config = small_pretrain(train__steps=3, train__checkpoint_every=0.0, regulariser__weight=1e38)
    with pytest.raises(EmimError, match="no longer numbers"):
        pretrain(phantoms, tmp_path / "run", config, cache=cache)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    if checkpoint.exists():
        assert all(torch.isfinite(v).all() for v in load_tensors(checkpoint)["model"].values())


def test_a_single_modality_and_a_thin_stack(tmp_path, small_pretrain, small_finetune):
    """Ten slices of one modality: fewer than a crop or a mask unit holds."""
    rng = np.random.default_rng(0)
    for i in range(4):
        folder = tmp_path / "cohort" / f"sub-{i}"
        folder.mkdir(parents=True)
        image = np.zeros((10, 40, 40), np.float32)
        image[:, 6:34, 6:34] = 100 + 20 * rng.random((10, 28, 28))
        label = np.zeros(image.shape, np.uint8)
        label[3:7, 12:20, 12:20] = 1
        image[label > 0] += 60
        for name, array in (("T2", image), ("seg", label)):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1, 1, 4))
            sitk.WriteImage(volume, str(folder / f"{name}.nii.gz"))
    run = pretrain(tmp_path / "cohort", tmp_path / "pre", small_pretrain(), cache=tmp_path / "cache")
    last = max((k, v) for k, v in metrics(run).items() if k[0] == "validation")[1]
    assert last["modal"] is None and last["reconstruction"] > 0
    assert all(r is None or r > 0 for r in last["effective_rank"])
    assert metrics(run)["train", 6]["regulariser"] > 0
    structures = {"structures": (), "overlapping": False}
    config = dataclasses.replace(small_finetune(), **structures)
    model = finetune(tmp_path / "cohort", tmp_path / "fine", run, config, cache=tmp_path / "cache")
    assert (model / "models" / "model.pt").is_file()


def test_two_processes_never_share_a_run(tmp_path, small_pretrain):
    with (
        RunFolder(tmp_path / "run", "pretrain", small_pretrain(), events=Events()),
        pytest.raises(EmimError, match="Another process"),
    ):
        RunFolder(tmp_path / "run", "pretrain", small_pretrain(), resume=True, events=Events())


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(EmimError, match="cannot be read"):
        load_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(EmimError, match="cannot be read"):
        load_tensors(tmp_path / "cut.pt")


def test_events_are_json_lines_with_all_their_fields(tmp_path):
    events = Events()
    events.record_to(tmp_path / "events.jsonl")
    events.status("größer")
    events.progress(1, 3)
    time.sleep(0.01)
    events.progress(2, 3)
    events.metric(5, "train", loss=float("nan"), ranks=[1.0, float("inf")])
    events.warning("what", tmp_path, "hint")
    events.result(model=tmp_path)
    events.close()
    with open(tmp_path / "events.jsonl", "a") as file:
        file.write('{"v": 1, "type": "sta')  # a kill in the middle of a line
    events = Events()
    events.record_to(tmp_path / "events.jsonl")
    events.status("again")
    events.close()
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for i, line in enumerate(lines) if i != 6]
    assert [e["type"] for e in found] == [
        "status",
        "progress",
        "progress",
        "metric",
        "warning",
        "result",
        "status",
    ]
    assert all(e["v"] == 1 and e["time"] > 1e9 for e in found)
    assert found[2]["rate"] > 0 and found[2]["seconds_left"] > 0 and found[1]["rate"] is None
    assert found[3]["loss"] is None and found[3]["ranks"] == [1.0, None]


def test_names_that_a_code_page_lacks_do_not_silence_the_events(monkeypatch):
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    events = to_terminal(json_lines=True)
    events.status("/data/Łódź")
    events.result(done=True)
    lines = [json.loads(line) for line in pipe.buffer.getvalue().decode("utf-8").splitlines()]
    assert lines[0]["text"] == "/data/Łódź" and lines[1]["type"] == "result"


def test_a_run_of_an_earlier_version_is_read_but_not_continued(tmp_path):
    folder = tmp_path / "run"
    with RunFolder(folder, "pretrain", PretrainConfig(), events=Events()):
        pass
    data = json.loads((folder / "config.json").read_text())
    data["version"], data["backbone"] = 1, data["network"].pop("backbone")
    del data["regulariser"]["view"]
    (folder / "config.json").write_text(json.dumps(data))
    config = read_config(folder, "pretrain", PretrainConfig)
    assert config.network == NetworkConfig() and config.regulariser.view == "whole"
    with pytest.raises(EmimError, match="begun by an earlier EMIM"):
        RunFolder(folder, "pretrain", PretrainConfig(), resume=True, events=Events())


def test_what_comes_after_a_run_is_not_recorded_in_it(tmp_path):
    events = Events()
    with RunFolder(tmp_path / "run", "pretrain", PretrainConfig(), events=events):
        events.result(done=True)
    events.status("Something else.")
    with pytest.raises(EmimError), RunFolder(tmp_path / "bad", "pretrain", PretrainConfig(), events=events):
        raise EmimError("It failed.")
    events.error("It failed.")  # as the command line does
    lines = [(tmp_path / name / "events.jsonl").read_text() for name in ("run", "bad")]
    assert "Something else" not in lines[0] and "It failed" in lines[1]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["pid"] == os.getpid()


def test_a_file_that_a_viewer_has_open_is_replaced_a_little_later(tmp_path, monkeypatch):
    """Windows refuses meanwhile."""
    new, file, tried = tmp_path / "new", tmp_path / "file", []
    new.write_text("new")
    rename = os.replace

    def replace(source, target):
        tried.append(1)
        if len(tried) < 3:
            raise PermissionError("in use")
        rename(source, target)

    system = types.SimpleNamespace(name="nt", replace=replace)
    monkeypatch.setattr("emim.replace.os", system)
    waited = []
    monkeypatch.setattr("emim.replace.time", types.SimpleNamespace(sleep=waited.append))
    replace_file(new, file)
    assert file.read_text() == "new" and len(tried) == 3 and waited == [0.05, 0.1]
    tried.clear()
    with pytest.raises(PermissionError):
        replace_file(file, new, patience=0.05)
    assert waited == [0.05, 0.1, 0.05] and len(tried) == 2, "no longer than it may"
    tried.clear()
    system.name = "posix"
    with pytest.raises(PermissionError):
        replace_file(file, new)
    assert len(tried) == 1


@pytest.mark.parametrize("value", ["inf", "nan", "1e400"])
def test_endless_settings_are_refused(value):
    with pytest.raises(EmimError, match=r"train.steps"):
        override(PretrainConfig(), {"train.steps": value})


def test_a_viewer_that_holds_a_preview_or_the_verdict_does_not_end_the_training(
    phantoms, cache, tmp_path, small_pretrain, small_finetune, monkeypatch
):
    """Windows refuses to replace what is open."""
    refused, rename = set(), os.replace

    def replace(source, target):
        if Path(target).name in ("preview.npz", "verdict.json"):
            refused.add(Path(target).name)
            raise PermissionError(13, "in use", str(target))
        return rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    run = pretrain(phantoms, tmp_path / "pre", small_pretrain(train__steps=3), cache=cache)
    model = finetune(phantoms, tmp_path / "tuned", run, small_finetune(train__steps=3), cache=cache)
    assert refused == {"preview.npz", "verdict.json"} and model.is_dir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[-1]["type"] == "result"
    told = {e["what"] for e in events if e["type"] == "warning"}
    assert told >= {"The preview could not be made: in use.", "The verdict could not be made: in use."}


def test_a_run_folder_is_known_by_every_name_it_has(tmp_path, monkeypatch):
    """Where case does not count, it has several; a link that is not followed stands for that here."""
    (tmp_path / "run").mkdir()
    (tmp_path / "Run").symlink_to(tmp_path / "run")
    monkeypatch.setattr(Path, "resolve", Path.absolute)
    with pytest.raises(EmimError, match="holds what the new run needs"):
        refuse_inside(tmp_path / "Run", True, [tmp_path / "run" / "cohort.json"])
    refuse_inside(tmp_path / "other", True, [tmp_path / "run" / "cohort.json"])


def test_events_end_quietly_where_nobody_reads_on_windows(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(OSError, match="Invalid"):
        Events(True, Closed()).status("on Linux it means something else")
    monkeypatch.setattr("emim.events.os", types.SimpleNamespace(name="nt"))
    events = Events(True, Closed())
    events.status("one")
    assert events.stream is None
    assert not nobody_reads(OSError(errno.EINVAL, "Invalid argument", "a?b.nii"))
    with monkeypatch.context() as patched, pytest.raises(BrokenPipeError):
        patched.setattr("sys.stdout", Closed())
        say(Events(), "an answer")


def test_on_windows_a_file_that_fails_without_its_name_is_no_reader_that_left(monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.EINVAL, "Invalid argument")  # as writes to a share that is gone

    monkeypatch.setattr("emim.events.os", types.SimpleNamespace(name="nt"))
    monkeypatch.setattr("emim.machine.device.open_device", fail)
    assert run_command(["info"]) == EXIT_BAD_INPUT
    assert "Invalid argument" in capsys.readouterr().err
