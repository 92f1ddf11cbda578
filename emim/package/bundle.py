"""Model packages: a MONAI Bundle with EMIM's model card in its metadata.

::

    configs/metadata.json    MONAI's metadata; the model card under "emim"
    configs/inference.json   network and inferer for MONAI's ConfigParser
    models/model.pt          weights, a plain state dict
    docs/README.md           the model card for a person
    LICENSE
    checksums.json           size and SHA-256 of every file above

Reading a card imports no torch, and nothing in a package is ever executed: weights are read with
``weights_only=True``.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.config import from_dict
from emim.errors import EmimError
from emim.folder_content import folder_content
from emim.package.archive import CHECKSUMS, METADATA, PackageFiles, checksums
from emim.package.metadata import CARD_VERSION, bundle_metadata, inference_config, readme
from emim.package.model import ModelCard
from emim.replace import replace_folder

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "models/model.pt"


@dataclass(frozen=True)
class Package:
    """A model package that has been read and found sound.

    Attributes:
        path: the folder or zip it is in.
        card: what the model is.
    """

    path: Path
    card: ModelCard

    def load_state(self) -> dict[str, Tensor]:
        """The weights on the CPU, for the network of :func:`emim.package.network.build_network`.

        Raises:
            EmimError: when the file holds anything but finite tensors of the names and shapes that
                the card's network has.
        """
        import torch

        with PackageFiles(self.path).bytes_of(WEIGHTS) as file:
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # unpickling broken or hostile bytes may raise anything
                raise EmimError(
                    "The weights were refused: the file is damaged or holds more than plain tensors.",
                    f"{self.path}: {WEIGHTS}",
                    "Do not use this package unless you can get it again from someone you trust.",
                ) from error
        _check_state(state, self.card, f"{self.path}: {WEIGHTS}")
        return state


def read_card(path: str | Path) -> ModelCard:
    """The model card alone, without reading the weights: for lists of models.

    Raises:
        EmimError: when this is not a package, or its card is damaged, incomplete or too new.
    """
    return _card(PackageFiles(path))


def read_package(path: str | Path) -> Package:
    """Read a package folder or zip and verify every file in it. Imports no torch.

    Raises:
        EmimError: when it is not a package, a file is missing, truncated or changed, a name in it
            points outside, or its card is incomplete, contradictory or of a newer version.
    """
    files = PackageFiles(path)
    files.verify()
    if WEIGHTS not in files.names:
        raise EmimError(f"The model package lacks {WEIGHTS}.", path, "Copy or download the package again.")
    return Package(files.path, _card(files))


def write_package(
    path: str | Path, card: ModelCard, state: Mapping[str, Tensor], overwrite: bool = False
) -> Path:
    """Write a package as a folder, or as a zip when ``path`` ends in ``.zip``. Returns its path.

    It is built under a temporary name and renamed, so it is complete or not there at all; a package that
    cannot be replaced stays.

    Raises:
        EmimError: when ``path`` exists and ``overwrite`` is false or what exists is no package, or
            when card and weights do not fit each other.
        OSError: when it cannot be written or put in its place.
    """
    path = Path(path)
    _check_free(path, overwrite)
    card.check()
    _check_state(dict(state), card, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    work.mkdir()  # on Windows mkdtemp lets in nobody else, and what is moved out of it keeps that
    try:
        folder = work / path.name.removesuffix(".zip")
        _write_files(folder, card, state)
        new = _zipped(folder) if path.suffix == ".zip" else folder
        replace_folder(new, path, aside=work / "replaced")
    finally:
        if path.exists() or not (work / "replaced").exists():  # else the old package lies in it
            shutil.rmtree(work, ignore_errors=True)
    return path


def _write_files(folder: Path, card: ModelCard, state: Mapping[str, Tensor]) -> None:
    import torch

    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True)
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    torch.save(plain, folder / WEIGHTS)
    _write_json(folder / METADATA, bundle_metadata(card))
    _write_json(folder / "configs/inference.json", inference_config(card))
    (folder / "docs/README.md").write_text(readme(card), encoding="utf-8")
    (folder / "LICENSE").write_text(card.licence.rstrip() + "\n", encoding="utf-8")
    _write_json(folder / CHECKSUMS, checksums(folder))


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _zipped(folder: Path) -> Path:
    target = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return target


def _check_free(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise EmimError("The model package exists already.", path, "Choose another name, or overwrite it.")
    if path.is_dir() and not folder_content(path):
        return
    hint = "Choose another name."
    try:
        files = PackageFiles(path)
    except EmimError as error:
        what = "What is there is no model package, so it is not overwritten."
        raise EmimError(what, path, hint) from error
    if files.path != path:
        raise EmimError("What is there is a run folder, so it is not overwritten.", path, hint)


def _card(files: PackageFiles) -> ModelCard:
    where = f"{files.path}: {METADATA}"
    data = files.json(METADATA).get("emim")
    if not isinstance(data, dict) or not isinstance(data.get("card_version"), int):
        raise EmimError(
            "This is a MONAI Bundle, but not one that EMIM wrote.",
            where,
            "EMIM needs its own description of modalities and structures (key 'emim').",
        )
    if data["card_version"] > CARD_VERSION:
        raise EmimError(
            f"The model package has version {data['card_version']}; this EMIM knows up to {CARD_VERSION}.",
            where,
            "Update EMIM.",
        )
    try:
        card = from_dict(ModelCard, {k: v for k, v in data.items() if k != "card_version"})
    except EmimError as error:
        raise EmimError(f"The model description is damaged: {error.what}", where, error.hint) from error
    card.check(where)
    return card


def _check_state(state: Any, card: ModelCard, where: str) -> None:
    """Refuse weights that are not exactly those of the card's network."""
    import torch

    from emim.package.network import build_network

    hint = "The weights belong to another model; get the package again from its author."
    plain = isinstance(state, dict) and all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    )
    if not plain:
        raise EmimError("The weights are not a plain dictionary of tensors.", where, hint)
    with torch.device("meta"):  # shapes only: no memory, no random numbers drawn
        expected = build_network(card).state_dict()
    for name in [*expected, *state]:
        if name not in state or name not in expected:
            kind = "lack" if name not in state else "have a surplus"
            raise EmimError(f"The weights {kind} tensor {name!r}.", where, hint)
        if state[name].shape != expected[name].shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            raise EmimError(f"The tensor {name!r} has shape {shapes}.", where, hint)
        if not torch.isfinite(state[name]).all():
            what = f"The tensor {name!r} holds values that are not finite."
            raise EmimError(what, where, "The training failed; train again at a lower learning rate.")
