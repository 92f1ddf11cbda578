"""What a folder or a datalist names, before any file is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from emim.cohort.volume import VolumeFacts
from emim.volumes.segments import Segment


@dataclass
class FoundCase:
    """A case as found: every candidate of each modality, so that duplicates can be reported.

    Attributes:
        drawn: its label was drawn in EMIM Pretrain, with the values of :attr:`Found.segments`.
    """

    id: str
    subject: str
    images: dict[str, list[str]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    drawn: bool = False


@dataclass
class Found:
    """All cases found.

    Attributes:
        ignored: files that are not used, each with the reason.
        modalities: in the order the source gives, or None.
        patterns: a user's patterns by which an earlier scan found the cases.
        segments: those that labels name, with the values an earlier scan gave them.
        known: facts about files from an earlier scan, by path.
        assumed: what was taken for granted about people and examinations, in words; empty: nothing.
    """

    cases: list[FoundCase] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    modalities: tuple[str, ...] | None = None
    patterns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    known: dict[str, VolumeFacts] = field(default_factory=dict)
    assumed: str = ""
