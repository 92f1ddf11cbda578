"""Which modality a file, a volume or a DICOM series is, told from its name.

A pattern is a text of one of three kinds, compared without regard to upper and lower case:

- plain, ``t1gd``: whole words of the name, bounded by anything but letters and digits; a space
  stands for any separator, or none;
- with ``*``, ``?`` or ``[]``, ``*_0001``: a glob that fits the whole name, with or without its
  extension; a glob with ``/``, ``imagesTr/*``, fits the end of the path;
- ``re:`` and a regular expression that is found anywhere in the path.

What a name says beside its modality tells which examination it belongs to: ``pat07`` in
``pat07_t1.nii.gz``. It is the text before plain words, the text that fits the first wildcard of a
glob, and for a regular expression its group named ``case``, or else the text before the match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from emim.cohort.vocabulary import (
    BEGIN,
    BRAIN,
    CONTRAST,
    END,
    EXAMINATION,
    GAP,
    MASK,
    NO_CONTRAST,
    NO_MODALITY,
    OVERRIDES,
    PATTERNS,
    PHILIPS_S,
    REGISTERED_TO,
    SURE_LABEL,
    TARGET,
)
from emim.errors import EmimError

Patterns = Mapping[str, "str | Sequence[str]"]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

_WILDCARD = re.compile(r"\*|\?|\[[^\]]+\]")


class Match(NamedTuple):
    """A recognised modality, and what the name says beside it, which tells the examination."""

    modality: str
    rest: str


def match_modality(filename: str, patterns: Patterns | None = None) -> str | None:
    """The modality that the name of a file, a volume or a DICOM series tells, or None.

    Args:
        filename: a bare name, with or without extension: ``pat07_t1ce.nii.gz``, ``AX T1 +C``.
        patterns: patterns for some modalities; they replace the built-in ones of these modalities,
            unless they contain them, and win over those of all others. Of several that fit, the
            longest wins.

    Raises:
        EmimError: when a regular expression in ``patterns`` is not valid.
    """
    found = find_modality(filename, "", patterns)
    return found.modality if found else None


def find_modality(name: str, folder: str = "", patterns: Patterns | None = None) -> Match | None:
    """As :func:`match_modality`, for the file ``name`` in ``folder`` ("/" between its parts)."""
    given = {m: as_tuple(p) for m, p in (patterns or {}).items()}
    # A model's card lists the built-in patterns too: they are no wish of the user, and stay in force.
    replaced = {m for m, p in given.items() if m not in PATTERNS or not set(PATTERNS[m]) <= set(p)}
    given = {m: p if m in replaced else [t for t in p if t not in PATTERNS[m]] for m, p in given.items()}
    kind = name_kind(name)
    hits = [
        (len(text), Match(modality, rest))
        for modality, texts in given.items()
        for text in texts
        # "*t1*" should not take t1_seg.nii.gz; "*t1_seg*" should.
        if (kind is None or name_kind(text.removeprefix("re:").replace("*", " ")) == kind)
        and (rest := fits(text, name, folder)) is not None
    ]
    if hits:
        return max(hits, key=lambda hit: hit[0])[1]
    return None if kind else _find_built_in(name, replaced)


def card_patterns(modality: str, own: Sequence[str] = ()) -> list[str]:
    """For a model's card: a user's ``own`` patterns, then the built-in ones, or else the modality's name."""
    return list(dict.fromkeys([*own, *PATTERNS.get(modality, (modality,))]))


def name_kind(name: str) -> str | None:
    """ "label" for the name of a segmentation, "mask" for that of a brain mask, else None."""
    stem = strip_extension(name)
    if BRAIN.search(stem) and MASK.search(stem):
        return "mask"
    if SURE_LABEL.search(stem):
        return "label"
    if MASK.search(stem):
        return "label" if TARGET.search(stem) else "mask"
    return "label" if TARGET.search(stem) and _find_built_in(stem) is None else None


def label_rest(name: str) -> str:
    """What the name of a label file says beside being one: ``pat07`` for ``pat07_seg.nii.gz``."""
    stem = strip_extension(name)
    starts = [m.start() for p in (SURE_LABEL, TARGET, MASK) for m in p.finditer(stem)]
    rest = stem[: min(starts)] if starts else stem
    of_image = _find_built_in(rest)
    return of_image.rest if of_image else rest


def canonical(name: str) -> str:
    """The usual name of a modality (``T1ce`` for ``t1gd``), or ``name`` where there is none."""
    for modality, texts in PATTERNS.items():
        if name.casefold() == modality.casefold() or name.casefold() in texts:
            return modality
    return name


def canonical_patterns(patterns: Patterns | None) -> dict[str, tuple[str, ...]]:
    """``patterns`` by the usual names of their modalities; those of one modality are put together."""
    usual: dict[str, tuple[str, ...]] = {}
    for modality, texts in (patterns or {}).items():
        name = canonical(modality)
        usual[name] = tuple(dict.fromkeys((*usual.get(name, ()), *as_tuple(texts))))
    return usual


def fits(pattern: str, name: str, folder: str = "") -> str | None:
    """What ``name`` says beside ``pattern`` (see the head of this file), or None where it does not fit.

    Raises:
        EmimError: when a regular expression is not valid.
    """
    path = f"{folder}/{name}" if folder else name
    regex = _compile(pattern)
    if pattern.startswith("re:"):
        found = regex.search(path)
        if not found:
            return None
        rest = found.group("case") if "case" in regex.groupindex else path[: found.start()].split("/")[-1]
        return rest or ""
    if _is_glob(pattern):
        whole = path if "/" in pattern else name
        found = regex.fullmatch(whole) or regex.fullmatch(strip_extension(whole))
        return strip_extension(found.group(1)).split("/")[-1] if found else None
    found = None
    for found in regex.finditer(strip_extension(name)):  # noqa: B007  the last one
        pass
    return name[: found.start()] if found else None


def strip_extension(name: str) -> str:
    """``name`` without the extension of an image file; other dots stay."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name


def check_patterns(patterns: Patterns | None) -> None:
    """Raise :class:`EmimError` for patterns of the wrong type or regular expressions that are not valid."""
    for modality, value in (patterns or {}).items():
        texts = as_tuple(value)
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise EmimError(
                f"The patterns of modality {modality!r} must be texts that are not empty.", repr(value)
            )
        for text in texts:
            _compile(text)


def _find_built_in(name: str, without: set[str] | frozenset[str] = frozenset()) -> Match | None:
    stem = REGISTERED_TO.sub(lambda m: " " * len(m.group()), strip_extension(name))
    if NO_MODALITY.search(stem):
        return None
    stem = PHILIPS_S.sub(" ", stem)
    rests: dict[str, str] = {}
    for modality, texts in PATTERNS.items():
        found = [rest for text in texts if (rest := fits(text, stem)) is not None]
        if found:
            rests[modality] = min(found, key=len)
    said = EXAMINATION.sub("", stem)
    plain = NO_CONTRAST.search(said)
    if "T1" in rests and not plain and CONTRAST.search(said):
        rests.setdefault("T1ce", rests["T1"])
    elif plain and "T1ce" in rests and "T1" in rests:
        del rests["T1ce"]
    overridden = {loser for winner in rests for loser in OVERRIDES.get(winner, ())}
    left = [m for m in rests if m not in overridden and m not in without]
    return Match(left[0], rests[left[0]]) if len(left) == 1 else None


def as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """One or several patterns as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def _is_glob(pattern: str) -> bool:
    return not pattern.startswith("re:") and _WILDCARD.search(pattern) is not None


def _glob_regex(pattern: str) -> str:
    """A regular expression for a glob; its group 1 is the first run of wildcards."""
    regex, at, groups = "", 0, 0
    for run in re.finditer(rf"(?:{_WILDCARD.pattern})+", pattern):
        inner = "".join(
            {"*": "[^/]*", "?": "[^/]"}.get(w, w.replace("[!", "[^")) for w in _WILDCARD.findall(run.group())
        )
        regex += re.escape(pattern[at : run.start()]) + (f"({inner})" if groups == 0 else inner)
        at, groups = run.end(), groups + 1
    return regex + re.escape(pattern[at:])


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    if pattern.startswith("re:"):
        try:
            return re.compile(pattern[3:], re.I)
        except re.error as error:
            raise EmimError(
                f"The regular expression is not valid: {error}.",
                pattern,
                "See https://docs.python.org/3/library/re.html",
            ) from error
    if _is_glob(pattern):
        return re.compile(("(?:.*/)?" if "/" in pattern else "") + _glob_regex(pattern), re.I)
    words = (re.escape(w) for w in re.split(r"[\W_]+", pattern.strip()) if w)
    return re.compile(BEGIN + GAP.join(words) + END, re.I)
