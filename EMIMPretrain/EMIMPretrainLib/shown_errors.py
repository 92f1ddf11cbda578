"""What a user asked for: a click counts once, and errors are shown instead of printed to the console."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


def onceAtATime(slot: Callable[..., Any]) -> Callable[..., Any]:
    """For a slot with a wait cursor, which lets clicks through: those that come while it runs are ignored.

    In all objects of the slot's class together, of which there is one in the panel.
    """
    running = False

    @functools.wraps(slot)
    def guarded(*arguments: Any) -> Any:
        nonlocal running
        if running:
            return None
        running = True
        try:
            return slot(*arguments)
        finally:
            running = False

    return guarded
