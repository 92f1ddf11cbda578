"""One prepared case on disk: written once, then read crop by crop.

A case is a folder of uncompressed ``.npy`` files in (Z, Y, X) order, so that a crop is a few thousand
short contiguous rows of a memory map. The z-scores are 16-bit fixed point, full scale at the clip
value: half the size of float32, an error of at most clip / 65534 (0.00008 at clip 5, far below image
noise, and finer than float16), exactly 0 in the background, and faster to widen than float16.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from emim.volumes.grid import Grid
from emim.volumes.preprocess import PreparedCase

FULL_SCALE = 32767
# Enough positions for any number of epochs of oversampling, and small on disk.
STORED_VOXELS = 5000
SUMMARY = "case.json"
_decode = json.JSONDecoder().decode


@dataclass(frozen=True)
class Crop:
    """A box cut out of a case.

    Attributes:
        image: float32 (M, dz, dy, dx).
        foreground: boolean (dz, dy, dx).
        label: int16 (dz, dy, dx), or None.
    """

    image: np.ndarray
    foreground: np.ndarray
    label: np.ndarray | None


@dataclass(frozen=True, eq=False)
class CachedCase:
    """A case in the cache. Holds no open file, so it can be pickled to other processes.

    Attributes:
        id, subject: as in the cohort.
        modalities: names, in the order of the image's channels.
        path: of the folder where the arrays are; text, which takes less time and memory than a Path.
        shape: (Z, Y, X).
        present: boolean (M,), false for missing modalities.
        label_values: values found in the label, without 0; None when there is no label.
        grid: where the arrays lie in space.
        scale: z-score of one step of the stored integers.
    """

    id: str
    subject: str
    modalities: tuple[str, ...]
    path: str
    shape: tuple[int, int, int]
    present: np.ndarray
    label_values: tuple[int, ...] | None
    grid: Grid
    scale: float

    @property
    def folder(self) -> Path:
        return Path(self.path)

    def crop(self, start: Sequence[int], size: Sequence[int]) -> Crop:
        """Read the box that begins at ``start`` (z, y, x), of ``size`` (dz, dy, dx) voxels.

        The box may reach, or lie, outside the case: there image and label are 0, foreground is false.
        """
        low = [min(max(0, int(a)), n) for a, n in zip(start, self.shape, strict=True)]
        high = [
            min(max(b, int(a) + int(d)), n) for b, a, d, n in zip(low, start, size, self.shape, strict=True)
        ]
        source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        target = tuple(slice(a - int(s), b - int(s)) for a, b, s in zip(low, high, start, strict=True))

        # Zeros are written only where something of the box lies outside.
        new = np.empty if all(b - a == d for a, b, d in zip(low, high, size, strict=True)) else np.zeros
        image = (new if self.present.all() else np.zeros)((len(self.modalities), *size), np.float32)
        stored = self._open("image", source[0])
        for row, channel in enumerate(np.flatnonzero(self.present)):
            np.multiply(stored[row][source], np.float32(self.scale), out=image[channel][target])
        foreground = new(tuple(size), bool)
        foreground[target] = self._open("foreground", source[0])[source]
        label = None
        if self.label_values is not None:
            label = new(tuple(size), np.int16)
            label[target] = self._open("label", source[0])[source]
        return Crop(image, foreground, label)

    def label_voxels(self, value: int) -> np.ndarray:
        """Positions (z, y, x) of voxels with this label value, int32 (n, 3): all, or 5000 at random.

        The choice is the same each time. There is none for a value the case does not have.
        """
        return self._voxels(str(int(value)))

    def foreground_voxels(self) -> np.ndarray:
        """Positions (z, y, x) of foreground voxels, int32 (n, 3), chosen as in :meth:`label_voxels`."""
        return self._voxels("foreground")

    def _voxels(self, name: str) -> np.ndarray:
        with np.load(self.folder / "voxels.npz") as stored:
            return stored[name] if name in stored else np.zeros((0, 3), np.int32)

    def _open(self, name: str, planes: slice) -> np.ndarray:
        """The array ``name`` as a map of its file, of which ``planes`` (z) are about to be read."""
        # Opened anew for each crop (0.1 ms): a map keeps a file descriptor, and cohorts have thousands.
        stored = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        _read_ahead(stored, planes)
        return stored


def _read_ahead(stored: np.memmap, planes: slice) -> None:
    """Have the system fetch planes of (…, Z, Y, X) in few large reads instead of page by page."""
    if not hasattr(os, "posix_fadvise") or planes.start == planes.stop:  # Linux has it
        return
    plane, depth = stored.strides[-3], stored.shape[-3]
    file = os.open(stored.filename, os.O_RDONLY)
    try:
        for volume in range(0, stored.nbytes, depth * plane):
            begin = stored.offset + volume + planes.start * plane
            os.posix_fadvise(file, begin, (planes.stop - planes.start) * plane, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


def write_case(folder: Path, prepared: PreparedCase, clip: float, name: str) -> None:
    """Write the arrays of a case into an existing empty folder, and last the summary of them."""
    scale = clip / FULL_SCALE
    arrays = {"image": _fixed_point(prepared, scale), "foreground": prepared.foreground}
    voxels = {"foreground": _some_voxels(prepared.foreground)}
    values = None
    if prepared.label is not None:
        ends = (prepared.label.min(), prepared.label.max())
        arrays["label"] = prepared.label.astype(np.result_type(*map(np.min_scalar_type, ends)))
        values = [int(v) for v in np.unique(prepared.label) if v != 0]
        voxels |= {str(v): _some_voxels(prepared.label == v) for v in values}

    for array_name, array in arrays.items():
        _write(folder / f"{array_name}.npy", lambda file, array=array: np.save(file, array))
    _write(folder / "voxels.npz", lambda file: np.savez(file, **voxels))
    summary = {
        "case": name,
        "shape": list(prepared.grid.shape),
        "present": prepared.present.tolist(),
        "label_values": values,
        "grid": asdict(prepared.grid),
        "scale": scale,
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir())},
    }
    text = json.dumps(summary, ensure_ascii=False, separators=(",", ":"))
    _write(folder / SUMMARY, lambda file: file.write(text.encode()))


def read_summary(folder: Path | str) -> dict | None:
    """The summary of a complete case, or None when there is none or a file is missing or cut short."""
    try:
        # Text, not Path objects: of a hundred thousand cases, these would take most of the time.
        summary = _decode(_bytes_of(f"{folder}/{SUMMARY}").decode("utf-8"))
        complete = all(os.stat(f"{folder}/{f}").st_size == n for f, n in summary["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return summary if complete else None


def _bytes_of(path: str) -> bytes:
    """A small file, without what Python's file objects do for large ones: a quarter of a summary's time."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    finally:
        os.close(file)


def open_case(
    folder: Path | str, summary: dict, id: str, subject: str, modalities: Sequence[str]
) -> CachedCase:
    """The case in ``folder`` under the names it has in the cohort at hand."""
    values = summary["label_values"]
    return CachedCase(
        id,
        subject,
        tuple(modalities),
        str(folder),
        _shared(*summary["shape"]),
        np.array(summary["present"], bool),
        None if values is None else _shared(*values),
        Grid(**{k: _shared(*v) for k, v in summary["grid"].items()}),
        summary["scale"],
    )


@lru_cache(maxsize=4096, typed=True)  # 1 and 1.0 are not the same here
def _shared(*values: float) -> tuple[float, ...]:
    """An equal tuple made before, if there is one: most cases of a large cohort have the same spacing."""
    return values


def _fixed_point(prepared: PreparedCase, scale: float) -> np.ndarray:
    """The modalities that are there in steps of ``scale``, int16."""
    there = np.flatnonzero(prepared.present)
    stored = np.empty((len(there), *prepared.image.shape[1:]), np.int16)
    for out, channel in zip(stored, there, strict=True):  # one by one, to need little memory
        steps = prepared.image[channel] / np.float32(scale)
        out[...] = np.rint(steps, out=steps)
    return stored


def _some_voxels(mask: np.ndarray) -> np.ndarray:
    found = np.flatnonzero(mask)
    if found.size > STORED_VOXELS:
        chosen = np.random.default_rng(0).choice(found.size, STORED_VOXELS, replace=False, shuffle=False)
        found = found[np.sort(chosen)]
    return np.stack(np.unravel_index(found, mask.shape), axis=1).astype(np.int32)


def _write(path: Path, write) -> None:
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())  # or a power cut after the rename could leave a complete-looking case
