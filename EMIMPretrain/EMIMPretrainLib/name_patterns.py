"""The user's own words for modalities: read from the panel, and tried on names at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slicer.i18n import tr as _

from emim.cohort.patterns import EXTENSIONS, check_patterns, match_modality, name_kind
from EMIMLib import EmimError

PATIENCE = 1.0  # seconds


def parsePatterns(text: str) -> dict[str, list[str]]:
    """Patterns from lines ``MODALITY=PATTERN``; several lines may be about one modality.

    Raises:
        EmimError: for a line of another form, or a regular expression that is not valid.
    """
    patterns: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        modality, separator, pattern = (part.strip() for part in line.partition("="))
        if not separator or not modality or not pattern:
            raise EmimError(
                _("The line {line!r} is no name pattern.").format(line=line.strip()),
                hint=_("Write MODALITY=PATTERN, such as T1ce=*_t1gd*."),
            )
        patterns.setdefault(modality, []).append(pattern)
    check_patterns(patterns)
    return patterns


def matchPreview(
    names: Iterable[str], patterns: Mapping[str, Sequence[str]] | None = None
) -> list[tuple[str, str | None]]:
    """What each file name is taken for: a modality, "label", "mask" (a brain mask), or None."""
    return [(name, match_modality(name, patterns or None) or name_kind(name)) for name in names]


def namesIn(folder: str | Path, limit: int = 200) -> list[str]:
    """Up to ``limit`` different names of image files in ``folder`` and below, without reading them.

    On a large or slow disk, those found within :data:`PATIENCE`.
    """
    names: dict[str, None] = {}
    end = time.monotonic() + PATIENCE
    for _folder, folders, files in os.walk(folder):
        folders.sort()
        names.update(dict.fromkeys(f for f in sorted(files) if f.lower().endswith(EXTENSIONS)))
        if len(names) >= limit or time.monotonic() > end:
            break
    return list(names)[:limit]
