"""pytest fixtures for tests on the host; a conftest.py imports all names from here."""

import contextlib
import os
import sys
import time
import traceback
import uuid
from pathlib import Path

import pytest

__all__ = ["host", "clean_application", "slot_errors", "no_leftover_processes"]

_MARK = "SLICERHOST_TEST"  # in the environment of every process that a test starts
_SECONDS_TO_END = 3.0


@pytest.fixture(scope="session")
def host():
    """The running host; see slicerhost.host.Host."""
    import slicerhost

    return slicerhost.start()


@pytest.fixture(autouse=True)
def clean_application(host, slot_errors, no_leftover_processes, tmp_path_factory, monkeypatch):
    """An empty scene, empty settings and an empty home folder for each test; panels are made anew."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_DOCUMENTS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    host.useSettingsFolder(home / "settings")
    yield
    unasked = host.reset()
    assert not unasked, f"answered dialogs that did not open: {unasked}"


@pytest.fixture(autouse=True)
def slot_errors(host, monkeypatch):
    """Exceptions raised in slots, timers and observers, which Qt and VTK only print: they fail the test.

    A test that provokes one asserts on this list and clears it.
    """
    errors = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: errors.append(error))
    monkeypatch.setattr(
        sys, "unraisablehook", lambda u: errors.append((u.exc_type, u.exc_value, u.exc_traceback))
    )
    yield errors
    if errors:
        pytest.fail(
            "raised in a slot:\n" + "\n".join("".join(traceback.format_exception(*e)) for e in errors)
        )


@pytest.fixture(autouse=True)
def no_leftover_processes(host, monkeypatch):
    """Fails a test that leaves processes behind, also ones that lost their parent (Linux only)."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(_MARK, mark)
    yield
    end = time.monotonic() + _SECONDS_TO_END
    while (left := _processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    if left:
        pytest.fail("left running: " + "; ".join(left.values()))


def _processes_with(mark):
    """Live processes with this mark in their environment: {id: command line}."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile, or another user's
            continue
        if f"{_MARK}={mark}".encode() in environment:
            found[int(folder.name)] = command
    found.pop(os.getpid(), None)
    return found
