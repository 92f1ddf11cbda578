"""Rigid alignment of the images of one examination to one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from emim.errors import EmimError
from emim.events import Events
from emim.inference.outputs import check_writable, write_atomically
from emim.registration.alignment import Alignment


def register(
    fixed: str | Path,
    moving: Mapping[str, str | Path],
    events: Events | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Alignment]:
    """Align each of the ``moving`` image files, by name, to the image file ``fixed``.

    No file is changed and no voxel interpolated. An image for which nothing better is found than its
    place stays there; its alignment and a warning event say why.

    Raises:
        EmimError: for a file that cannot be used.
        Cancelled: when ``should_stop``, asked between the steps, said so.
    """
    from emim.registration.pyramid import read_pyramid
    from emim.registration.rigid import align

    events = events or Events()
    events.progress(0, len(moving), "image", "reading")
    target = read_pyramid(fixed)
    alignments = {}
    for done, (name, path) in enumerate(moving.items(), 1):
        found = alignments[name] = align(target, read_pyramid(path), should_stop)
        events.progress(done, len(moving), "image", name)
        if found.warning:
            events.warning(f"{name} was not aligned. {found.warning}", path, "Compare the images by eye.")
        else:
            events.status(f"{name}: {found.describe()}")
    return alignments


def plan_transforms(folder: str | Path, names: Iterable[str], overwrite: bool) -> dict[str, Path]:
    """The file in ``folder`` that the transform of each name goes to.

    Raises:
        EmimError: when one exists and ``overwrite`` is not set, or nothing can be written there.
    """
    folder = Path(folder).absolute()
    files = {name: folder / (re.sub(r"[^\w-]+", "_", name) + ".tfm") for name in names}
    if len(set(files.values())) < len(files):
        raise EmimError("Two names would give one file.", folder, "Use names of letters and digits.")
    check_writable(files.values(), [], overwrite)
    return files


def write_transform(alignment: Alignment, path: Path) -> None:
    """Write an ITK transform file; 3D Slicer loads it as ``alignment.matrix_ras``.

    ITK's convention is that of resampling: from fixed to moving points, in LPS mm.
    """
    import numpy as np
    import SimpleITK as sitk

    inverse = np.linalg.inv(alignment.matrix_lps)
    transform = sitk.AffineTransform(inverse[:3, :3].ravel().tolist(), inverse[:3, 3].tolist())
    write_atomically(path, lambda p: sitk.WriteTransform(transform, str(p)))
