"""Small pieces of HTML. Whatever comes from outside passes through :func:`text`."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from emim.report.record import is_number


def text(value: Any) -> str:
    """``value`` as text that HTML shows as it is."""
    return html.escape(str(value), quote=True)


def number(value: Any, digits: int = 3) -> str:
    """A number for people: thousands apart, ``digits`` after the point; a dash for none."""
    if not is_number(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if value and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    seconds = max(0, round(seconds))
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def moment(time: float) -> str:
    """A Unix time in the local time zone."""
    try:
        return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (OSError, OverflowError, ValueError):
        return "unknown"


def image(data: bytes | str, alt: str, style: str = "") -> str:
    """A PNG (bytes) or an SVG (text) inside the page itself."""
    kind, raw = ("svg+xml", data.encode()) if isinstance(data, str) else ("png", data)
    code = base64.b64encode(raw).decode("ascii")
    style = f' style="{style}"' if style else ""
    return f'<img src="data:image/{kind};base64,{code}" alt="{text(alt)}"{style}>'


def figure(title: str, picture: bytes | str | None, caption: str, alt: str, extra: str = "") -> str:
    """A titled picture with a caption (HTML); without a picture, a line that says so."""
    if picture is None:
        return f'<figure><h3>{text(title)}</h3><p class="empty">No values yet.</p></figure>'
    shown = f"{image(picture, alt)}<figcaption>{caption}</figcaption>{extra}"
    return f"<figure><h3>{text(title)}</h3>{shown}</figure>"


def section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{text(title)}</h2>{body}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of ready HTML cells; the box around it scrolls when it is long."""
    top = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and ready HTML values, without a head."""
    return (
        "<table><tbody>"
        + "".join(f"<tr><td>{text(k)}</td><td>{v}</td></tr>" for k, v in rows)
        + ("</tbody></table>")
    )


def bullets(items: Iterable[Any]) -> str:
    return "<ul>" + "".join(f"<li>{text(i)}</li>" for i in items) + "</ul>"


def swatch(color: Sequence[int]) -> str:
    """A small square of a colour given as red, green, blue from 0 to 255."""
    r, g, b = color
    return f'<span class="swatch" style="background:rgb({int(r)},{int(g)},{int(b)})"></span>'
