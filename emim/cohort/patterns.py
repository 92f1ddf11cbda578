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

from emim.errors import EmimError

Patterns = Mapping[str, "str | Sequence[str]"]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

# In the order in which the modalities of a cohort are listed.
PATTERNS: dict[str, tuple[str, ...]] = {
    "T1": (
        *("t1", "t1w", "t1wi", "t1 weighted", "t1n", "t1pre", "t1native", "t1 se", "t1 tse", "t1 fse"),
        *("t1 gre", "t1 3d", "t1 fs", "t1 vibe", "t1 flash", "t1 space", "t1 tfe", "t1 ffe", "t1 flair"),
        *("t1 mpr", "t1 mprage", "mprage", "mp rage", "t1 spgr", "spgr", "fspgr", "bravo"),
    ),
    "T1ce": (
        *("t1c", "t1ce", "t1cem", "t1gd", "t1gad", "t1gado", "t1km", "t1post", "t1pc", "t1contrast"),
        *("t1wc", "t1wce", "t1wgd", "t1wpost", "t1wkm", "t1ic", "cet1", "cet1w", "t1enh", "t1postcontrast"),
        "re:(?<![^\\W_])t1w?[\\W_]*c(?![^\\W_])(?![\\W_]*spine)",
        "re:(?<![^\\W_])t1w?c?\\+(?=[\\W_]*$)",
    ),
    "T2": (
        *("t2", "t2w", "t2wi", "t2 weighted", "t2 se", "t2 tse", "t2 fse", "t2 frfse", "t2 3d", "t2 fs"),
        *("t2 space", "t2 spc", "t2 cube", "t2 blade", "t2 propeller", "t2 haste"),
    ),
    "FLAIR": ("flair", "fla", "t2f", "t2 flair", "t2w flair", "3dflair", "flair 3d", "dark fluid"),
    "PD": ("pd", "pdw", "pdwi", "pdfs", "proton density"),
    "STIR": ("stir",),
    "DIR": ("dir", "double inversion recovery"),
    "T2star": ("t2 star", "t2starw", "t2s", "t2gre", "gre", "re:(?<![^\\W_])t2w?\\*"),
    "SWI": ("swi", "swan", "swip", "susceptibility"),
    "QSM": ("qsm",),
    "DWI": ("dwi", "dw", "diff", "diffusion", "trace", "tracew", "re:(?<![^\\W_])b ?\\d{3,4}(?![^\\W_])"),
    "HBV": ("hbv", "high b", "high bvalue", "high b value", "highbval"),
    "ADC": ("adc", "adcmap", "dadc", "apparent diffusion"),
    "ASL": ("asl", "pcasl"),
    "CBF": ("cbf", "rcbf"),
    "CBV": ("cbv", "rcbv"),
    "DCE": ("dce",),
    "TOF": ("tof", "mra"),
    "LGE": ("lge",),
    "CT": ("ct",),
    "PET": ("pet",),
}

# A name with words of several modalities is the one that overrides: a "T2 FLAIR" is a FLAIR.
_OVERRIDES = {
    "T1": ("FLAIR", "T2star"),
    "T1ce": ("T1", "FLAIR", "T2star"),
    "FLAIR": ("T2",),
    "STIR": ("T2",),
    "DIR": ("T2", "FLAIR"),
    "T2star": ("T2",),
    "SWI": ("T2", "T2star"),
    "QSM": ("T2", "T2star", "SWI"),
    "HBV": ("DWI",),
    "ADC": ("DWI", "HBV"),
    "CBF": ("ASL",),
    "DCE": ("T1", "T1ce"),
    "TOF": ("T1", "T2"),
}

_BEGIN, _END, _GAP = r"(?<![^\W_])", r"(?![^\W_])", r"[\W_]*"
_AGENT = r"(?:c|ce|gd|gad|gado|gadolinium|contrast|km)"
_NOT_A_TREATMENT = rf"(?!{_GAP}(?:op|surg|rt|treat|proc|chemo))"
_CONTRAST = re.compile(
    rf"{_BEGIN}(?:ce|gd|gad|gado|gadolinium|gadavist|gadovist|dotarem|magnevist|prohance|multihance|km|mdc"
    rf"|contrast|enhanced|enh|c{_GAP}\+|post{_NOT_A_TREATMENT}|post{_GAP}{_AGENT}){_END}"
    rf"|\+{_GAP}{_AGENT}{_END}|{_BEGIN}c\+",
    re.I,
)
_NO_CONTRAST = re.compile(
    rf"{_BEGIN}(?:native?|unenhanced|pre{_NOT_A_TREATMENT}|pre{_GAP}{_AGENT}"
    rf"|(?:without|wo|w/o|no|non|sans|ohne){_GAP}(?:{_AGENT}|enh\w*)){_END}|\s-c\s*$",
    re.I,
)
# "FLAIR_to_T1" and "space-T1w_FLAIR" name the image that another was registered to.
_REGISTERED_TO = re.compile(
    rf"{_BEGIN}(?:to|onto|space|in|reg|coreg)[\W_]+(?:t1\w?\w?|t2w?|flair|fla|dwi|adc)(?:[\W_]*space)?{_END}",
    re.I,
)
_NO_MODALITY = re.compile(
    rf"{_BEGIN}(?:scout|localizer|localiser|survey|subtraction|subtracted|mip|phase|pha|t1rho|t[12]{_GAP}maps?)"
    rf"{_END}",
    re.I,
)
_SURE_LABEL = re.compile(
    rf"{_BEGIN}(?:seg|dseg|segm|segmentations?|labels?|labelmap|lbl|msk|gt|ground{_GAP}truth|truth"
    rf"|annotations?|consensus|delineations?){_END}",
    re.I,
)
_TARGET = re.compile(
    rf"{_BEGIN}(?:\w*lesions?|wmh|tumou?rs?|infarct|stroke|cancer|gtv|ctv|roi|manual|rater\w*|expert\w*){_END}",
    re.I,
)
_MASK = re.compile(rf"{_BEGIN}(?:\w*masks?|msk){_END}", re.I)
_BRAIN = re.compile(rf"{_BEGIN}(?:brain|brainmask|skull|head|body|foreground|bet){_END}", re.I)


_WILDCARD = re.compile(r"\*|\?|\[[^\]]+\]")


class Match(NamedTuple):
    """A recognised modality, and what the name says beside it, which tells the examination."""

    modality: str
    rest: str


def match_modality(filename: str, patterns: Patterns | None = None) -> str | None:
    """The modality that the name of a file, a volume or a DICOM series tells, or None.

    Args:
        filename: a bare name, with or without extension: ``pat07_t1ce.nii.gz``, ``AX T1 +C``.
        patterns: patterns for some modalities; they replace the built-in ones of these modalities
            and win over those of all others. Of several that fit, the longest wins.

    Raises:
        EmimError: when a regular expression in ``patterns`` is not valid.
    """
    found = find_modality(filename, "", patterns)
    return found.modality if found else None


def find_modality(name: str, folder: str = "", patterns: Patterns | None = None) -> Match | None:
    """As :func:`match_modality`, for the file ``name`` in ``folder`` ("/" between its parts)."""
    given = {m: _as_tuple(p) for m, p in (patterns or {}).items()}
    # The built-in patterns of a model's card are the built-in ones, not a wish of the user.
    given = {m: p for m, p in given.items() if p != PATTERNS.get(m)}
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
    return None if kind else _find_built_in(name, set(given))


def name_kind(name: str) -> str | None:
    """ "label" for the name of a segmentation, "mask" for that of a brain mask, else None."""
    stem = strip_extension(name)
    if _BRAIN.search(stem) and _MASK.search(stem):
        return "mask"
    if _SURE_LABEL.search(stem):
        return "label"
    if _MASK.search(stem):
        return "label" if _TARGET.search(stem) else "mask"
    return "label" if _TARGET.search(stem) and _find_built_in(stem) is None else None


def label_rest(name: str) -> str:
    """What the name of a label file says beside being one: ``pat07`` for ``pat07_seg.nii.gz``."""
    stem = strip_extension(name)
    starts = [m.start() for p in (_SURE_LABEL, _TARGET, _MASK) for m in p.finditer(stem)]
    rest = stem[: min(starts)] if starts else stem
    of_image = _find_built_in(rest)
    return of_image.rest if of_image else rest


def canonical(name: str) -> str:
    """The usual name of a modality (``T1ce`` for ``t1gd``), or ``name`` where there is none."""
    for modality, texts in PATTERNS.items():
        if name.casefold() == modality.casefold() or name.casefold() in texts:
            return modality
    return name


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
        texts = _as_tuple(value)
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise EmimError(
                f"The patterns of modality {modality!r} must be texts that are not empty.", repr(value)
            )
        for text in texts:
            _compile(text)


def _find_built_in(name: str, without: set[str] | frozenset[str] = frozenset()) -> Match | None:
    stem = _REGISTERED_TO.sub(lambda m: " " * len(m.group()), strip_extension(name))
    if _NO_MODALITY.search(stem):
        return None
    rests: dict[str, str] = {}
    for modality, texts in PATTERNS.items():
        found = [rest for text in texts if (rest := fits(text, stem)) is not None]
        if found:
            rests[modality] = max(found, key=len)
    plain = _NO_CONTRAST.search(stem)
    if "T1" in rests and not plain and _CONTRAST.search(stem):
        rests.setdefault("T1ce", rests["T1"])
    elif plain and "T1ce" in rests and "T1" in rests:
        del rests["T1ce"]
    overridden = {loser for winner in rests for loser in _OVERRIDES.get(winner, ())}
    left = [m for m in rests if m not in overridden and m not in without]
    return Match(left[0], rests[left[0]]) if len(left) == 1 else None


def _as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
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
    return re.compile(_BEGIN + _GAP.join(words) + _END, re.I)
