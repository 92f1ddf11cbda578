"""The files that a segmentation writes: named and checked before the work, written atomically."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from emim.errors import EmimError
from emim.package.model import ModelCard
from emim.replace import replace_file

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")
EXTENSIONS = (".seg.nrrd", *VOLUMES)


@dataclass(frozen=True)
class Outputs:
    """Where each result goes. All lie beside ``label`` and begin with its name.

    Attributes:
        label: the segmentation.
        table: measurements of the structures, CSV.
        overlay: picture, or None when not wanted.
        probabilities: structure name to the file of its probabilities; empty when not wanted.
    """

    label: Path
    table: Path
    overlay: Path | None
    probabilities: dict[str, Path]

    def all(self) -> list[Path]:
        optional = [self.overlay] if self.overlay else []
        return [self.label, self.table, *optional, *self.probabilities.values()]


def plan_outputs(label: str | Path, card: ModelCard, probabilities: bool, overlay: bool) -> Outputs:
    """Name the files that go with ``label``.

    Raises:
        EmimError: when the ending of ``label`` is not one that can be written.
    """
    label = Path(label).absolute()
    stem, extension = split_extension(label)
    maps = {}
    for structure in card.structures if probabilities else ():
        name = re.sub(r"[^\w-]+", "_", structure.name)
        path = label.with_name(f"{stem}_probability_{name}{extension.removeprefix('.seg')}")
        if path in maps.values():  # two names that differ only in what a file name cannot hold
            path = path.with_name(f"{stem}_probability_{name}_{structure.output}.nii.gz")
        maps[structure.name] = path
    picture = label.with_name(f"{stem}_overlay.png") if overlay else None
    return Outputs(label, label.with_name(f"{stem}_measurements.csv"), picture, maps)


def split_extension(path: Path) -> tuple[str, str]:
    """``("seg", ".nii.gz")`` of ``seg.nii.gz``.

    Raises:
        EmimError: for an ending that cannot be written.
    """
    for extension in EXTENSIONS:
        # ITK knows MetaImage by small letters only.
        name = path.name if extension == ".mha" else path.name.lower()
        if name.endswith(extension) and len(name) > len(extension):
            return path.name[: -len(extension)], extension
    raise EmimError(
        "An image cannot be written in this format.",
        path,
        f"Let the name end in one of: {', '.join(EXTENSIONS)}.",
    )


def check_writable(
    files: Iterable[Path],
    inputs: Iterable[str | Path],
    overwrite: bool,
    hint: str = "Choose another name, or overwrite it.",
) -> None:
    """Refuse, before any work, to write where something would be lost or nothing can be written.

    Raises:
        EmimError: when a file is an input, exists without ``overwrite``, or its folder refuses.
    """
    sources = {Path(p).resolve() for p in inputs}
    identities = {_identity(p) for p in sources} - {None}
    folders = set()
    for file in files:
        folders.add(file.parent)
        if file.resolve() in sources or _identity(file) in identities:
            raise EmimError("The output would overwrite an input.", file, "Choose another output name.")
        if file.is_dir():
            raise EmimError("The output is a folder.", file, "Give the name of a file.")
        if file.exists() and not overwrite:
            raise EmimError("The output exists already.", file, hint)
    for folder in folders:
        existing = existing_part(folder)
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise EmimError("Nothing can be written to this folder.", existing, "Choose another output.")


def _identity(file: Path) -> tuple[int, int] | None:
    """What all names of a file share: where case does not count, it has several. None: cannot be told."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def existing_part(folder: Path) -> Path:
    """``folder``, or the nearest folder around it that is there already.

    Raises:
        EmimError: when there is none, as on a drive that is not connected.
    """
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.exists():
            return part
    raise EmimError("There is no such drive or folder.", folder, "Connect it, or choose another place.")


def file_checksum(path: Path) -> str:
    """SHA-256 of a file: another one when somebody has corrected what it holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temporary path of the same ending, then rename to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, as a long name may be allowed but not a longer one.
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}{''.join(path.suffixes[-2:])}")
    try:
        write(temporary)
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
