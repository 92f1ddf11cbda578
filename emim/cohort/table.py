"""The table cases × modalities: as text for a terminal, as cohort.json and cohort.csv for later use."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from emim.cohort.datalist import BETWEEN_DUPLICATES
from emim.cohort.scan import CaseRow, Scan
from emim.cohort.volume import VolumeFacts
from emim.errors import EmimError
from emim.replace import replace_file

_SHOWN = 4  # examples in a list of many
_LEGEND = {" +": "+n: other images of the case have n further ones", "*": "*: oblique"}


def text_table(scan: Scan) -> str:
    """The table, then what was left out, noted and ignored, then one line that sums it all up.

    A cell of a modality holds its intensity range; "-" is missing, "2x" two files for one modality.
    What is the same for all cases stands above the table, so that lines stay short.
    """
    columns: dict[str, list[str]] = {"case": [r.id for r in scan.rows]}
    for modality in scan.modalities:
        columns[modality] = [_cell(r, modality) for r in scan.rows]
    if any(r.label or "label" in r.duplicates for r in scan.rows):
        columns["label"] = [_label_cell(r) for r in scan.rows]
    shared = []
    for name, describe in (("grid", _grid), ("spacing mm", _spacing), ("axes", _orientation)):
        cells = [_over_images(r, scan.modalities, describe) for r in scan.rows]
        if len(set(cells)) == 1 and len(cells) > 1:
            shared.append(f"{name} {cells[0]}")
        else:
            columns[name] = cells
    columns[""] = ["" if r.usable else "LEFT OUT" for r in scan.rows]
    parts = [f"All cases: {', '.join(shared)}"] if shared else []
    table = _aligned(columns)
    legend = [text for sign, text in _LEGEND.items() if sign in table + "".join(shared)]
    parts += [table + ("\n\n" + "; ".join(legend) if legend else "")]
    left_out = [f"  {r.id}: {p}" for r in scan.rows for p in r.problems]
    if left_out:
        parts += ["Left out, because of:\n" + "\n".join(left_out)]
    notes = _gathered((n, r.id) for r in scan.rows if r.usable for n in r.notes)
    if notes:
        parts += ["Notes:\n" + "\n".join(notes)]
    ignored = _gathered((why, _relative(p, scan.source)) for p, why in scan.ignored)
    if ignored:
        parts += ["Ignored files:\n" + "\n".join(ignored)]
    return "\n\n".join([*parts, summary(scan)])


def json_rows(scan: Scan) -> list[dict[str, Any]]:
    """The table for a program: of each case ``id``, ``subject``, ``usable``, ``images`` (modality to
    path), ``label``, ``label_values``, ``problems``, ``notes``, and ``file_problems``: what is wrong with
    single files, by modality or "label"."""
    return [
        {k: v for k, v in r.to_dict().items() if k != "files"} | {"file_problems": _file_problems(r)}
        for r in scan.rows
    ]


def summary(scan: Scan) -> str:
    """One line: how many cases were found, can be used, are labelled, and lack modalities."""
    usable, all_of_them = scan.cohort.cases, len(scan.rows)
    subjects = len({c.subject for c in usable})
    lacking = sum(1 for c in usable if len(c.images) < len(scan.modalities))
    parts = [f"{_count(all_of_them, 'case')}: {len(usable)} usable ({_count(subjects, 'subject')})"]
    parts += [f"{all_of_them - len(usable)} left out"] if len(usable) < all_of_them else []
    labelled = f"{len(scan.cohort.labelled())} labelled"
    names = {s.value: f" {s.name}" for s in scan.segments}
    values = ", ".join(f"{v}{names.get(v, '')}" for v in scan.label_values)
    parts += [labelled + (f" (values {values})" if values else "")]
    parts += [f"{lacking} with a missing modality" if lacking else "no modality missing"]
    return ", ".join(parts) + f". Modalities: {', '.join(scan.modalities)}."


def write_table(scan: Scan, folder: str | Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Write ``cohort.json`` (complete; a datalist for later commands) and ``cohort.csv`` into ``folder``.

    Raises:
        EmimError: when they exist and ``overwrite`` is false, or one is what was scanned.
    """
    folder = Path(folder)
    for file in (folder / "cohort.json", folder / "cohort.csv"):
        if file.resolve() == Path(scan.source).resolve():
            raise EmimError("The table would replace the datalist it was made from.", file, "Choose another.")
        if file.exists() and not overwrite:
            raise EmimError("The table exists already.", file, "Choose another folder, or give --overwrite.")
    folder.mkdir(parents=True, exist_ok=True)
    as_json = json.dumps(scan.to_dict(), indent=1, ensure_ascii=False)
    return _write(folder / "cohort.json", as_json), _write(folder / "cohort.csv", _as_csv(scan))


def _as_csv(scan: Scan) -> str:
    out = io.StringIO()
    described = {"grid": _grid, "spacing": _spacing, "orientation": _orientation, "range": _range}
    header = ["id", "subject", "usable", *scan.modalities, "label", "label_values", "problems", "notes"]
    header += [f"{m}.{name}" for m in scan.modalities for name in described]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for r in scan.rows:
        cells = [r.id, r.subject, "yes" if r.usable else "no"]
        cells += [
            BETWEEN_DUPLICATES.join(r.duplicates.get(m, [r.images.get(m, "")])) for m in scan.modalities
        ]
        cells += [BETWEEN_DUPLICATES.join(r.duplicates.get("label", [r.label or ""]))]
        cells += [" ".join(map(str, r.label_values or ())), "; ".join(r.problems), "; ".join(r.notes)]
        cells += [d(f) if (f := r.facts(m)) else "" for m in scan.modalities for d in described.values()]
        writer.writerow(cells)
    return out.getvalue()


def _write(file: Path, text: str) -> Path:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    replace_file(part, file)
    return file


def _file_problems(row: CaseRow) -> dict[str, list[str]]:
    single = {**row.images, **({"label": row.label} if row.label else {})}
    problems = {what: list(row.files[path].problems) for what, path in single.items()}
    for what, paths in row.duplicates.items():
        problems[what] = [f"{len(paths)} files: {', '.join(Path(p).name for p in paths)}"]
    if row.label_problem:
        problems["label"] = [row.label_problem]
    return {what: texts for what, texts in problems.items() if texts}


def _cell(row: CaseRow, modality: str) -> str:
    if modality in row.duplicates:
        return f"{len(row.duplicates[modality])}x"
    facts = row.facts(modality)
    return "-" if facts is None else _range(facts) + ("!" if facts.problems else "")


def _label_cell(row: CaseRow) -> str:
    if "label" in row.duplicates:
        return f"{len(row.duplicates['label'])}x"
    if row.label is None:
        return "-"
    if row.label_values is None:
        return "!"
    shown = [str(v) for v in row.label_values[:5]] + (["…"] if len(row.label_values) > 5 else [])
    return " ".join(shown) or "empty"


def _over_images(row: CaseRow, modalities: tuple[str, ...], describe) -> str:
    """What ``describe`` says of the first image, and how many others there are beside it."""
    texts = [describe(f) for m in modalities if (f := row.facts(m)) and f.size]
    different = len(set(texts))
    return (texts[0] if texts else "?") + (f" +{different - 1}" if different > 1 else "")


def _grid(facts: VolumeFacts) -> str:
    return "x".join(map(str, facts.size)) if facts.size else ""


def _spacing(facts: VolumeFacts) -> str:
    if not facts.spacing:
        return ""
    texts = [f"{s:.3g}" for s in facts.spacing]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _orientation(facts: VolumeFacts) -> str:
    if not facts.orientation:
        return ""
    oblique = max(abs(d) for d in facts.direction[:3]) < 0.996 or abs(facts.direction[8]) < 0.996  # 5 degrees
    return facts.orientation + ("*" if oblique else "")


def _range(facts: VolumeFacts) -> str:
    return "..".join(f"{v:.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in facts.range or ())


def _aligned(columns: dict[str, list[str]]) -> str:
    lines = []
    widths = [max(len(name), *(len(c) for c in cells)) for name, cells in columns.items()]
    for line in [list(columns), *zip(*columns.values(), strict=True)]:
        lines.append("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _gathered(pairs) -> list[str]:
    """One line for each thing said, with how many and some examples of what it is said about."""
    about = defaultdict(list)
    for said, what in pairs:
        about[said].append(what)
    lines = []
    for said, what in about.items():
        more = f" and {len(what) - _SHOWN} more" if len(what) > _SHOWN else ""
        lines.append(f"  {said}: {', '.join(what[:_SHOWN])}{more}")
    return lines


def _relative(path: str, source: str) -> str:
    inside = os.path.isdir(source) and Path(path).is_relative_to(source)
    return os.path.relpath(path, source) if inside else path


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
