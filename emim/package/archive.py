"""The files of a model package, in a folder or a zip, opened only after they have been checked."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from emim.errors import EmimError
from emim.run_state import read_run

METADATA = "configs/metadata.json"
CHECKSUMS = "checksums.json"
CHECKSUMS_VERSION = 1
_JSON_LIMIT = 16 * 2**20  # bytes; a description is never larger, a hostile one could fill the memory
_DAMAGED = "Copy or download the package again."
_LOCKED = "Unpack it with the program that packed it, and give the folder."
# What reading a zip raises: RuntimeError where it is encrypted or packed in a way that Python does not know.
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)


class PackageFiles:
    """Read access to the files of a package by their relative path.

    Args:
        path: a package folder, a zip of one, or a fine-tuning run folder with its ``model`` in it.

    Raises:
        EmimError: when there is no package, or when a zip holds a name that points outside of it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if not self.path.exists():
            raise EmimError("There is no such model package.", path, "Check the path given as the model.")
        if self.path.is_dir():
            if not (self.path / METADATA).exists() and (self.path / "model" / METADATA).exists():
                self.path = self.path / "model"
            _refuse_run(self.path)
            self.names = _folder_names(self.path)
        else:
            self._open_zip()
        if METADATA not in self.names or CHECKSUMS not in self.names:
            raise EmimError(
                "This is not a model package of EMIM.",
                path,
                f"A package is a folder or zip file with {METADATA} and {CHECKSUMS} in it.",
            )

    def _open_zip(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except _UNREADABLE as error:
            raise EmimError(
                f"The model package cannot be opened: {error}.",
                self.path,
                "A package is a folder or a zip file; the download may be incomplete.",
            ) from error
        members = [m for m in self._zip.infolist() if not m.is_dir()]
        for member in members:
            if not _is_inside(member.orig_filename) or stat.S_ISLNK(member.external_attr >> 16):
                raise EmimError(
                    f"The zip file holds a name that points outside of it: {member.orig_filename!r}.",
                    self.path,
                    "Do not use this package; tell the one who gave it to you.",
                )
        names = [m.filename for m in members if not _is_dropping(m.filename)]
        if len(set(names)) < len(names):
            raise EmimError("The zip file holds the same file twice.", self.path, _DAMAGED)
        if METADATA not in names:  # MONAI zips the folder itself, so everything lies one level deeper
            tops = {PurePosixPath(n).parts[0] for n in names}
            self._prefix = tops.pop() + "/" if len(tops) == 1 else ""
        self.names = {n.removeprefix(self._prefix) for n in names}

    def open(self, name: str) -> BinaryIO:
        """The file ``name`` (a relative path with forward slashes) opened for reading bytes."""
        if not _is_inside(name) or name not in self.names:
            raise EmimError(f"The model package lacks the file {name!r}.", self.path, _DAMAGED)
        if self._zip is not None:
            return self._zip.open(self._prefix + name)
        return open(self.path / name, "rb")

    def read(self, name: str, limit: int = -1) -> bytes:
        """The content of ``name``, at most ``limit`` bytes of it."""
        try:
            with self.open(name) as file:
                return file.read(limit)
        except _UNREADABLE as error:
            raise _unreadable(name, self.path, error) from error

    def json(self, name: str) -> dict[str, Any]:
        try:
            data = json.loads(self.read(name, _JSON_LIMIT).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise EmimError(f"{name} is damaged: {error}.", self.path, _DAMAGED) from error
        if not isinstance(data, dict):
            raise EmimError(f"{name} is not a JSON object.", self.path, _DAMAGED)
        return data

    def verify(self) -> None:
        """Compare every file with its recorded size and SHA-256.

        Raises:
            EmimError: for a file that is missing, truncated, changed or not recorded.
        """
        listed = _listed(self.json(CHECKSUMS), self.path)
        for name in sorted(self.names - set(listed) - {CHECKSUMS}):
            raise EmimError(
                f"The model package holds a file that its checksums do not list: {name!r}.",
                self.path,
                "Remove the file if you put it there; otherwise do not use this package.",
            )
        for name, (size, expected) in listed.items():
            self._verify_file(name, size, expected)

    def _verify_file(self, name: str, size: int, expected: str) -> None:
        digest, found = hashlib.sha256(), 0
        try:
            with self.open(name) as file:
                while block := file.read(2**20):
                    found += len(block)
                    digest.update(block)
                    if found > size:
                        break
        except _UNREADABLE as error:
            raise _unreadable(name, self.path, error) from error
        if found < size:
            what = f"{name} is truncated: {found} of {size} bytes."
            raise EmimError(what, self.path, _DAMAGED)
        if digest.hexdigest() != expected:
            what = f"{name} has changed since the package was written: its SHA-256 is not the recorded one."
            raise EmimError(what, self.path, _DAMAGED)

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that tell this package from another version of it, without its weights."""
        return hashlib.sha256(self.read(CHECKSUMS, _JSON_LIMIT)).hexdigest()[:8]

    def bytes_of(self, name: str) -> BinaryIO:
        """``name`` as a file that can be searched back and forth, as torch.load wants it."""
        return io.BytesIO(self.read(name)) if self._zip is not None else self.open(name)


def _unreadable(name: str, where: Path, error: Exception) -> EmimError:
    why = str(error) or "it ends too early"
    hint = _LOCKED if isinstance(error, RuntimeError) else _DAMAGED
    return EmimError(f"{name} cannot be read: {why}.", where, hint)


def _refuse_run(folder: Path) -> None:
    """Say what to do with a run folder that holds no model."""
    try:
        run = read_run(folder)
    except EmimError:
        return
    if run.command == "pretrain":
        raise EmimError(
            "This is a pre-training run; it cannot segment yet.",
            folder,
            "Fine-tune it first, with a few labelled cases: emim finetune COHORT --init RUN.",
        )
    raise EmimError(
        f"The fine-tuning has not made a model yet: it is at step {run.step} of {run.steps}.",
        folder,
        "Wait for its end, or continue it with --resume.",
    )


def checksums(folder: Path) -> dict[str, Any]:
    """The content of ``checksums.json`` for a folder: size and SHA-256 of every file in it."""
    files = {}
    for name in sorted(_folder_names(folder) - {CHECKSUMS}):
        content = (folder / name).read_bytes()
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"version": CHECKSUMS_VERSION, "files": files}


def _listed(data: dict[str, Any], where: Path) -> dict[str, tuple[int, str]]:
    """Relative path to (size, SHA-256), from the content of ``checksums.json``."""
    if isinstance(data.get("version"), int) and data["version"] > CHECKSUMS_VERSION:
        raise EmimError("The model package was written by a newer EMIM.", where, "Update EMIM.")
    try:
        listed = {str(n): (int(f["bytes"]), str(f["sha256"])) for n, f in data["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EmimError(f"{CHECKSUMS} of the model package is damaged.", where, _DAMAGED) from error
    if METADATA not in listed:
        raise EmimError(f"{CHECKSUMS} does not list {METADATA}.", where, _DAMAGED)
    return listed


def _folder_names(folder: Path) -> set[str]:
    names = set()
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_symlink():
            raise EmimError(
                f"The model package holds a link, which could point anywhere: {name!r}.",
                folder,
                "Replace the link by the file itself.",
            )
        if file.is_file() and not _is_dropping(name):
            names.add(name)
    return names


def _is_inside(name: str) -> bool:
    """Whether a name in a package is a plain relative path that stays inside, on every system."""
    path = PurePosixPath(name)
    bad = path.is_absolute() or ".." in path.parts or not path.parts
    return not (bad or "\\" in name or ":" in name or "\0" in name)


def _is_dropping(name: str) -> bool:
    """Files that systems leave in folders and zips; nobody reads them."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(p.startswith(".") or p == "Thumbs.db" for p in parts)
