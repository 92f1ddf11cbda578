"""A cohort of synthetic heads to practise on, without anybody's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .core_task import CoreTask


class PracticeRun(CoreTask):
    """Makes synthetic subjects, half of them with labels.

    Args:
        folder: new, or an earlier practice cohort, which is replaced.
        subjects: how many.
        spacing: voxel size in mm; larger is faster.
    """

    def __init__(
        self,
        folder: str | Path,
        subjects: int = 12,
        spacing: float = 4.0,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[PracticeRun], None] | None = None,
    ) -> None:
        self.folder = Path(folder)
        super().__init__(
            ["phantom", "--out", str(folder), "--subjects", str(subjects), "--spacing", str(spacing),
             "--overwrite"],
            onEvent,
            onFinished,
        )  # fmt: skip

    def answer(self) -> Path:
        return self.folder
