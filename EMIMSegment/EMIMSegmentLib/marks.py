"""Words in colour, readable on light and dark backgrounds."""

from __future__ import annotations

import html

GOOD = "#2e9e5b"
CHECK = "#d08000"
BAD = "#d9483b"
QUIET = "#8a8a8a"


def marked(text: str, color: str, symbol: str = "") -> str:
    """``text`` (plain) as rich text in ``color``, after a ``symbol``."""
    return f'<span style="color:{color}">{symbol}{" " if symbol else ""}{html.escape(text)}</span>'


def paragraph(*parts: str) -> str:
    """Rich texts below each other, without the empty ones."""
    return "<br>".join(part for part in parts if part)
