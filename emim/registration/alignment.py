"""What rigid registration says about one image: where it belongs, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Alignment:
    """The rigid motion that brings a moving image to where the fixed image shows the same.

    Attributes:
        matrix_ras: (4, 4), RAS mm: from where the moving image's header puts a voxel to where it
            belongs. Slicer calls it "to parent". The identity where nothing was moved.
        translation_mm: distance by which the centre of the patient in the moving image is moved.
        rotation_deg: angle of the rotation.
        similarity_before, similarity_after: mutual information with the fixed image, in nats.
        warning: why the motion that was found is not applied, one sentence; else None.
    """

    matrix_ras: np.ndarray
    translation_mm: float
    rotation_deg: float
    similarity_before: float
    similarity_after: float
    warning: str | None = None

    @classmethod
    def of_motion(cls, motion_lps: np.ndarray, centre: np.ndarray, before: float, after: float) -> Alignment:
        """The alignment by ``motion_lps`` (4, 4) of an image that shows the patient around ``centre``."""
        rotation = motion_lps[:3, :3]
        shift = rotation @ centre + motion_lps[:3, 3] - centre
        cosine = min(1.0, max(-1.0, (float(np.trace(rotation)) - 1) / 2))
        return cls(
            LPS_TO_RAS @ motion_lps @ LPS_TO_RAS,
            float(np.linalg.norm(shift)),
            math.degrees(math.acos(cosine)),
            before,
            after,
        )

    @classmethod
    def none(cls, similarity: float, warning: str | None = None) -> Alignment:
        """The image stays where its header puts it."""
        return cls(np.eye(4), 0.0, 0.0, similarity, similarity, warning)

    @property
    def matrix_lps(self) -> np.ndarray:
        """``matrix_ras`` between LPS positions, as image files and :class:`Grid` hold them."""
        return LPS_TO_RAS @ self.matrix_ras @ LPS_TO_RAS

    def describe(self) -> str:
        """What was done, one sentence for a person."""
        if self.warning:
            return self.warning
        if not self.translation_mm and not self.rotation_deg:
            return "It lies in place."
        return (
            f"Moved by {self.translation_mm:.1f} mm and {self.rotation_deg:.1f}°; the mutual information "
            f"rose from {self.similarity_before:.3f} to {self.similarity_after:.3f}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For an event: numbers rounded to what they can mean, the matrix exact."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rounded = {name: round(v, 4) for name, v in fields.items() if isinstance(v, float)}
        return {**fields, **rounded, "matrix_ras": self.matrix_ras.tolist()}
