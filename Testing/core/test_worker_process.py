"""Worker processes: whatever they do, the caller gets an answer and no process is left behind.

The fakes are small scripts that take the place of ``python -m emim`` through EMIM_PYTHON.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from emim.errors import Cancelled, EmimError
from EMIMLib import interpreter, job_folder, output_tail
from EMIMLib.worker import LOG_LIMIT, Worker

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fakes are POSIX scripts")
ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
import json, os, signal, subprocess, sys, time
def say(kind, **fields): print(json.dumps({"v": 1, "type": kind, "time": 0, **fields}), flush=True)
def raw(content): sys.stdout.buffer.write(content); sys.stdout.buffer.flush()
"""


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setenv("EMIM_LOGS", str(tmp_path / "logs"))
    return tmp_path / "logs"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Make ``python -m emim`` be a script; returns where it lies."""

    def make(body, folder=tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "python"
        script.write_text(f"#!{sys.executable}\n{HEADER}{textwrap.dedent(body)}", encoding="utf-8")
        script.chmod(0o755)
        monkeypatch.setenv("EMIM_PYTHON", str(script))
        return script

    return make


def follow(worker, until, seconds=10):
    """Poll until ``until(events)`` or the end; returns all events."""
    events, end = [], time.monotonic() + seconds
    while worker.running and not until(events):
        assert time.monotonic() < end, f"nothing happened; the log: {worker.log}"
        events += worker.poll()
        time.sleep(0.02)
    return events


def alive(pid):
    """Whether the process runs; one that has ended but was not fetched by its parent does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


def gone(pid, seconds=3):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


# ---- what a worker says -------------------------------------------------------------------------


def test_events_and_result_arrive_and_nothing_is_left(fake, logs):
    fake("""
        say("status", text="Reading")
        say("progress", done=1, total=2, unit="case", text="")
        print("a library chats", file=sys.stderr)
        say("result", volumes={"WT": 1.5})
    """)
    events = []
    worker = Worker(["segment", "--model", "m"])
    assert worker.wait(events.append) == {"volumes": {"WT": 1.5}}
    assert [e["type"] for e in events if e["type"] != "log"] == ["status", "progress", "result"]
    assert {"type": "log", "text": "a library chats"} in events
    assert worker.exitCode == 0 and worker.error is None and not worker.cancelled and not worker.running
    assert "Reading" in worker.log and "a library chats" in worker.log
    assert list(logs.iterdir()) == []


def test_command_line(fake, tmp_path):
    fake("say('result', arguments=sys.argv[1:], closed=sys.stdin.read() == '')")
    worker = Worker(["scan", tmp_path])
    worker.start()
    time.sleep(0.3)
    assert worker.poll() == [] and worker.running  # its standard input stays open as long as we live
    worker._closeInput()
    expected = ["-m", "emim", "scan", str(tmp_path), "--json", "--stop-with-stdin"]
    assert worker.wait()["arguments"] == [*expected, "--stop-with-process", str(os.getpid())]
    surviving = Worker(["pretrain"], survivesSlicer=True).wait()
    assert surviving["arguments"] == ["-m", "emim", "pretrain", "--json"] and surviving["closed"]


def test_error_of_the_core_keeps_what_where_hint(fake):
    fake("say('error', what='No FLAIR.', where='/data/a', hint='Add it.'); sys.exit(2)")
    with pytest.raises(EmimError) as caught:
        Worker(["segment"]).wait()
    assert (caught.value.what, caught.value.where, caught.value.hint) == ("No FLAIR.", "/data/a", "Add it.")


def test_partly_done_has_result_and_error(fake):
    fake("say('result', failed=['case-2']); sys.exit(1)")
    worker = Worker(["segment", "--cohort", "c"])
    with pytest.raises(EmimError, match="Not everything"):
        worker.wait()
    assert worker.result == {"failed": ["case-2"]}


def test_end_without_result_is_an_error(fake):
    fake("print('bye')")
    with pytest.raises(EmimError, match="without a result"):
        Worker(["info"]).wait()


def test_garbage_between_events(fake):
    fake(r"""
        raw(b"\xff\xfe\x00 M\xfcnchen \x80\n")
        raw(b"{not json}\n[1, 2]\n{\"no\": \"type\"}\n{\"type\": 3}\n" + b"[" * 3000 + b"\n")
        raw(b"12%\r50%\r100%\r\n")
        say("status", text="Größe ✓ 体")
        raw(b"{\"type\": \"result\", \"n\": 1}")      # no newline at the end
    """)
    events = []
    assert Worker(["scan"]).wait(events.append) == {"n": 1}
    assert [e["text"] for e in events if e["type"] == "status"] == ["Größe ✓ 体"]
    text = "\n".join(e["text"] for e in events if e["type"] == "log")
    for part in ("M�nchen", "{not json}", '{"no": "type"}', '{"type": 3}', "50%"):
        assert part in text


def test_half_a_line_is_waited_for(fake):
    fake(r"""
        line = json.dumps({"type": "status", "text": "ganz Ä"}, ensure_ascii=False).encode()
        raw(line[:-4]); time.sleep(0.5); raw(line[-4:] + b"\n"); say("result")
    """)
    events = []
    Worker(["scan"]).wait(events.append)
    assert [e["text"] for e in events if e["type"] == "status"] == ["ganz Ä"]
    assert not [e for e in events if e["type"] == "log"]


def test_flood_is_bounded(fake):
    fake(r"""
        for _ in range(40): raw((b"x" * 99 + b"\n") * 10_000)    # 40 MB
        say("result", n=1)
    """)
    worker, longest, count = Worker(["scan"]), 0.0, 0
    worker.start()
    while worker.running:
        start = time.monotonic()
        count += len(worker.poll())
        longest = max(longest, time.monotonic() - start)
    assert worker.result == {"n": 1}
    assert len(worker.log) <= 2 * LOG_LIMIT + 200
    assert count < 1000 and longest < 2.0


def test_reader_that_fell_behind_skips(tmp_path, monkeypatch):
    monkeypatch.setattr(output_tail, "BLOCK", 100)
    monkeypatch.setattr(output_tail, "BACKLOG", 1000)
    file = tmp_path / "output.txt"
    tail = output_tail.OutputTail(file)
    assert tail.read() == [] and tail.drained  # not there yet
    file.write_bytes(b"old\n" * 1000 + b"last\n")
    lines = []
    while not lines or not tail.drained:
        lines += tail.read()
    assert lines[0] == "[3905 bytes of output left out]" and lines[-1] == "last" and len(lines) < 40


def test_endless_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(output_tail, "BLOCK", 100)
    monkeypatch.setattr(output_tail, "LONGEST", 250)
    file = tmp_path / "output.txt"
    file.write_bytes(b"y" * 1000)
    tail, lines = output_tail.OutputTail(file), []
    for _ in range(11):
        lines += tail.read(final=True)
    assert "".join(lines) == "y" * 1000 and max(map(len, lines)) <= 350


# ---- how a worker ends ---------------------------------------------------------------------------


def test_crash_names_the_reason_and_keeps_the_log(fake):
    fake("import no_such_module_xy")
    worker = Worker(["segment"])
    with pytest.raises(
        EmimError, match="exit code 1: ModuleNotFoundError: No module named 'no_such"
    ) as caught:
        worker.wait()
    assert "Traceback" in worker.log
    assert "no_such_module_xy" in (Path(caught.value.where) / "errors.txt").read_text()
    assert job_folder.lastLog() == Path(caught.value.where)


def test_segmentation_fault(fake):
    fake("os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(EmimError, match=r"crashed \(SIGSEGV\)"):
        Worker(["segment"]).wait()


def test_killed_from_outside(fake):
    fake("say('status', text=str(os.getpid())); time.sleep(60)")
    worker = Worker(["segment"])
    worker.start()
    follow(worker, lambda events: events)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(EmimError, match=r"killed \(SIGKILL\)") as caught:
        worker.wait()
    assert "memory" in caught.value.hint and not worker.cancelled and not worker.running


STUBBORN = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    say("status", text=str(child.pid))
    time.sleep(60)
"""


def test_hang_is_cancelled_within_three_seconds_with_its_children(fake, tmp_path):
    fake(STUBBORN)
    worker = Worker(["pretrain"], cancelFile=tmp_path / "cancel")
    worker.start()
    child = int(follow(worker, lambda events: events)[0]["text"])
    start = time.monotonic()
    worker.cancel(grace=1.0)
    assert time.monotonic() - start < 0.2  # returns at once
    assert (tmp_path / "cancel").exists() and worker.running
    with pytest.raises(Cancelled):
        worker.wait()
    assert time.monotonic() - start < 3
    assert worker.cancelled and worker.error is None and gone(worker.pid) and gone(child)


def test_kill_ends_it_at_once(fake):
    fake(STUBBORN)
    worker = Worker(["scan"])
    worker.start()
    child = int(follow(worker, lambda events: events)[0]["text"])
    worker.kill()
    with pytest.raises(Cancelled):
        worker.wait(timeout=3)
    assert gone(child)


def test_cooperative_stop_needs_no_kill(fake):
    fake("say('status', text='ready'); sys.stdin.read(); say('status', text='Saved.'); sys.exit(3)")
    worker = Worker(["pretrain"])
    worker.start()
    events = follow(worker, lambda events: events)
    worker.cancel(grace=30)
    with pytest.raises(Cancelled):
        worker.wait(events.append, timeout=10)
    assert worker.exitCode == 3 and events[-1]["text"] == "Saved."


def test_done_in_spite_of_cancel_counts_as_done(fake):
    fake("say('status', text='ready'); sys.stdin.read(); say('result', n=1)")
    worker = Worker(["segment"])
    worker.start()
    follow(worker, lambda events: events)
    worker.cancel(grace=30)
    assert worker.wait(timeout=10) == {"n": 1} and not worker.cancelled


def test_real_python_behind_a_launcher_does_not_outlive_it(fake):
    fake("""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        say("status", text=str(child.pid))
        sys.exit(child.wait())
    """)
    worker = Worker(["segment"])
    worker.start()
    child = int(follow(worker, lambda events: events)[0]["text"])
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(EmimError, match="SIGKILL"):
        worker.wait()
    assert gone(child)


def test_timeout(fake):
    fake("time.sleep(60)")
    worker = Worker(["info"])
    with pytest.raises(EmimError, match="within 0.3 s"):
        worker.wait(timeout=0.3)
    assert gone(worker.pid)


PARENT = """
import sys, time
sys.path.insert(0, {root!r})
from EMIMLib.worker import Worker
worker = Worker({arguments!r}, survivesSlicer={survives})
worker.start()
while not any(e["type"] in ("status", "progress") for e in worker.poll()): time.sleep(0.02)
print(worker.pid, flush=True)
time.sleep(60)
"""


def killed_parent(arguments, survives):
    """Start a worker from another process, kill that with -9, return the worker's process id."""
    code = PARENT.format(root=str(ROOT), arguments=arguments, survives=survives)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return pid


def test_worker_of_the_core_ends_when_its_parent_is_killed(tmp_path):
    out = tmp_path / "phantoms"
    pid = killed_parent(["phantom", "--out", str(out), "--subjects", "500", "--spacing", "2"], False)
    assert gone(pid, 5)


def test_worker_that_survives_goes_on_when_its_parent_is_killed(fake, tmp_path):
    fake(f"""
        say("status", text="ready"); time.sleep(0.7)
        open({str(tmp_path / "done")!r}, "w").close(); time.sleep(30)
    """)
    pid = killed_parent(["pretrain"], True)
    try:
        end = time.monotonic() + 5
        while not (tmp_path / "done").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (tmp_path / "done").exists() and alive(pid)
    finally:
        os.killpg(pid, signal.SIGKILL)


# ---- the core itself -----------------------------------------------------------------------------


def test_core_runs_and_is_cancelled(tmp_path):
    folder = tmp_path / "Köpfe und 体 mit Leerzeichen"
    result = Worker(["phantom", "--out", folder, "--subjects", "1", "--spacing", "5"]).wait(timeout=60)
    assert Path(result["folder"]) == folder and list(folder.glob("**/*.nii.gz"))

    worker = Worker(["phantom", "--out", tmp_path / "many", "--subjects", "500", "--spacing", "2"])
    worker.start()
    follow(worker, lambda events: any(e["type"] == "progress" for e in events), seconds=30)
    start = time.monotonic()
    worker.cancel()
    with pytest.raises(Cancelled):
        worker.wait()
    assert time.monotonic() - start < 3 and gone(worker.pid)


def test_core_refuses_bad_input(tmp_path):
    with pytest.raises(EmimError) as caught:
        Worker(["scan", tmp_path / "nowhere"]).wait(timeout=60)
    assert "nowhere" in str(caught.value) and caught.value.hint


# ---- interpreter, environment, logs --------------------------------------------------------------


def test_python_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("EMIM_PYTHON", str(tmp_path / "nothing"))
    with pytest.raises(EmimError, match="EMIM_PYTHON"):
        Worker(["info"]).start()


def test_file_that_is_no_program(monkeypatch, tmp_path, logs):
    program = tmp_path / "python"
    program.write_bytes(b"\x00 no program")
    program.chmod(0o755)
    monkeypatch.setenv("EMIM_PYTHON", str(program))
    worker = Worker(["info"])
    with pytest.raises(EmimError, match="could not be started"):
        worker.start()
    assert not worker.running and list(logs.iterdir()) == []


def test_paths_with_spaces_letters_and_length(fake, tmp_path, monkeypatch):
    deep = tmp_path / "Büro 体" / ("sehr langer Name " * 8).strip() / ("noch einer " * 12).strip()
    monkeypatch.setenv("EMIM_LOGS", str(deep / "logs"))
    fake("print('Ünïcode'); say('result', arguments=json.loads(os.environ['EMIM_ARGUMENTS']))", folder=deep)
    name = str(deep / "T1 ✓.nii.gz")
    assert name in Worker(["segment", "--input", f"T1={name}", name]).wait()["arguments"]


def test_environment_of_a_worker(monkeypatch):
    monkeypatch.delenv("EMIM_PYTHON", raising=False)
    monkeypatch.setenv("PYTHONHOME", "/slicer/python")
    monkeypatch.setenv("PYTHONPATH", "/slicer/scripts")
    own = interpreter.workerEnvironment()  # Slicer's Python needs what Slicer has set
    assert own["PYTHONHOME"] == "/slicer/python"
    assert own["PYTHONPATH"].split(os.pathsep) == [str(interpreter.coreFolder()), "/slicer/scripts"]
    assert (interpreter.coreFolder() / "emim" / "cli.py").is_file()

    monkeypatch.setenv("EMIM_PYTHON", "/usr/bin/python3")  # another Python does not
    other = interpreter.workerEnvironment()
    assert "PYTHONHOME" not in other and other["PYTHONPATH"] == str(interpreter.coreFolder())


def test_python_of_slicer_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("EMIM_PYTHON", raising=False)
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(interpreter, "_inSlicer", lambda: True)
    assert interpreter.pythonExecutable() == str(launcher)
    launcher.unlink()
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/bin/SlicerApp-real")  # would open a second Slicer
    with pytest.raises(EmimError, match="PythonSlicer"):
        interpreter.pythonExecutable()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python before 3.11 always looks there")
def test_file_in_the_current_folder_does_not_shadow_a_library(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('wrong json')")
    monkeypatch.chdir(tmp_path)
    assert Worker(["phantom", "--out", "p", "--subjects", "1", "--spacing", "5"]).wait(timeout=60)
    assert (tmp_path / "p").is_dir()


def test_old_logs_are_removed_but_not_those_in_use(logs):
    for i in range(job_folder.KEPT + 5):
        folder = logs / f"{i:02d}"
        folder.mkdir(parents=True)
        old = time.time() - 10 * job_folder.DAY - i
        os.utime(folder, (old, old))
    running = logs / f"{job_folder.KEPT + 4:02d}" / "output.txt"
    running.write_text("a run of many days")
    long_ago = time.time() - 99 * job_folder.DAY
    os.utime(running.parent, (long_ago, long_ago))
    new = job_folder.newJobFolder("scan")
    left = {f.name for f in logs.iterdir()}
    assert running.parent.name in left and new.name in left
    assert len(left) == job_folder.KEPT + 2


def test_importing_is_cheap():
    code = (
        "import sys, json, EMIMLib, EMIMLib.worker, EMIMLib.models, EMIMLib.dependencies;"
        "print(json.dumps([m for m in ('torch', 'monai', 'numpy', 'SimpleITK', 'filelock', 'qt', 'slicer')"
        " if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_names_beyond_ascii_survive_a_launcher_that_garbles_its_command_line(
    fake, phantoms, tmp_path, monkeypatch
):
    fake("""
        given = [a.encode().decode("latin-1") for a in sys.argv[1:]]
        os.execv(sys.executable, [sys.executable, *given])
    """)
    folder = tmp_path / "Köln 東京"
    shutil.copytree(phantoms / "sub-001", folder / "sub-001")
    worker = Worker(["scan", str(folder)])
    worker.start()
    follow(worker, lambda events: False, seconds=60)
    assert worker.error is None and worker.result["cases"] == 1
