"""The models installed on this machine: a folder of model packages."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from emim.errors import EmimError
from emim.package.archive import PackageFiles
from emim.package.bundle import read_card, read_package
from emim.package.model import ModelCard
from emim.replace import replace_file

FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # in file names of one system or another
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names Windows keeps


@dataclass(frozen=True)
class InstalledModel:
    """One entry of the models folder.

    Attributes:
        path: the package, a folder or a zip.
        card: what the model is; None when it is damaged.
        problem: why it cannot be used, or None.
        fingerprint: tells it from other versions of the same name; "" when it is damaged.
    """

    path: Path
    card: ModelCard | None
    problem: EmimError | None = None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """For people: the model's own name, else that of its folder."""
        return self.card.name if self.card is not None else self.path.name

    @property
    def version(self) -> str:
        """For people: the day it was trained, where it tells that, and its fingerprint."""
        date = self.card.training.get("date") if self.card is not None else None
        return ", ".join(part for part in (date, self.fingerprint) if part and isinstance(part, str))


class ModelRegistry:
    """The model packages in one folder. Nothing in them is executed, and torch is not imported.

    Args:
        folder: None: the folder in the settings, asked for anew each time.
        task: models for another one are listed with that as their problem; None: all tasks are welcome.
    """

    def __init__(self, folder: str | Path | None = None, task: str | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._task = task

    @property
    def folder(self) -> Path:
        if self._folder is not None:
            return self._folder
        from EMIMLib.settings import modelsFolder  # needs Qt, which a script may not have

        return modelsFolder()

    def models(self) -> list[InstalledModel]:
        """All packages by name; a damaged one is listed with its problem. Reads no weights."""
        try:
            entries = [e for e in self.folder.iterdir() if _looksLikePackage(e)]
        except OSError:  # no folder yet
            return []
        return sorted((self._read(e) for e in entries), key=lambda m: (m.name.casefold(), m.path.name))

    def find(self, nameOrPath: str | Path) -> InstalledModel:
        """The model of this name, folder name or path; a path may lie outside the models folder.

        Raises:
            EmimError: when there is none, or several have the name, or it is damaged.
        """
        text = str(nameOrPath)
        installed = self.models()
        found = [m for m in installed if text in (str(m.path), m.path.name)]
        found = found or [m for m in installed if m.name == text]
        if not found and text and Path(text).expanduser().exists():
            found = [self.package(Path(text).expanduser())]
        if not found:
            names = ", ".join(m.name for m in installed) or "none"
            hint = f"Import the model first. Installed: {names}."
            raise EmimError(f"There is no model {text!r}.", self.folder, hint)
        if len(found) > 1:
            folders = ", ".join(m.path.name for m in found)
            hint = f"Give the folder name instead, one of: {folders}."
            raise EmimError(f"Several models are named {text!r}.", self.folder, hint)
        if found[0].problem is not None:
            raise found[0].problem
        return found[0]

    def namesake(self, path: str) -> InstalledModel | None:
        """The installed model called as the last part of ``path``; None where there is not exactly one.

        For a path that a scene brings from another computer, of whatever system. :meth:`find` does not do
        this: who gives a path by hand and errs is to be told so, instead of getting another model.
        """
        last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
        found = [m for m in self.models() if last in (m.path.name, m.name)]
        return found[0] if len(found) == 1 else None

    def package(self, path: str | Path) -> InstalledModel:
        """The model in a package folder or zip or a fine-tuning run, wherever it lies. Reads no weights.

        Raises:
            EmimError: when there is none, or its card is damaged.
        """
        files = PackageFiles(path)
        model = InstalledModel(files.path.absolute(), read_card(path), fingerprint=files.fingerprint())
        return self._usable(model)

    def replacedBy(self, package: InstalledModel) -> InstalledModel | None:
        """What has to be replaced to import ``package``; None where its name is free or its own place."""
        taken = _sameName(self.folder / folderName(package.name))
        return None if taken is None or taken.resolve() == package.path.resolve() else self._read(taken)

    def import_(self, source: str | Path, overwrite: bool = False) -> InstalledModel:
        """Check a package (every checksum) and copy it into the models folder.

        It is copied under a hidden name and renamed, so it is complete or not there at all.

        Args:
            source: package folder or zip, or a fine-tuning run with its model in it.
            overwrite: replace an installed model of the same folder name.

        Raises:
            EmimError: when it is no sound package, made for another task, is installed already, or cannot
                be copied.
        """
        package = read_package(source)
        if self._task is not None:
            package.card.require(self._task, source)
        target = self.folder / folderName(package.card.name)
        if target.exists() and target.resolve() == package.path.resolve():
            raise EmimError("This model is installed already.", target)
        taken = _sameName(target)
        if taken is not None and not overwrite:
            raise EmimError(
                f"A model named {package.card.name!r} is installed already.",
                taken,
                "Remove it first, or replace it.",
            )
        if taken is not None:
            self._check_removable(taken)
        try:
            self._copy(package.path, target, taken)
        except OSError as error:
            raise EmimError(
                f"The model could not be copied: {error.strerror or error}.",
                error.filename or self.folder,
                "Check the rights and the free space of the models folder, or choose another one.",
            ) from error
        return self._read(target)

    def remove(self, model: InstalledModel) -> None:
        """Delete an installed model.

        Raises:
            EmimError: when it does not lie in the models folder or is no model package.
        """
        self._check_removable(model.path)
        try:
            hidden = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.folder))
            try:
                os.replace(model.path, hidden / "model")  # whole or not at all; in use, Windows refuses
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
        except OSError as error:
            hint = "Close programs that use it, and check the rights of the folder."
            raise EmimError(f"The model cannot be removed: {error.strerror}.", model.path, hint) from error

    def _read(self, path: Path) -> InstalledModel:
        try:
            return replace(self.package(path), path=path)
        except EmimError as error:
            return InstalledModel(path, None, error)
        except Exception as error:  # a hostile file must not hide the other models
            problem = EmimError(f"The model package cannot be read: {error}.", path, "Remove it.")
            return InstalledModel(path, None, problem)

    def _usable(self, model: InstalledModel) -> InstalledModel:
        """``model``, with a problem when it is for another task."""
        if self._task is None:
            return model
        try:
            model.card.require(self._task, model.path)
        except EmimError as problem:
            return replace(model, problem=problem)
        return model

    def _check_removable(self, path: Path) -> None:
        inside = path.parent.resolve() == self.folder.resolve() and not path.is_symlink()
        if not inside or not _looksLikePackage(path):
            raise EmimError(
                "This is no model package in the models folder, so it is not removed.",
                path,
                "Remove it by hand if you are sure.",
            )

    def _copy(self, source: Path, target: Path, taken: Path | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f".import-{uuid.uuid4().hex[:8]}"
        work.mkdir()  # on Windows mkdtemp lets in nobody else, and what is moved out of it keeps that
        try:
            files = PackageFiles(source)
            for name in files.names:
                file = work / "model" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with files.open(name) as original, open(file, "wb") as copy:
                    shutil.copyfileobj(original, copy)
            read_package(work / "model")  # the copy is sound, not only the original
            if taken is not None:
                replace_file(taken, work / "replaced")
            try:
                replace_file(work / "model", target)
            except OSError:
                if taken is not None:
                    replace_file(work / "replaced", taken)
                raise
        finally:
            if taken is None or taken.exists() or target.exists():  # else the old model lies in it
                shutil.rmtree(work, ignore_errors=True)


def folderName(name: str, unique: bool = False) -> str:
    """``name`` as a folder name that every system allows; non-ASCII letters stay.

    Args:
        unique: other names give other folder names: what is changed gets a mark of the whole name.
    """
    text = FORBIDDEN.sub("_", name).strip(" .")[:80].strip(" .") or "model"
    text = f"_{text}" if RESERVED.fullmatch(text) else text
    return f"{text}-{zlib.crc32(name.encode()):08x}" if unique and text != name else text


def _looksLikePackage(path: Path) -> bool:
    """Whether the entry is meant to be a package, however damaged it may be."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return (path / "configs").is_dir() or (path / "checksums.json").exists()
    return path.suffix.lower() == ".zip" and path.is_file()


def _sameName(target: Path) -> Path | None:
    """What lies at ``target``, whatever the case of its name (systems differ in what they tell apart)."""
    entries: Iterable[Path] = target.parent.iterdir() if target.parent.is_dir() else ()
    return next((e for e in entries if e.name.casefold() == target.name.casefold()), None)
