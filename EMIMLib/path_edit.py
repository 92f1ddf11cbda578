"""What the user types into a ctkPathLineEdit, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def followPath(edit: Any, onPath: Callable[[str], None]) -> None:
    """Call ``onPath`` with the path in ``edit`` whenever it changes, also when it is cleared.

    ``currentPathChanged`` alone is silent about an empty line, which CTK does not call valid. The line begins
    empty: CTK fills in the path used last, by which results of one patient would go among those of another.
    It stays in the list of the line.
    """
    edit.currentPath = ""
    edit.connect("currentPathChanged(QString)", onPath)
    edit.connect("validInputChanged(bool)", lambda valid: None if valid else onPath(edit.currentPath))


def rememberPath(edit: Any) -> None:
    """Offer the path in ``edit`` in its list from now on."""
    wasBlocked = edit.blockSignals(True)  # CTK takes it out and puts it back, and would tell of either
    edit.addCurrentPathToHistory()
    edit.blockSignals(wasBlocked)
