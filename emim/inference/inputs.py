"""Which file is which modality, and whether the files can be used together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from emim.cohort.patterns import canonical
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.volumes.grid import Grid
from emim.volumes.io import read_header, read_stored

# Fewer different values than any MRI has, whatever its number of bits.
FEW_VALUES = 8


class Takes(Protocol):
    """What takes images: a model package's card, or a pre-training run."""

    modalities: tuple[str, ...]
    optional: tuple[str, ...]
    preprocess: PreprocessConfig


def modality_called(card: Takes, name: str) -> str | None:
    """The model's modality of this name, whatever its case, or of another usual one for it; None: of none."""
    known = {canonical(m).casefold(): m for m in card.modalities} | {m.casefold(): m for m in card.modalities}
    name = name.strip()
    return known.get(name.casefold()) or known.get(canonical(name).casefold())


def match_inputs(
    card: Takes, inputs: Mapping[str, str | Path], ignore_others: bool = False
) -> dict[str, str]:
    """Assign files to the model's modalities by name, whatever its case, or by another usual name.

    Args:
        inputs: modality name to file.
        ignore_others: leave out modalities the model does not know, instead of refusing them.

    Returns:
        modality, as the model writes it, to absolute path, in the order given; missing ones absent.

    Raises:
        EmimError: for a modality that is unknown, given twice or missing without being optional, and
            for one file given as two modalities.
    """
    takes = f"The model takes: {', '.join(card.modalities)}."
    images: dict[str, str] = {}
    for name, path in inputs.items():
        modality = modality_called(card, name)
        if modality is None:
            if ignore_others:
                continue
            raise EmimError(f"The model has no input called {name.strip()!r}.", path, takes)
        if modality in images:
            raise EmimError(f"Two files are given for {modality}.", path, "Give one file per modality.")
        images[modality] = str(Path(path).absolute())
    _refuse_same_file(images)
    missing = [m for m in card.modalities if m not in images]
    needed = [m for m in missing if m not in card.optional]
    if needed or not images:
        can = f"It can do without: {', '.join(card.optional)}." if card.optional else "It needs all of them."
        if not needed:
            can = "Give at least one."
        raise EmimError(f"The model needs {', '.join(needed or missing)}.", hint=f"{takes} {can}")
    return images


def choose_reference(card: Takes, images: Mapping[str, str], reference: str | None = None) -> str:
    """The modality whose grid the result gets: as asked for, else the model's own, else the first.

    Raises:
        EmimError: when the modality asked for is not among ``images``.
    """
    if reference is None:
        own = card.preprocess.reference
        return own if own in images else next(iter(images))
    if (modality := modality_called(card, reference)) in images:
        return modality
    hint = f"Choose one of: {', '.join(images)}."
    raise EmimError(f"There is no input {reference!r} that could be the reference.", hint=hint)


def check_files(images: Mapping[str, str], reference: str, will_align: bool = False) -> None:
    """Refuse what would give a segmentation of something else than was meant.

    Files that cannot be read, are cut short or not finite; label maps; one image given as two
    modalities; images that lie beside the reference, unless they ``will_align``.

    Raises:
        EmimError: naming the file.
    """
    grid = read_header(images[reference]).grid
    for modality, path in images.items():
        if not will_align and not overlap(grid, read_header(path).grid):
            raise EmimError(
                f"{modality} does not overlap in space with the reference {reference}.",
                path,
                "The files belong to different patients or coordinate systems; register them first.",
            )
    seen: dict[bytes, str] = {}
    for modality, path in images.items():
        digest = _digest_of_image(path)
        if digest in seen:
            raise EmimError(
                f"{modality} is a copy of {seen[digest]}: every voxel is the same.",
                path,
                "Give each modality its own image; leave out one that is missing.",
            )
        seen[digest] = modality


def describe_grids(images: Mapping[str, str], reference: str) -> str | None:
    """Which inputs lie on different grids, a sentence for the user; None where all lie on one."""
    groups: list[tuple[Grid, list[str]]] = []
    for modality, path in images.items():
        grid = read_header(path).grid.oriented()
        for other, names in groups:
            if grid.is_same(other):
                names.append(modality)
                break
        else:
            groups.append((grid, [modality]))
    if len(groups) == 1:
        return None
    listed = "; ".join(", ".join(names) for _, names in groups)
    return f"The inputs lie on {len(groups)} different grids ({listed}); the result has that of {reference}."


def overlap(first: Grid, second: Grid) -> bool:
    """Whether the boxes of two grids share space; boxes that only just miss may count as sharing."""
    for one, other in ((first, second), (second, first)):  # separating axes: those of either box
        corners = one.index(other.position(other.corners()))
        if (corners.max(0) < -0.5).any() or (corners.min(0) > np.array(one.size) - 0.5).any():
            return False
    return True


def _digest_of_image(path: str) -> bytes:
    """What tells the voxels of an image from all others; the file must not be a label map."""
    voxels, _ = read_stored(path)
    # A part of the voxels tells an image at once, without sorting millions.
    for part in (voxels.ravel()[: 2 * FEW_VALUES], voxels.ravel()[:: max(1, voxels.size // 10_000)], voxels):
        values = np.unique(part)
        if len(values) >= FEW_VALUES:
            break
    if len(values) < FEW_VALUES and (values == np.rint(values)).all():
        raise EmimError(
            f"The file holds only {len(values)} different whole numbers, as a label map does.",
            path,
            "Give the image itself, not a segmentation or mask of it.",
        )
    return hashlib.sha1(voxels, usedforsecurity=False).digest()


def _refuse_same_file(images: Mapping[str, str]) -> None:
    seen: dict[Path, str] = {}
    for modality, path in images.items():
        real = Path(path).resolve()
        if real in seen:
            raise EmimError(
                f"{seen[real]} and {modality} are the same file.",
                path,
                "Give each modality its own file; leave out one that is missing.",
            )
        seen[real] = modality
