"""Reading the label of a case: the only place where its voxels become the cohort's label values."""

from __future__ import annotations

import numpy as np

from emim.cohort.case import Case
from emim.volumes.grid import Grid
from emim.volumes.io import read_label_volume


def read_case_label(case: Case) -> tuple[np.ndarray, Grid]:
    """The label of a case that has one: its voxels (Z, Y, X), int16, in the cohort's values, and its grid.

    Raises:
        EmimError: as :func:`emim.volumes.io.read_label_volume`.
    """
    stored, grid = read_label_volume(case.label)
    label = stored.copy() if case.recode else stored
    for value, meant in case.recode.items():
        label[stored == value] = meant
    return label, grid
