"""Following what the user types into a ctkPathLineEdit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def followPath(edit: Any, onPath: Callable[[str], None]) -> None:
    """Call ``onPath`` with the path in ``edit`` whenever it changes, also when it is cleared.

    ``currentPathChanged`` alone is silent about an empty line, which CTK does not call valid.
    """
    edit.connect("currentPathChanged(QString)", onPath)
    edit.connect("validInputChanged(bool)", lambda valid: None if valid else onPath(edit.currentPath))
