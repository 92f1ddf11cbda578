"""Words in colour, readable on light and dark backgrounds and with any kind of colour vision."""

from __future__ import annotations

import html
from collections.abc import Iterable

# After Okabe and Ito; each is used together with a symbol or a word of its own.
GREEN = "#009e73"
AMBER = "#d08000"
RED = "#d55e00"
GREY = "#8a8a8a"
LIGHTS = {"green": GREEN, "amber": AMBER, "red": RED, "grey": GREY}


def colored(text: str, color: str) -> str:
    """Plain ``text`` as rich text in ``color``."""
    return f'<span style="color:{color}">{html.escape(text)}</span>'


def bold(text: str) -> str:
    return f"<b>{html.escape(text)}</b>"


def lines(texts: Iterable[str]) -> str:
    """Rich texts below each other, without the empty ones."""
    return "<br>".join(text for text in texts if text)


def plain(text: str) -> str:
    """Plain ``text`` with its line breaks, as rich text."""
    return html.escape(text).replace("\n", "<br>")
