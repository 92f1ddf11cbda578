"""Find the cases in a folder: folders of subjects, nested folders of sessions, or one flat folder."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from emim.cohort.dicom import is_dicom_name
from emim.cohort.found import Found, FoundCase
from emim.cohort.patterns import (
    EXTENSIONS,
    Patterns,
    find_modality,
    fits,
    label_rest,
    name_kind,
    strip_extension,
)
from emim.cohort.vocabulary import BRAIN_LABEL

DONE_LOG = ".segmented-*.jsonl"  # lies beside results of EMIM, see emim.inference.done_cases
MADE = "segmented by EMIM: to learn from it, put it among the labels of another folder"
_NUMBER = r"[-_ ]?\d+[a-z]?"
_DATE = r"(?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d(?:[-_T]?\d{4,6})?"
_SESSION = (
    rf"(?:ses-[a-z0-9]+|(?:ses|sess|session|visit|study|scan|exam|tp|timepoint|time|day|week|month|year|fu"
    rf"|follow[-_ ]?up){_NUMBER}|baseline|follow[-_ ]?up|{_DATE})"
)
_SESSION_FOLDER = re.compile(rf"{_SESSION}|pre[-_ ]?op|post[-_ ]?op|mri?[-_ ]?\d+", re.I)
_SUBJECT_FOLDER = re.compile(r"sub(?:ject)?[-_ ]?\d|sub-|pat(?:ient)?[-_ ]?\d|case[-_ ]?\d|BraTS", re.I)
_SESSION_IN_NAME = re.compile(rf"(?<![^\W_]){_SESSION}(?![^\W_])", re.I)
# Folders that sort files by kind and say nothing about who was examined.
_SORTING_FOLDER = re.compile(
    r"anat|dwi|perf|func|swi|mri|mr|nii|nifti|nii\.gz|raw|rawdata|data|derivatives|(?:images|labels)(?:tr|ts|va)?"
    r"|imgs?|image|label|masks?|seg|segs|segmentations?|annotations?|gt|ground_?truth|volumes?|scans|dataset",
    re.I,
)
_LABEL_FOLDER = re.compile(
    r"labels?(?:tr|ts|va)?|seg|segs|segmentations?|annotations?|gt|ground_?truth", re.I
)
# Names of one person's examinations: OAS2_0001_MR2, 002_S_0295_m06, pat01_bl, pat01_v2.
_FOLLOW_UP = re.compile(r"(.*\d)[-_. ](?:v\d+|bl|m\d\d|mr\d)", re.I)
# Names that may be: UPENN-GBM-00001_21, knee012_L, P07b.
_PERHAPS_FOLLOW_UP = re.compile(r"(.*\d)(?:[-_. ][a-z0-9]{1,3}|[a-z])", re.I)
# Words before the modality that describe how it was acquired: "pat07_AX_T1", "sub-01_acq-high_T1w"; not
# the session "ses-post".
_QUALIFIER = re.compile(
    r"(?:^|(?<!ses)(?<!sub)[\W_]+)(?:ax|axial|sag|sagittal|cor|coronal|tra|trans|obl|[23]d|iso|fs|brain|skull|stripped|pre|post"
    r"|ce|gd|gad|contrast|native|raw|orig|(?:acq|ce|rec|run|desc|space|echo|part|dir)-[a-z0-9]+)$",
    re.I,
)
_BIDS = re.compile(r"(?<![^\W_])(sub-[a-z0-9]+)", re.I)
_BIDS_SESSION = re.compile(r"(?<![^\W_])(ses-[a-z0-9]+)", re.I)
# BraTS from 2023 on: subject and time point.
_BRATS = re.compile(r"(BraTS-[A-Z]+-\d+)-(\d{3})", re.I)

# Folders that sort people, so that what is in them is people and not examinations of one.
_GROUP_FOLDER = re.compile(
    r"(?:train|test|val)(?:ing|idation)?|hgg|lgg|controls?|healthy|normals?|patients?|subjects?|cases?"
    r"|(?:site|cent(?:er|re)|hospital|clinic|group|cohort|fold|batch)[-_ ]?\w*",
    re.I,
)
NOT_UTF8 = "its path is not in UTF-8: rename it"
FEW_SESSIONS = 5  # of a subject, where their names do not say what they are

# Data of a header in another file (MHD, NHDR).
_COMPANIONS = (".raw", ".zraw", ".raw.gz")


Folders = tuple[str, ...]
Key = tuple[Folders, str, str]  # folders of groups, subject, session


@dataclass
class _File:
    path: str
    modality: str | None  # None: a label
    folders: Folders  # without those that only sort
    rest: str  # the name beside the modality


def find_in_folder(folder: Path, patterns: Patterns | None = None, label: tuple[str, ...] = ()) -> Found:
    """The cases below ``folder``, told from the names of files and folders alone.

    Args:
        patterns: see :mod:`emim.cohort.patterns`.
        label: patterns of label files; empty: the built-in recognition.
    """
    paths = _walk(folder)
    made = _segmented(paths)
    files, ignored = [], []
    for path in paths:
        kind = MADE if path in made else _recognise(path, folder, patterns, label)
        if isinstance(kind, str):
            ignored.append((_printable(path), kind))
        else:
            files.append(kind)
    sessions, counted = _session_folders({f.folders for f in files})
    cases, without_case = _group(files, folder.name, sessions)
    found = Found(sorted(cases, key=lambda c: c.id), sorted(ignored + without_case))
    inside = Counter(session[:-1] for session in sessions)
    several = [parent for parent in counted if inside[parent] > 1]
    if several:
        found.assumed = f"The folders in {'/'.join(several[0])} are taken for examinations of one person"
        found.assumed += f" (so in {len(several)} folders)." if len(several) > 1 else "."
    elif alike := _alike({c.subject for c in cases}):
        found.assumed = f"{' and '.join(alike[0][:2])} are taken for different people"
        found.assumed += f" (so {len(alike)} times)."
    return found


def subjects_of(names: Iterable[str]) -> dict[str, str]:
    """Whom folders of these names, side by side and each with the images of a case, are taken to be of."""
    subjects = {name: _split_session(name)[0] or name for name in names}
    people = _people(set(subjects.values()))
    return {name: people.get(subject, subject) for name, subject in subjects.items()}


def is_utf8(path: Path) -> bool:
    """Whether ITK can open the file: where a name is not UTF-8, it ends the process."""
    return _printable(path) == str(path)


def _printable(path: Path) -> str:
    """The path, what is not UTF-8 in it written as numbers."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _walk(folder: Path) -> list[Path]:
    """All files, through linked folders as well (data sets are often links), each folder once."""
    files, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        files += [Path(root, n) for n in sorted(names)]
    return files


def _segmented(files: Iterable[Path]) -> set[Path]:
    """What EMIM has segmented, by the records of its batches: no labels to learn from."""
    made = set()
    for log in (f for f in files if fnmatch(f.name, DONE_LOG)):
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:  # not ours to read
            continue
        for line in lines:
            try:
                made.add(log.parent / Path(json.loads(line)["result"]["output"]).name)
            except (ValueError, LookupError, TypeError):  # cut off, begun or failed
                continue
    return made


def _recognise(path: Path, folder: Path, patterns: Patterns | None, label: tuple[str, ...]) -> _File | str:
    """The file as a part of a case, or why it is ignored."""
    name, folders = path.name, path.relative_to(folder).parts[:-1]
    at = "/".join(folders)
    if name.startswith("."):
        return "hidden file"
    if name.lower().endswith(_COMPANIONS):
        return "voxels of a header file"
    if not name.lower().endswith(EXTENSIONS):
        return "DICOM: convert it to NIfTI or NRRD first" if is_dicom_name(name) else "not an image"
    if not is_utf8(path):
        return NOT_UTF8
    of_label = [rest for text in label if (rest := fits(text, name, at)) is not None]
    if of_label:
        return _File(str(path), None, _case_folders(folders), of_label[0])
    if not label and folders and _LABEL_FOLDER.fullmatch(folders[-1]):
        return _File(str(path), None, _case_folders(folders), label_rest(name))
    found = find_modality(name, at, patterns)
    if found and "derivatives" in folders:
        return "in a derivatives folder: scan that folder itself to use it"
    if found:
        return _File(str(path), found.modality, _case_folders(folders, found.modality), found.rest)
    kind = name_kind(name)
    if kind == "label" and not label:
        return _File(str(path), None, _case_folders(folders), label_rest(name))
    if kind:
        return "a mask" if kind == "mask" else "a label that does not fit the label pattern given"
    for part in reversed(folders):  # T1/sub-01.nii.gz, sub-01/T1/image.nii.gz
        modality = _folder_modality(part, patterns)
        if modality:
            return _File(str(path), modality, _case_folders(folders, modality), strip_extension(name))
    return "no pattern fits its name"


def _folder_modality(part: str, patterns: Patterns | None) -> str | None:
    """The modality of a folder's name that says nothing else ("T1", "T2-FLAIR")."""
    found = find_modality(part, "", patterns)
    says_more = found and (_clean(found.rest) or re.search(r"(?<![^\W_])\d", part))
    return found.modality if found and not says_more else None


def _case_folders(folders: Folders, modality: str | None = None) -> Folders:
    return tuple(
        f
        for f in folders
        if not _SORTING_FOLDER.fullmatch(f) and not (modality and _folder_modality(f, None) == modality)
    )


def _clean(rest: str) -> str:
    """What is left of a name beside the modality, without words on how the image was acquired."""
    rest = rest.strip(" -_.+")
    while (shorter := _QUALIFIER.sub("", rest).strip(" -_.+")) != rest:
        rest = shorter
    return rest


def _group(
    files: list[_File], root: str, sessions: set[Folders]
) -> tuple[list[FoundCase], list[tuple[str, str]]]:
    by_folder: dict[Folders, list[_File]] = defaultdict(list)
    for f in files:
        by_folder[f.folders].append(f)
    cases: dict[Key, FoundCase] = {}
    labels: list[tuple[Key, _File]] = []
    for folders, inside in by_folder.items():
        many = not folders or _is_series_of_subjects(inside, folders[-1])
        for f in inside:
            key = _case_key(f, folders, many, sessions, root)
            if f.modality is None:
                labels.append((key, f))
            else:
                case = cases.setdefault(key, FoundCase("", ""))
                case.images.setdefault(f.modality, []).append(f.path)
    ignored = []
    with_images = list(cases)
    for key, f in labels:
        owners = _owners(key, with_images) or [key]
        if len(owners) == 1:
            cases.setdefault(owners[0], FoundCase("", "")).labels.append(f.path)
        else:
            ignored.append((f.path, f"a label that could belong to {len(owners)} cases"))
    for case in cases.values():
        ignored += _leave_brain_out(case)
    _name(cases)
    return list(cases.values()), ignored


def _leave_brain_out(case: FoundCase) -> list[tuple[str, str]]:
    """Of several labels take out those of the whole brain; return them, with the reason.

    "tumor_segmentation" beside "brain_segmentation" needs no question.
    """
    brain = [p for p in case.labels if BRAIN_LABEL.search(strip_extension(Path(p).name))]
    if not 0 < len(brain) < len(case.labels):
        return []
    case.labels = [p for p in case.labels if p not in brain]
    return [(p, "a segmentation of the whole brain, beside a label") for p in brain]


def _owners(label: Key, cases: Iterable[Key]) -> list[Key]:
    """The cases that a label file may belong to."""
    if label in cases:
        return [label]
    _, subject, session = label
    same = [k for k in cases if k[1] == subject and session in ("", k[2])]
    return [k for k in same if k[0] == label[0]] or same


def _session_folders(all_folders: set[Folders]) -> tuple[set[Folders], list[Folders]]:
    """The folders that are sessions of the subject above them, not subjects in a folder of a group.

    Either their names say so, or the numbers: groups are few with many subjects each, subjects are
    many with few sessions each. Where neither is sure, sessions are the safer guess: one person in training
    and test spoils a result, two persons taken for one do not.

    Returns:
        These folders, and the parents of those that only the numbers speak for.
    """
    nested = {f[:n] for f in all_folders for n in range(2, len(f) + 1)}
    named = {p[:-1] for p in nested if _SESSION_FOLDER.fullmatch(p[-1])}
    counted: set[Folders] = set()
    for depth in {len(p) for p in nested}:
        level = [p for p in nested if len(p) == depth and not _SUBJECT_FOLDER.match(p[-1])]
        parents = {p[:-1] for p in level}
        if len(parents) < 2 or len(level) > len(parents) ** 2:
            continue
        recur = 2 * len({p[-1] for p in level}) <= len(level)  # "before" and "after" of each
        groups = all(_GROUP_FOLDER.fullmatch(p[-1]) for p in parents)
        if not groups and (recur or len(level) <= FEW_SESSIONS * len(parents)):
            counted |= parents
    sessions = named | counted
    return {p for p in nested if p[:-1] in sessions}, sorted(counted - named)


def _is_series_of_subjects(files: list[_File], folder: str) -> bool:
    """Whether a folder holds the files of several subjects side by side: pat01_t1, pat02_t1, …"""
    images = [f for f in files if f.modality]
    subjects = {m.group(1) for f in images if (m := _BIDS.search(f.rest))}
    if len(subjects) > 1:
        return True
    groups: dict[str, list[str]] = defaultdict(list)
    for f in images:
        groups[_clean(f.rest)].append(f.modality)
    if len(groups) < 2 or any(
        not g[:1].isalpha() or g.startswith(folder) or _SESSION_IN_NAME.fullmatch(g) for g in groups
    ):
        return False
    one_form = len({re.sub(r"\d+", "#", g) for g in groups}) == 1
    return (
        one_form
        and all(len(set(m)) == len(m) for m in groups.values())
        and bool(set.intersection(*(set(m) for m in groups.values())))
    )


def _case_key(f: _File, folders: Folders, many: bool, sessions: set[Folders], root: str) -> Key:
    rest = _clean(f.rest)
    if bids := _BIDS.search(rest):
        session = _BIDS_SESSION.search(rest)
        in_folder = [p for p in folders if _BIDS_SESSION.fullmatch(p)]
        groups = tuple(p for p in folders if p != bids.group(1) and p not in in_folder)
        return groups, bids.group(1), session.group(1) if session else "_".join(in_folder)
    if many:
        subject, session = _split_session(rest)
        return folders, subject or root, session
    depth = len(folders)
    while depth > 1 and folders[:depth] in sessions:
        depth -= 1
    name, parts = folders[depth - 1], list(folders[depth:])
    subject, session = _split_session(name)
    if not subject:
        subject, session = name, ""
    parts = [session, *parts] if session else parts
    own = rest[len(name) :].strip(" -_.") if rest.startswith(name) else rest
    if session := _SESSION_IN_NAME.search(own):
        parts += [session.group()] if session.group() not in parts else []
    elif rest.startswith(name) and own and own.split("_")[0].isdigit():
        parts.append(own)  # 10000/10000_1000000_t2w.mha
    return folders[: depth - 1], subject, "_".join(parts)


def _split_session(name: str) -> tuple[str, str]:
    """Subject and session in one name; the session is empty where the name tells none."""
    if whole := _BRATS.fullmatch(name):
        return whole.group(1), whole.group(2)
    session = _SESSION_IN_NAME.search(name)
    if not session:
        return name, ""
    subject = re.sub(r"([-_. ])[-_. ]+", r"\1", name[: session.start()] + name[session.end() :]).strip(" -_.")
    # "MR_scan_12" numbers subjects, not the scans of a subject called MR.
    return (subject, session.group()) if not subject or re.search(r"\d", subject) else (name, "")


def _name(cases: dict[Key, FoundCase]) -> None:
    """Give every case its id and subject; folders of groups join in where two subjects share a name."""
    people = _people({subject for _, subject, _ in cases})
    groups = defaultdict(set)
    for group, subject, _ in cases:
        groups[people.get(subject, subject)].add(group)
    used: Counter[str] = Counter()
    for (group, subject, session), case in sorted(cases.items()):
        person = people.get(subject, subject)
        joined = group if len(groups[person]) > 1 else ()
        case.subject = "_".join((*joined, person))
        between = "-" if _BRATS.fullmatch(f"{subject}-{session}") else "_"
        name = "_".join((*joined, subject)) + (between + session if session else "")
        used[name] += 1
        case.id = name if used[name] == 1 else f"{name}_{used[name]}"


def _people(subjects: set[str]) -> dict[str, str]:
    """Who was examined, of the subjects whose names say that they are one examination of several."""
    people = {s: m.group(1) for s in subjects if (m := _FOLLOW_UP.fullmatch(s))}
    persons = len(set(people.values()))
    # "site1_v07" is a volunteer: sites are few with many people each, as in _session_folders.
    return people if len(people) <= max(FEW_SESSIONS * persons, persons**2) else {}


def _alike(subjects: set[str]) -> list[list[str]]:
    """Subjects whose names differ in a short end alone, if the same ends recur: perhaps one person each."""
    by_begin: dict[str, list[str]] = defaultdict(list)
    ends = []
    for subject in sorted(subjects):
        if whole := _PERHAPS_FOLLOW_UP.fullmatch(subject):
            by_begin[whole.group(1)].append(subject)
            ends.append(subject[whole.end(1) :])
    recur = 2 * len(set(ends)) <= len(ends) <= FEW_SESSIONS * len(by_begin)
    return [names for names in by_begin.values() if len(names) > 1 and recur]
