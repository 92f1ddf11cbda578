"""Leaves out the tests on Slicer's core where its wheel does not exist, and says so loudly."""

import importlib.util
import platform
import sys
from pathlib import Path

import pytest

_HAVE_SLICER = all(importlib.util.find_spec(name) for name in ("slicer", "PySide6"))
_WANT_SLICER = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)

if not _HAVE_SLICER:
    collect_ignore_glob = ["gui/*", "mrml/*"]


def pytest_sessionstart(session):
    asked = [Path(argument.split("::")[0]).resolve() for argument in session.config.args]
    if _WANT_SLICER and not _HAVE_SLICER and any(_needs_slicer(path) for path in asked):
        raise pytest.UsageError("Slicer's core is not installed: run `make setup-slicer`, then try again.")


def _needs_slicer(path):
    """Whether the path holds tests on Slicer's core, or is one."""
    folders = [Path(__file__).parent / name for name in ("gui", "mrml")]
    return any(path in (folder, *folder.parents) or folder in path.parents for folder in folders)


def pytest_terminal_summary(terminalreporter):
    if not _HAVE_SLICER:
        terminalreporter.section("NOT TESTED: the Slicer modules", sep="!", red=True, bold=True)
        where = f"{sys.platform} {platform.machine()}, Python {platform.python_version()}"
        terminalreporter.write_line(
            f"slicer-core or PySide6 is not installed here ({where}), so nothing in Testing/mrml and "
            "Testing/gui ran. They run on Linux x86-64 with Python 3.10 to 3.13, after `make setup-slicer`."
        )
