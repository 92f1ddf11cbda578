"""From z-scores back to the intensities of an example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emim.errors import EmimError
from emim.volumes.foreground import find_foreground
from emim.volumes.io import read_stored
from emim.volumes.preprocess import robust_statistics


@dataclass(frozen=True)
class Intensities:
    """The scale of an image.

    Attributes:
        mean, deviation: of its foreground, as z-scores are computed from them.
        darkest: its lowest value.
        air: its value where there is no patient: the fill of a stripped image, else the lowest.
    """

    mean: float
    deviation: float
    darkest: float
    air: float

    @classmethod
    def of(cls, path: str | Path) -> Intensities:
        """The scale of the image file ``path``.

        Raises:
            EmimError: when it cannot be read or shows nothing.
        """
        values, _ = read_stored(path)
        if values.dtype.kind == "f" or values.dtype.itemsize > 2:
            values = values.astype(np.float32, copy=False)
        found = find_foreground(values)
        mask = found.mask
        mean, deviation = robust_statistics(values[mask].astype(np.float32)) if mask.any() else (0.0, 0.0)
        if deviation <= 0:
            raise EmimError("The example shows nothing but background.", path, "Give another image.")
        darkest = float(values.min())
        return cls(mean, deviation, darkest, darkest if found.fill is None else float(found.fill))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """The intensities of z-scores; none is darker than the example's darkest."""
        return np.maximum(scores * np.float32(self.deviation) + np.float32(self.mean), self.darkest)
