"""Tables of the report: cohort, split, settings, weight transfer, environment, timings."""

from __future__ import annotations

from typing import Any

import numpy as np

from emim.report.markup import duration, moment, pairs, swatch, table, text
from emim.report.record import RunRecord, is_number


def structures(run: RunRecord) -> list[dict[str, Any]]:
    """The structures of a fine-tuning run that are described well enough to be shown."""
    found = run.config.get("structures")
    if not isinstance(found, list):
        return []
    return [
        s
        for s in found
        if isinstance(s, dict)
        and {"name", "output", "color"} <= set(s)
        and isinstance(s["color"], list)
        and len(s["color"]) == 3
        and all(is_number(c) and 0 <= c <= 255 for c in s["color"])
        and is_number(s["output"])
    ]


def structure_table(run: RunRecord) -> str:
    rows = [
        (
            swatch(s["color"]) + text(s["name"]),
            text(", ".join(str(v) for v in s.get("values", []))),
            text(s["output"]),
        )
        for s in structures(run)
    ]
    if not rows:
        return '<p class="empty">Not recorded.</p>'
    return table(("Structure", "Values in the training labels", "Value in the result"), rows)


def split_lists(run: RunRecord) -> str:
    parts = []
    titles = {
        "training": "Training",
        "validation": "Validation",
        "excluded": "Excluded",
        "unlabelled": "Left out for want of a label or class",
    }
    for key, title in titles.items():
        ids = ids_of(run, key)
        if ids or key in ("training", "validation"):
            names = ", ".join(f"<code>{text(i)}</code>" for i in ids) or "–"
            parts.append(f"<p><b>{title}</b> ({len(ids)}): {names}</p>")
    return "".join(parts)


def ids_of(run: RunRecord, part: str) -> list[str]:
    ids = run.split.get(part)
    return [str(i) for i in ids] if isinstance(ids, list) else []


def settings(run: RunRecord) -> str:
    """One table per group of settings, and one for those without a group."""
    if not run.config:
        return '<p class="empty">Not recorded yet.</p>'
    groups: dict[str, list[tuple[str, str]]] = {"general": []}
    for name, value in run.config.items():
        if name == "structures":
            continue
        if isinstance(value, dict):
            groups[name] = [(str(k), _setting(v)) for k, v in value.items()]
        else:
            groups["general"].append((str(name), _setting(value)))
    blocks = (f"<section><h3>{text(n)}</h3>{pairs(rows)}</section>" for n, rows in groups.items() if rows)
    return f'<div class="groups">{"".join(blocks)}</div>'


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return text(f"{value:.6g}")
    if isinstance(value, list):
        return ", ".join(_setting(v) for v in value) or "none"
    return text(value)


def transfer_report(run: RunRecord) -> str:
    """What became of every weight of the pre-trained network."""
    source = run.transfer.get("source")
    if not run.config.get("init"):
        return "<p>Training started from random weights; nothing was taken from pre-training.</p>"
    if not source:
        return '<p class="empty">Not recorded yet.</p>'
    rows: list[tuple[str, str, str]] = []
    counts = []
    for key, title, why in (
        ("left_out", "left out", ""),
        ("adapted", "adapted", ""),
        ("new", "new", "not in the pre-trained network; starts from random values"),
        ("loaded", "loaded", "taken over unchanged"),
    ):
        entries = run.transfer.get(key)
        entries = entries if isinstance(entries, list) else []
        counts.append(f"{len(entries)} {title}")
        for entry in entries:
            name, reason = (*entry, "", "")[:2] if isinstance(entry, list) else (entry, "")
            rows.append((f"<code>{text(name)}</code>", title, text(reason or why)))
    return (
        f"<p>Source: <code>{text(source)}</code>. Weights (tensors): {', '.join(reversed(counts))}.</p>"
        + table(("Weight", "What happened", "How or why"), rows)
    )


def environment(run: RunRecord) -> str:
    if not run.environment:
        return '<p class="empty">Not recorded yet.</p>'
    rows = pairs((k, _setting(v)) for k, v in run.environment.items())
    return f'<div class="groups"><section>{rows}</section></div>'


def timings(run: RunRecord) -> str:
    if run.times is None:
        return '<p class="empty">Nothing has been recorded yet.</p>'
    first, last = run.times
    rows = [
        ("Started", text(moment(first))),
        ("Last sign of life", text(moment(last))),
        ("Between them", duration(last - first)),
    ]
    if rate := speed(run):
        rows.append(("Speed (median)", rate))
    if run.repeated:
        rows.append(("Interrupted", "yes: steps after the last checkpoint were trained again"))
    phases = [
        (text(moment(s["time"])), duration(s["time"] - first), text(s.get("text", "")))
        for s in run.statuses
        if is_number(s.get("time"))
    ]
    log = table(("Time", "After", "What was done"), phases) if phases else ""
    return f'<div class="groups"><section>{pairs(rows)}</section></div>{log}'


def speed(run: RunRecord) -> str | None:
    """Median speed of training: breaks and validations do not count."""
    if len(run.step_times) < 2:
        return None
    times, steps = np.array(run.step_times, float).T
    going = (np.diff(steps) > 0) & (np.diff(times) > 0)
    if not going.any():
        return None
    rate = np.median(np.diff(steps)[going] / np.diff(times)[going])
    return f"{rate:.3g} steps/s" if rate >= 1 else f"{1 / rate:.3g} s/step"


def messages(run: RunRecord) -> str:
    """Warnings, and the error that stopped the run."""
    parts = []
    last = run.errors[-1:] if run.state == "stopped" else []
    for kind, event in [*(("error", e) for e in last), *(("warning", w) for w in run.warnings)]:
        lines = [text(event.get("what", ""))]
        lines += [f"<code>{text(event['where'])}</code>"] if event.get("where") else []
        lines += [text(event["hint"])] if event.get("hint") else []
        parts.append(f'<div class="message {kind}">{"<br>".join(lines)}</div>')
    return "".join(parts)
