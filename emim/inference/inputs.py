"""Which file is which modality, and whether the files can be used together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emim.errors import EmimError
from emim.package.model import ModelCard
from emim.volumes.grid import Grid
from emim.volumes.integrity import nifti_problem
from emim.volumes.io import read_header


def match_inputs(
    card: ModelCard, inputs: Mapping[str, str | Path], ignore_others: bool = False
) -> dict[str, str]:
    """Assign files to the model's modalities by name; upper and lower case are the same.

    Args:
        inputs: modality name to file.
        ignore_others: leave out modalities the model does not know, instead of refusing them.

    Returns:
        modality, as the model writes it, to absolute path, in the order given; missing ones absent.

    Raises:
        EmimError: for a modality that is unknown, given twice or missing without being optional, and
            for one file given as two modalities.
    """
    known = {m.casefold(): m for m in card.modalities}
    takes = f"The model takes: {', '.join(card.modalities)}."
    images: dict[str, str] = {}
    for name, path in inputs.items():
        modality = known.get(name.strip().casefold())
        if modality is None:
            if ignore_others:
                continue
            raise EmimError(f"The model has no input called {name!r}.", path, takes)
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


def choose_reference(card: ModelCard, images: Mapping[str, str], reference: str | None = None) -> str:
    """The modality whose grid the result gets: as asked for, else the model's own, else the first.

    Raises:
        EmimError: when the modality asked for is not among ``images``.
    """
    if reference is None:
        own = card.preprocess.reference
        return own if own in images else next(iter(images))
    for modality in images:
        if modality.casefold() == reference.strip().casefold():
            return modality
    hint = f"Choose one of: {', '.join(images)}."
    raise EmimError(f"There is no input {reference!r} that could be the reference.", hint=hint)


def check_files(images: Mapping[str, str], reference: str) -> None:
    """Refuse files that cannot be read, are cut short or not finite, or lie beside the reference.

    Raises:
        EmimError: naming the file.
    """
    grid = read_header(images[reference]).grid
    for modality, path in images.items():
        other = read_header(path).grid
        if path.lower().endswith((".nii", ".nii.gz")) and (problem := nifti_problem(path)):
            hint = "Copy, download or export it again."
            raise EmimError(f"The image cannot be used: {problem}.", path, hint)
        if not overlap(grid, other):
            raise EmimError(
                f"{modality} does not overlap in space with the reference {reference}.",
                path,
                "The files belong to different patients or coordinate systems; register them first.",
            )


def overlap(first: Grid, second: Grid) -> bool:
    """Whether the boxes of two grids share space; boxes that only just miss may count as sharing."""
    for one, other in ((first, second), (second, first)):  # separating axes: those of either box
        corners = one.index(other.position(other.corners()))
        if (corners.max(0) < -0.5).any() or (corners.min(0) > np.array(one.size) - 0.5).any():
            return False
    return True


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
