"""Commands that stop when standard input ends, at whatever they are, and leave nothing half-made."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from emim import stopping
from emim.errors import EmimError
from emim.run import load_tensors

SMALL = [
    "--device=cpu",
    "--set=network.filters=4",
    "--set=network.blocks=1,1,1",
    "--set=train.crop=16",
    "--set=train.validate_every=100000",
    "--steps=100000",
]


def start(*arguments, **options):
    command = [sys.executable, "-m", "emim", *arguments, "--json", "--stop-with-stdin"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options)
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def wait_for(process, text):
    assert any(text in line for line in process.stdout), process.stderr.read()


def stop(process, within=10.0):
    """Close standard input; the exit code and the last event."""
    begun = time.monotonic()
    process.stdin.close()
    code = process.wait(within)
    # A busy machine is slow; on an idle one it takes less than three seconds.
    assert time.monotonic() - begun < within
    lines = process.stdout.read().splitlines()
    return code, json.loads(lines[-1]) if lines else None


def test_training_saves_and_can_be_resumed(phantoms, cache, tmp_path):
    run = tmp_path / "run"
    process = start("pretrain", str(phantoms), "--out", str(run), "--cache", str(cache), *SMALL)
    wait_for(process, '"unit": "step"')
    code, last = stop(process, 30)
    assert code == 3 and last["text"].startswith("Stopped at step")
    step = load_tensors(run / "checkpoints" / "last.pt")["step"]
    assert step > 0 and f"step {step} of" in last["text"]
    assert not list(run.rglob("*.part")) and (run / "report" / "report.html").is_file()
    again = start("pretrain", "--out", str(run), "--cache", str(cache), "--resume")
    wait_for(again, f"Resuming at step {step}")
    assert stop(again, 30)[0] == 3


@pytest.mark.parametrize("stage", ["Reading", '"unit": "case"', "Loading torch", "collapse lines"])
def test_a_run_stops_at_every_stage_before_training(stage, phantoms, tmp_path):
    run = tmp_path / "run"
    process = start("pretrain", str(phantoms), "--out", str(run), "--cache", str(tmp_path / "c"), *SMALL)
    wait_for(process, stage)
    code, last = stop(process)
    assert code == 3 and last["type"] == "status" and last["text"].startswith("Stopped")


@pytest.mark.parametrize("stage", ['"unit": "case"', "collapse lines"])
def test_a_cancel_file_is_seen_before_training(stage, phantoms, tmp_path):
    run = tmp_path / "run"
    process = start("pretrain", str(phantoms), "--out", str(run), "--cache", str(tmp_path / "c"), *SMALL)
    wait_for(process, stage)
    (run / "cancel").touch()
    assert process.wait(30) == 3
    assert not (run / "checkpoints" / "last.pt").exists()


def test_a_command_that_may_go_on_ends_as_usual(phantoms):
    process = start("scan", str(phantoms))
    out, _ = process.communicate(input="any text is ignored\n" * 10_000)
    assert process.returncode == 3, "communicate closes standard input"
    process = start("scan", str(phantoms))
    lines = process.stdout.read().splitlines()
    assert process.wait(10) == 0 and json.loads(lines[-1])["type"] == "result"


def test_it_stops_though_the_parent_ignores_interrupts(tmp_path):
    ignore = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("phantom", "--out", str(tmp_path / "heads"), "--subjects", "500")
    finally:
        signal.signal(signal.SIGINT, ignore)
    wait_for(process, "progress")
    assert stop(process)[0] == 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_it_dies_with_its_parent(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "p = subprocess.Popen([sys.executable, '-m', 'emim', 'phantom', '--out', sys.argv[1],\n"
            "    '--subjects', '500', '--stop-with-stdin'], stdin=subprocess.PIPE, stderr=sys.stdout)\n"
            "p.stdin.write(b'\\n'); p.stdin.flush()\n"
            "p.wait()",
            str(tmp_path / "heads"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "Making 500" in parent.stdout.readline()
    parent.kill()
    begun = time.monotonic()
    parent.stdout.read()  # ends with the child, which holds the other end of this pipe
    assert time.monotonic() - begun < 10


def test_it_stops_with_another_process(tmp_path):
    served = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(tmp_path / "heads"), "--subjects", "500"]
    command += ["--json", "--stop-with-process", str(served.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, "progress")
        assert process.poll() is None
        served.kill()
        served.wait()
        assert process.wait(10) == 3


def test_an_input_that_was_never_open_stops_nothing(phantoms):
    """A launcher between the two may close it."""
    command = [sys.executable, "-m", "emim", "scan", str(phantoms), "--json", "--stop-with-stdin"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_a_process_that_does_not_listen_is_ended():
    code = (
        "import signal, time\nfrom emim.stopping import stop_at_end_of_input\nstop_at_end_of_input()\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\nprint('ready', flush=True)\n"
        "while True: time.sleep(1)"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    process.stdin.write("\n")
    wait_for(process, "ready")
    assert stop(process)[0] == 3


def test_the_exit_code_is_right_even_if_the_interrupt_came_within_exec(tmp_path):
    """Much of what imports do runs in exec(), after which `python -m` would end as if killed."""
    (tmp_path / "interrupted.py").write_text(
        "import sys\nimport emim.commands.runs as runs\nfrom emim.cli import main\n"
        "runs.list_runs = lambda _: exec('raise KeyboardInterrupt')\nsys.exit(main(['runs', '.']))"
    )
    command = [sys.executable, "-m", "interrupted"]
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 3, done.stderr
    assert "Stopped." in done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_end_of_a_job_does_not_cut_its_reason_short(ranks, monkeypatch):
    """torchrun ends all ranks when one is lost, perhaps while this one still tells of it."""
    monkeypatch.setattr(stopping, "launched_size", lambda: ranks)
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(EmimError), stopping.deferred():
            raise EmimError("Another process has ended.")
        if ranks == 1:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
