"""Runs read from outside: their state from what lies in the folder, their events as they come."""

import json
import os
import shutil
import subprocess
import sys
from threading import Event, Thread, Timer
from time import sleep

import pytest
from filelock import FileLock

from emim.cli import main
from emim.errors import EmimError
from emim.events import Events
from emim.run import RunFolder
from emim.run_state import EventTail, in_use, list_runs, read_run


def make_run(folder, *events, command="pretrain", **config):
    folder.mkdir(parents=True)
    config = {"version": 1, "command": command, "train": {"steps": 10}, **config}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.dumps({"v": 1, "time": 1000.0 + i, **e}) for i, e in enumerate(events)]
    (folder / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder


def step(done, left=None):
    return {"type": "progress", "unit": "step", "done": done, "total": 10, "seconds_left": left}


STATUS, RESULT = {"type": "status", "text": "…"}, {"type": "result"}
ERROR = {"type": "error", "what": "No.", "where": "here", "hint": "Do this."}


def test_it_loads_nothing_but_the_standard_library():
    code = (
        "import sys, emim.run_state\n"
        "slow = {'torch', 'numpy', 'SimpleITK', 'filelock'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("events", "state", "done"),
    [
        ([], "waiting", 0),
        ([STATUS], "paused", 0),
        ([step(3), STATUS], "paused", 3),
        ([step(3), ERROR], "failed", 3),
        ([step(3), ERROR, STATUS], "failed", 3),
        ([step(3), ERROR, step(4)], "paused", 4),
        ([step(10), RESULT, STATUS], "finished", 10),
    ],
)
def test_the_state_of_a_run_at_rest(events, state, done, tmp_path):
    run = read_run(make_run(tmp_path / "run", *events))
    assert (run.state, run.step, run.steps, run.seconds_left) == (state, done, 10, None)
    assert run.error == ({k: ERROR[k] for k in ("what", "where", "hint")} if state == "failed" else None)
    if events:
        assert (run.started, run.updated) == (1000.0, 1000.0 + len(events) - 1)


def test_a_held_run_is_running_and_tells_the_time_left(tmp_path, small_pretrain):
    folder = tmp_path / "run"
    events = Events()
    with RunFolder(folder, "pretrain", small_pretrain(), events=events):
        events.progress(1, 6)
        assert in_use(folder) and in_use(folder), "looking does not take the lock"
        events._send("progress", done=2, total=6, unit="step", text="", rate=2.0, seconds_left=2.0)
        running = read_run(folder)
        assert (running.state, running.step, running.steps, running.seconds_left) == ("running", 2, 6, 2.0)
    events.close()
    assert read_run(folder).state == "paused" and not in_use(folder)


def test_who_only_looks_keeps_nobody_from_starting(tmp_path, small_pretrain):
    folder = tmp_path / "run"
    RunFolder(folder, "pretrain", small_pretrain(), events=Events()).close()
    with FileLock(folder / ".lock", thread_local=False) as look:  # far longer than any look takes
        Timer(0.3, look.release, [True]).start()
        RunFolder(folder, "pretrain", small_pretrain(), resume=True, events=Events()).close()
    done = Event()
    watchers = [Thread(target=_look, args=(folder, done)) for _n in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _n in range(20):
            RunFolder(folder, "pretrain", small_pretrain(), resume=True, events=Events()).close()
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()


def _look(folder, done):
    while not done.is_set():
        in_use(folder)
        sleep(0.001)


def test_who_only_looks_is_not_taken_for_a_run(tmp_path):
    (tmp_path / ".lock").touch()
    with FileLock(tmp_path / ".lock", thread_local=False) as look:
        Timer(0.005, look.release, [True]).start()
        assert not in_use(tmp_path)


def test_a_disk_without_locks_tells_nothing(tmp_path, monkeypatch):
    def acquire(*_arguments, **_options):
        raise NotImplementedError("no flock")

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(FileLock, "acquire", acquire)
    assert not in_use(tmp_path)


def test_what_is_damaged_or_absent_counts_as_not_written(tmp_path):
    run = make_run(tmp_path / "run", step(3), command="finetune", init="/a/run", modalities=["T1", "T2"])
    with open(run / "events.jsonl", "ab") as file:
        file.write(b'\xff\xfe garbage\n[1]\n{"type": "result", "ti')
    (run / "split.json").write_text("{")
    found = read_run(run)
    assert (found.state, found.step, found.cases) == ("paused", 3, 0)
    assert found.modalities == ("T1", "T2") and found.init == "/a/run" and found.model is None
    (run / "split.json").write_text('{"training": ["a", "b"], "validation": ["c"], "excluded": ["d"]}')
    (run / "model").mkdir()
    assert read_run(run).cases == 3 and read_run(run).model == run / "model"
    for text in ("", "[]", '{"model_type": "bert"}'):
        (run / "config.json").write_text(text)
        with pytest.raises(EmimError, match="not a run folder"):
            read_run(run)


def test_the_step_is_found_before_many_other_events(tmp_path):
    cases = [{"type": "progress", "unit": "case", "done": i, "total": 2000} for i in range(2000)]
    assert read_run(make_run(tmp_path / "run", step(7), *cases)).step == 7


def test_runs_are_found_two_levels_deep_the_latest_first(tmp_path, capsys):
    old = make_run(tmp_path / "old", step(1))
    new = make_run(tmp_path / "group" / "new", step(2), RESULT)
    shutil.copytree(new, tmp_path / "a" / "b" / "too deep")
    (new / "model").mkdir()
    text = (new / "events.jsonl").read_text().replace("100", "200")
    (new / "events.jsonl").write_text(text)
    (tmp_path / "notes.txt").touch()
    assert [r.folder for r in list_runs(tmp_path)] == [new, old]
    assert [r.folder for r in list_runs(new)] == [new]
    with pytest.raises(EmimError, match="no such folder"):
        list_runs(tmp_path / "nothing")
    assert main(["runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and "finished" in shown[0] and str(old) in shown[1]
    assert main(["runs", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in result["runs"]] == ["finished", "paused"]
    assert result["runs"][0]["folder"] == str(new)


def test_runs_tell_what_they_train(tmp_path, capsys):
    verdict = {"state": "better than guessing"}
    for name, config, task, word in (
        ("before", {}, None, "pretrain"),
        ("old", {"command": "finetune"}, "segmentation", "finetune"),
        ("new", {"command": "finetune", "task": "classification"}, "classification", "classify"),
    ):
        run = make_run(tmp_path / name, step(1), **config)
        (run / "report").mkdir()
        (run / "report" / "verdict.json").write_text(json.dumps(verdict))
        assert read_run(run).task == task
        assert main(["runs", str(run)]) == 0
        shown = capsys.readouterr().out
        assert f"  {word} " in shown and "(better than guessing)" in shown


# ---- events as they come ------------------------------------------------------------------------


def line(**fields):
    return json.dumps({"type": "status", **fields}) + "\n"


def test_new_events_are_read_once_and_whole(tmp_path):
    file = tmp_path / "events.jsonl"
    tail = EventTail(file)
    assert tail.read() == []
    half = line(text="größer")
    file.write_text(line(text="one") + half[:20], encoding="utf-8")
    assert [e["text"] for e in tail.read()] == ["one"]
    assert tail.read() == []
    with open(file, "ab") as f:
        f.write((half[20:] + "no event\n[1]\n").encode() + b"\xff\xfe\n" + line(text="three").encode())
    assert [e["text"] for e in tail.read()] == ["größer", "three"]
    assert tail.read() == []


@pytest.mark.parametrize("shorter", [True, False])
def test_a_replaced_file_is_read_from_its_beginning(shorter, tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_text("".join(line(time=i, text="x" * 100) for i in range(5)))
    tail = EventTail(file)
    assert len(tail.read()) == 5
    other = tmp_path / "other"
    other.write_text("".join(line(time=100 + i, text="y" * 100) for i in range(1 if shorter else 9)))
    os.replace(other, file)
    assert [e["time"] for e in tail.read()] == [100 + i for i in range(1 if shorter else 9)]
