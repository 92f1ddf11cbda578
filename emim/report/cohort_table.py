"""The cohort as a table of cases × modalities: what each file holds, what is missing, what is wrong."""

from __future__ import annotations

from typing import Any

from emim.report.markup import text
from emim.report.record import RunRecord, is_number


def cohort_table(run: RunRecord) -> str:
    """HTML of the table, of a line that sums it up, and of the files that were ignored."""
    cases = [c for c in _list(run.cohort, "cases") if isinstance(c, dict)]
    if not cases:
        return '<p class="empty">Not recorded yet.</p>'
    modalities = [str(m) for m in _list(run.cohort, "modalities")]
    parts = ("training", "validation", "excluded", "unlabelled")
    roles = {str(i): role for role in parts for i in _list(run.split, role)}
    labelled = any(c.get("label") for c in cases)
    head = ["Case", "Used for", *modalities, *(["Label"] if labelled else []), "Problems and notes"]
    top = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join(_row(c, modalities, labelled, roles) for c in cases)
    return (
        f'<p class="note">{_summary(cases, modalities)}</p>'
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        + _ignored(run)
    )


def _row(case: dict[str, Any], modalities: list[str], labelled: bool, roles: dict[str, str]) -> str:
    usable = _usable(case)
    name = str(case.get("id", "?"))
    subject = case.get("subject")
    sub = f'<span class="sub">{text(subject)}</span>' if subject and subject != name else ""
    role = roles.get(name, "–") if usable else "left out"
    kind = {"validation": "validation", "left out": "left"}.get(role, "")
    cells = [
        f'<td class="id">{text(name)}{sub}</td>',
        f'<td><span class="tag {kind}">{role}</span></td>' if role != "–" else "<td>–</td>",
        *(_image_cell(case, m) for m in modalities),
        *([_label_cell(case)] if labelled else []),
    ]
    problems, notes = _list(case, "problems"), _list(case, "notes")
    said = "<br>".join(text(p) for p in problems) + "".join(
        f'<span class="sub">{text(n)}</span>' for n in notes
    )
    cells.append(f'<td class="said {"problem" if problems else ""}">{said}</td>')
    return f'<tr class="{"" if usable else "out"}">{"".join(cells)}</tr>'


def _image_cell(case: dict[str, Any], modality: str) -> str:
    several = _dict(case, "duplicates").get(modality)
    if isinstance(several, list):
        return f'<td class="problem">{len(several)} files</td>'
    path = _dict(case, "images").get(modality)
    if path is None:
        return '<td class="missing">missing</td>'
    return _file_cell(_dict(_dict(case, "files"), path), case, modality)


def _label_cell(case: dict[str, Any]) -> str:
    if isinstance(several := _dict(case, "duplicates").get("label"), list):
        return f'<td class="problem">{len(several)} files</td>'
    if not case.get("label"):
        return '<td class="missing">none</td>'
    facts = _dict(_dict(case, "files"), case["label"])
    if _list(facts, "problems"):
        return _file_cell(facts, case, "the label")
    values = ", ".join(text(v) for v in _list(case, "label_values")) or "empty"
    return f'<td class="yes">{values}</td>'


def _file_cell(facts: dict[str, Any], case: dict[str, Any], what: str) -> str:
    """Grid, spacing, orientation and intensities of one file, or what is wrong with it."""
    wrong = [str(p) for p in _list(facts, "problems")]
    wrong = wrong or [str(p) for p in _list(case, "problems") if str(p).startswith((f"{what} ", f"{what}:"))]
    if wrong:
        return f'<td class="problem">{"<br>".join(text(w) for w in wrong)}</td>'
    size = "×".join(str(s) for s in _list(facts, "size")) or "present"
    spacing = [f"{s:.3g}" for s in _list(facts, "spacing") if is_number(s)]
    details = ["×".join(spacing[:1] if len(set(spacing)) == 1 else spacing) + " mm"] if spacing else []
    details += [str(facts["orientation"])] if facts.get("orientation") else []
    limits = _list(facts, "range")
    details += ["{:.5g}…{:.5g}".format(*limits)] if len(limits) == 2 and all(map(is_number, limits)) else []
    return f'<td class="yes">{text(size)}<span class="sub">{text(" · ".join(details))}</span></td>'


def _summary(cases: list[dict[str, Any]], modalities: list[str]) -> str:
    usable = [c for c in cases if _usable(c)]
    lacking = sum(any(m not in _dict(c, "images") for m in modalities) for c in usable)
    subjects = len({str(c.get("subject", c.get("id"))) for c in usable})
    return (
        f"{len(cases)} cases found: {len(usable)} usable ({subjects} subjects), "
        f"{len(cases) - len(usable)} left out, "
        f"{lacking} of the usable ones with a missing modality. "
        "A cell gives the grid in voxels, the voxel spacing, the orientation and the range of intensities; "
        "red marks what leaves a case out."
    )


def _ignored(run: RunRecord) -> str:
    files = [f for f in _list(run.cohort, "ignored") if isinstance(f, dict)]
    if not files:
        return ""
    lines = "".join(
        f"<tr><td>{text(f.get('path', ''))}</td><td>{text(f.get('why', ''))}</td></tr>" for f in files
    )
    return (
        f'<p class="note">Ignored files ({len(files)}):</p><div class="scroll"><table><tbody>{lines}'
        "</tbody></table></div>"
    )


def _usable(case: dict[str, Any]) -> bool:
    return bool(case.get("usable", not case.get("problems")))


def _dict(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []
