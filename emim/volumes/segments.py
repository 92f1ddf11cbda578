"""The segments that the header of a 3D Slicer segmentation (.seg.nrrd) names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.errors import EmimError

if TYPE_CHECKING:
    import SimpleITK as sitk

MAX_VALUE = 32767  # label maps are read as int16
EXPORT_AGAIN = "Export the segmentation again."
# What Slicer gives a segment that nobody has classified, whatever the list of terms is called.
_UNCLASSIFIED = "~SCT^85756007^Tissue~SCT^85756007^Tissue~"


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        name: as the user sees it.
        value: of its voxels in its layer.
        layer: from 0; segments share one unless they overlap.
        color: red, green, blue from 0 to 255, or None.
        terminology: Slicer terminology string, or None.
    """

    name: str
    value: int
    layer: int = 0
    color: tuple[int, int, int] | None = None
    terminology: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Segment:
        """The segment that :meth:`to_dict` wrote; JSON has turned its colour into a list.

        Raises:
            KeyError, TypeError, ValueError: when it is none.
        """
        name, value, color = data["name"], data["value"], data.get("color")
        if not isinstance(name, str) or type(value) is not int:
            raise ValueError(f"a segment has a name and a whole number as value, not {name!r} and {value!r}")
        return Segment(**{**data, "color": None if color is None else tuple(color)})


def same_name(name: str) -> str:
    """What two names of one segment have in common; case and how Unicode composes letters may differ."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def contradiction(segments: Sequence[Segment]) -> str | None:
    """Why these cannot be the segments of one file or list, or None."""
    names, values = [same_name(s.name) for s in segments], [s.value for s in segments]
    if not all(names):
        return "one of its segments has no name"
    if twice := next((s.name for s in segments if names.count(same_name(s.name)) > 1), None):
        return f"two of its segments are called {twice!r}"
    if not all(1 <= v <= MAX_VALUE for v in values):
        return f"label values of its segments are {values}; they must lie within 1 and {MAX_VALUE}"
    if shared := next((v for v in values if values.count(v) > 1), None):
        alike = " and ".join(repr(s.name) for s in segments if s.value == shared)
        return f"its segments {alike} have the same label value {shared}"
    return None


def read_coding(entries: Iterable[Any], where: str | Path) -> tuple[Segment, ...]:
    """The segments that :meth:`Segment.to_dict` wrote, each with a name and a label value of its own.

    Args:
        where: the file that they come from.

    Raises:
        EmimError: when they are none.
    """
    hint = f"Give each segment a name and a whole number from 1 to {MAX_VALUE} of its own."
    try:
        segments = tuple(Segment.from_dict(entry) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"The list of segments holds something unexpected ({type(error).__name__}: {error})."
        raise EmimError(what, where, hint) from error
    if (wrong := contradiction(segments)) is not None:
        raise EmimError(f"The list of segments cannot be used: {wrong}.", where, hint)
    return segments


def read_segments(
    header: sitk.Image | sitk.ImageFileReader, layers: int, path: str | Path
) -> tuple[Segment, ...]:
    """The segments of a file with this header, in its order; none where it names none.

    Raises:
        EmimError: when it does not say which voxels are a segment's, or two have one name.
    """
    count = 0
    while header.HasMetaDataKey(f"Segment{count}_ID"):
        count += 1
    segments: dict[str, Segment] = {}
    for i in range(count):
        fields = {k: _field(header, f"Segment{i}_{k}") for k in ("Name", "LabelValue", "Layer")}
        if fields["LabelValue"] is None and fields["Layer"] is None and layers == count:
            fields |= {"LabelValue": "1", "Layer": str(i)}  # as Slicer wrote before 4.11
        if not (fields["Name"] or "").strip():
            fields["Name"] = None
        if None in fields.values():
            lacking = ", ".join(k for k, v in fields.items() if v is None)
            raise EmimError(f"Segment {i} has no {lacking}.", path, "Save it again with a newer 3D Slicer.")
        name = fields["Name"]
        if same_name(name) in segments:
            raise EmimError(f"Two segments are called {name!r}.", path, "Rename one.")
        layer, value = (_whole_number(fields[k], f"Segment{i}_{k}", path) for k in ("Layer", "LabelValue"))
        if not 0 <= layer < layers:
            what = f"Segment {i} is in layer {layer}, but the layers end at {layers - 1}."
            raise EmimError(what, path, EXPORT_AGAIN)
        color, term = (_field(header, f"Segment{i}_{k}") for k in ("Color", "Tags"))
        segments[same_name(name)] = Segment(name, value, layer, _color(color), _terminology(term))
    return tuple(segments.values())


def _field(header: sitk.Image | sitk.ImageFileReader, key: str) -> str | None:
    return header.GetMetaData(key) if header.HasMetaDataKey(key) else None


def _whole_number(text: str, key: str, path: str | Path) -> int:
    try:
        return int(text)
    except ValueError:
        raise EmimError(f"{key} is no whole number: {text!r}.", path, EXPORT_AGAIN) from None


def _color(text: str | None) -> tuple[int, int, int] | None:
    """Three numbers from 0 to 1 as Slicer writes them; anything else is no colour."""
    try:
        red, green, blue = (round(255 * float(part)) for part in (text or "").split())
    except (ValueError, OverflowError):
        return None
    color = (red, green, blue)
    return color if all(0 <= c <= 255 for c in color) else None


def _terminology(tags: str | None) -> str | None:
    for tag in (tags or "").split("|"):
        key, _, value = tag.partition(":")
        if key == "TerminologyEntry" and value.strip() and _UNCLASSIFIED not in value:
            return value.strip()
    return None
