"""Errors of what a user asked for, shown instead of printed to a console that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import slicer

from EMIMLib.error_display import showError


@contextmanager
def shownErrors(wait: bool = False) -> Iterator[None]:
    """Show what is raised inside; ``wait``: with a wait cursor, for what takes a second or more."""
    try:
        with slicer.util.WaitCursor(wait):
            yield
    except Exception as error:
        showError(error)
