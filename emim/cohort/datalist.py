"""Read an explicit list of cases: JSON, CSV, or the ``cohort.json`` of an earlier scan.

JSON is a list of cases, or an object with such a list under ``cases``::

    [{"id": "p1", "subject": "p1", "images": {"T1": "p1/t1.nii", "T2": "p1/t2.nii"}, "label": "p1/seg.nii"}]

or the form of the Medical Segmentation Decathlon and MONAI, whose modalities have an order::

    {"modality": {"0": "T1", "1": "T2"}, "training": [{"image": ["p1_t1.nii", "p1_t2.nii"], "label": …}]}

CSV has the columns ``id``, ``subject``, ``label`` and one per modality, an empty cell for what is missing.
``subject`` may be left out (each case its own subject), ``label`` too. Paths are relative to the list.

Beside ``cases`` may stand ``modalities``, their order, and ``patterns``, modality to patterns of names,
which models trained on the cohort recognise them by, and ``segments``, a list of ``{"name", "value"}``: the
label values that segments of these names are to have, whatever values a ``.seg.nrrd`` gives them.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from emim.cohort.found import Found, FoundCase
from emim.cohort.patterns import (
    canonical,
    canonical_patterns,
    check_patterns,
    find_modality,
    name_kind,
    strip_extension,
)
from emim.cohort.volume import VolumeFacts
from emim.errors import EmimError
from emim.volumes.segments import read_coding

# Columns of the table that `emim scan` writes and that say nothing about which files to use.
TABLE_COLUMNS = ("usable", "problems", "notes", "label_values")
TABLE_SUFFIXES = (".grid", ".spacing", ".orientation", ".range")
BETWEEN_DUPLICATES = " | "


def read_datalist(file: Path, modalities: tuple[str, ...] | None = None) -> Found:
    """The cases that ``file`` lists.

    Args:
        modalities: names of the images in the Decathlon form, where the file does not give them.

    Raises:
        EmimError: when the file is not such a list, naming the entry.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EmimError(
            f"The datalist cannot be read: {error}.", file, "It must be a text file in UTF-8."
        ) from error
    found = _from_csv(text, file) if file.suffix.lower() == ".csv" else _from_json(text, file, modalities)
    if not found.cases:
        raise EmimError("The datalist has no case.", file)
    twice = [i for i, n in Counter(c.id for c in found.cases).items() if n > 1]
    folded = Counter(c.id.casefold() for c in found.cases)
    twice = twice or [c.id for c in found.cases if folded[c.id.casefold()] > 1]  # one file on many disks
    if twice:
        raise EmimError(
            f"The id {twice[0]!r} occurs more than once.", file, "Give every case an id of its own."
        )
    for case in found.cases:
        if (
            not case.id
            or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in case.id)
            or case.id.strip(". ") != case.id
        ):
            raise EmimError(
                f"The id {case.id!r} cannot name an output file.",
                file,
                "Use letters, digits, '-', '_' and '.'.",
            )
    return found


def _from_json(text: str, file: Path, modalities: tuple[str, ...] | None) -> Found:
    try:
        return _from_data(json.loads(text), file, modalities)
    except json.JSONDecodeError as error:
        raise EmimError(f"The datalist is not valid JSON: {error}.", file) from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise EmimError(
            f"The datalist holds something unexpected ({type(error).__name__}: {error}).",
            file,
            'It must hold [{"id": …, "images": {"T1": "path", …}, "label": "path"}, …].',
        ) from error


def _from_data(data: Any, file: Path, modalities: tuple[str, ...] | None) -> Found:
    if isinstance(data, dict) and "training" in data:
        return _from_decathlon(data, file, modalities)
    entries = data.get("cases") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise EmimError(
            "The JSON file is not a list of cases.",
            file,
            'It must hold [{"id": …, "images": {"T1": "path", …}, "label": "path"}, …].',
        )
    found = Found()
    for n, entry in enumerate(entries, start=1):
        where = f"{file}, case {n}"
        if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("images"), dict):
            raise EmimError('A case needs "id" and "images": {modality: path}.', where)
        images = {m: [p] for m, p in entry["images"].items() if p not in (None, "")}
        images |= entry.get("duplicates", {})  # a cohort.json says what could not be decided
        labels = [entry["label"]] if entry.get("label") else []
        labels += images.pop("label", []) if "duplicates" in entry else []
        found.cases.append(_case(entry["id"], entry.get("subject"), images, labels, file, where))
        found.cases[-1].drawn = entry.get("drawn") is True
        for path, facts in entry.get("files", {}).items():
            found.known[_absolute(path, file, where)] = VolumeFacts.from_dict(facts)
    if isinstance(data, dict):
        found.modalities = tuple(dict.fromkeys(map(canonical, data.get("modalities") or ()))) or None
        check_patterns(data.get("patterns"))
        found.patterns = canonical_patterns(data.get("patterns"))
        found.ignored = [(i["path"], i["why"]) for i in data.get("ignored", [])]
        found.segments = read_coding(data.get("segments") or (), file)
    return found


def _from_decathlon(data: dict[str, Any], file: Path, modalities: tuple[str, ...] | None) -> Found:
    names = data.get("modality") or data.get("modalities")
    if isinstance(names, dict):
        names = [names[k] for k in sorted(names, key=int)]
    names = [canonical(str(n)) for n in (names or modalities or ())]
    found = Found(modalities=tuple(names) or None)
    used: Counter[str] = Counter()
    for n, entry in enumerate(data["training"], start=1):
        where = f"{file}, training case {n}"
        paths = entry.get("image") if isinstance(entry, dict) else entry
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
            raise EmimError('A training case needs "image": a path or a list of paths.', where)
        matches = [find_modality(Path(p).name) for p in paths]
        own = names or [m.modality if m else "" for m in matches]
        if len(paths) > len(own) or not all(own) or len(set(own[: len(paths)])) < len(paths):
            raise EmimError(
                f"It is not clear which modalities the {len(paths)} images are.",
                where,
                'Give "modality": {"0": "T1", …} in the file, or name the modalities in order.',
            )
        rest = matches[0].rest.strip(" -_.") if matches[0] else strip_extension(Path(paths[0]).name)
        name = str(entry.get("id") or rest or Path(paths[0]).parent.name) if isinstance(entry, dict) else rest
        used[name] += 1
        name = name if used[name] == 1 else f"{name}_{used[name]}"
        label = entry.get("label") if isinstance(entry, dict) else None
        images = {m: [p] for m, p in zip(own, paths, strict=False)}
        subject = entry.get("subject") if isinstance(entry, dict) else None
        found.cases.append(_case(name, subject, images, [label] if label else [], file, where))
    for part in ("validation", "test"):
        if data.get(part):
            found.ignored.append((f"{file}: {part}", "only the list named training is used"))
    return found


def _from_csv(text: str, file: Path) -> Found:
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = [c.strip() for c in reader.fieldnames or ()]
    columns = [c.lower() if c.lower() in ("id", "subject", "label") else c for c in columns]
    reader.fieldnames = columns
    images = [
        c
        for c in columns
        if c and c not in ("id", "subject", "label", *TABLE_COLUMNS) and not c.endswith(TABLE_SUFFIXES)
    ]
    if "id" not in columns or not images:
        raise EmimError(
            "The CSV file needs a column id and one column per modality.",
            file,
            f"Its first line has: {', '.join(columns) or 'nothing'}. Any other column is read as a modality.",
        )
    if len(set(columns)) < len(columns):
        raise EmimError("Two columns of the CSV file have the same name.", file)
    found = Found(modalities=tuple(canonical(c) for c in images))
    for row in reader:
        where = f"{file}, line {reader.line_num}"
        if None in row:
            raise EmimError(f"The line has more than {len(columns)} cells.", where)
        cells = {c: (v or "").strip() for c, v in row.items()}
        if not any(cells.values()):
            continue
        paths = {c: cells[c].split(BETWEEN_DUPLICATES) for c in images if cells[c]}
        labels = cells["label"].split(BETWEEN_DUPLICATES) if cells.get("label") else []
        found.cases.append(_case(cells["id"], cells.get("subject"), paths, labels, file, where))
    return found


def _case(
    name: Any, subject: Any, images: dict[str, list[str]], labels: list[str], file: Path, where: str
) -> FoundCase:
    case = FoundCase(str(name), str(subject or name))
    for modality, paths in images.items():
        if name_kind(modality) == "label":
            raise EmimError(
                f"{modality!r} is the name of labels, not of a modality.", where, 'Call it "label".'
            )
        usual = canonical(modality)
        if usual in case.images:
            raise EmimError(f"{modality!r} is another name of {usual!r}, which the case has already.", where)
        case.images[usual] = [_absolute(p, file, where) for p in paths]
    case.labels = [_absolute(p, file, where) for p in labels]
    return case


def _absolute(path: Any, file: Path, where: str) -> str:
    if not isinstance(path, str):
        raise EmimError(f"A path must be a text, not {path!r}.", where)
    return str((file.parent / Path(path).expanduser()).absolute())
