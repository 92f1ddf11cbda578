"""Dry runs: the estimate is of what a run does, and nothing is left behind."""

import dataclasses
import json
import os
import time

import pytest

from emim.cli import main
from emim.config import override
from emim.errors import EmimError
from emim.training import estimate
from emim.training.estimate import estimate_finetuning, estimate_pretraining
from emim.training.finetune import finetune
from emim.training.pretrain import pretrain


def size(*folders):
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    monkeypatch.setattr(estimate, "STEPS_BUDGET", 1.0)


def check(found, run, cache, cases):
    """The estimate of a run that has been done since."""
    assert (found.steps, found.device, found.cases, found.cases_prepared) == (6, "cpu", cases, 0)
    assert found.seconds_preprocess > 0 and found.seconds_per_step > 0
    parts = found.seconds_preprocess + 6 * found.seconds_per_step
    parts += found.validations * found.seconds_per_validation
    assert parts < found.seconds < parts + 60
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert found.validations == sum(e.get("split") == "validation" for e in events)
    assert found.disk_bytes == pytest.approx(size(run, cache), rel=0.25)
    assert 2e8 < found.memory_bytes < found.memory_total_bytes
    assert "on cpu" in found.text() and "GiB" in found.text()


def test_an_estimate_of_pretraining(phantoms, tmp_path, small_pretrain):
    run, cache = tmp_path / "run", tmp_path / "cache"
    found = estimate_pretraining(phantoms, small_pretrain(), out=run, cache=cache)
    assert not run.exists() and not cache.exists(), "nothing is written"
    pretrain(phantoms, run, small_pretrain(), cache=cache)
    check(found, run, cache, cases=7)
    again = estimate_pretraining(phantoms, small_pretrain(), cache=cache)
    assert again.cases_prepared == 7 and again.seconds_preprocess == 0
    assert again.disk_bytes < found.disk_bytes
    with pytest.raises(EmimError, match="exists already"):
        estimate_pretraining(phantoms, small_pretrain(), out=run, cache=cache)


def test_an_estimate_of_finetuning(phantoms, tmp_path, small_finetune):
    run, cache = tmp_path / "run", tmp_path / "cache"
    found = estimate_finetuning(phantoms, None, small_finetune(), out=run, cache=cache)
    assert not run.exists() and not cache.exists()
    finetune(phantoms, run, None, small_finetune(), cache=cache)
    check(found, run, cache, cases=4)


def test_it_refuses_what_the_run_would_refuse(phantoms, tmp_path, small_pretrain, small_finetune):
    with pytest.raises(EmimError, match="mask.ratio"):
        estimate_pretraining(phantoms, small_pretrain(mask__ratio=2.0))
    wrong = override(small_finetune(), {"labelled": 99})
    with pytest.raises(EmimError, match="labelled"):
        estimate_finetuning(phantoms, None, wrong)
    with pytest.raises(EmimError, match="no such run"):
        estimate_finetuning(phantoms, tmp_path / "nothing", small_finetune())


def test_what_takes_long_is_broken_off_and_extrapolated():
    def work(should_stop):
        for _ in range(200):
            if should_stop():
                raise estimate.Cancelled
            time.sleep(0.01)

    begun = time.monotonic()
    seconds = estimate._timed(work, 200, budget=0.2)
    assert time.monotonic() - begun < 1
    assert 2.0 <= seconds < 2 * 200 * 0.01 * 5, "two seconds, more on a busy machine"


def test_a_validation_that_is_broken_off_gives_an_estimate(phantoms, tmp_path, small_finetune, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURE_BUDGET", 0.0)
    monkeypatch.setattr(estimate, "LINES_BUDGET", 0.0)
    config = dataclasses.replace(small_finetune(), labelled=2)
    found = estimate_finetuning(phantoms, None, config, cache=tmp_path / "cache")
    assert found.seconds_per_validation > 0


def test_on_the_command_line(phantoms, tmp_path, capsys):
    small = ["--device=cpu", "--set=network.filters=4", "--set=network.blocks=1,1,1", "--set=train.crop=16",
             "--steps=3", "--cache", str(tmp_path / "cache")]  # fmt: skip
    before = sorted(os.listdir(tmp_path))
    assert main(["pretrain", str(phantoms), "--dry-run", "--json", *small]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["type"] == "result" and result["preset"] == "tiny" and result["steps"] == 3
    assert {"seconds", "seconds_preprocess", "seconds_per_step", "memory_bytes", "memory_total_bytes"} < set(
        result
    )
    assert {"disk_bytes", "disk_free_bytes", "device", "cases"} < set(result)
    assert main(["finetune", str(phantoms), "--init=none", "--dry-run", *small]) == 0
    assert "Time:" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == before
    assert main(["pretrain", str(phantoms), *small]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["pretrain", "--resume", "--dry-run", "--out", str(tmp_path / "run")]) == 2
