"""Seconds in words."""

from __future__ import annotations

from slicer.i18n import tr as _


def durationText(seconds: float | None) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 days 4 h``: as exact as a person wants to know."""
    if seconds is None:
        return _("an unknown time")
    if seconds < 60:
        return _("{n} s").format(n=max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{n} min").format(n=minutes)
    if minutes < 10 * 60:
        return _("{h} h {m} min").format(h=minutes // 60, m=minutes % 60)
    hours = round(minutes / 60)
    if hours < 48:
        return _("{n} h").format(n=hours)
    return _("{d} days {h} h").format(d=hours // 24, h=hours % 24)
