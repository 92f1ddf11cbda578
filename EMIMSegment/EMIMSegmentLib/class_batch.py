"""Classifying every case of a folder of files with one worker, unattended."""

from __future__ import annotations

from pathlib import Path

from EMIMSegmentLib.class_batch_table import FILE, describeClasses, updateClassBatchTable
from EMIMSegmentLib.folder_batch import FolderRun, whatHappened


class ClassBatchRun(FolderRun):
    """The result is a CSV file in a folder, and a table in the scene.

    What is wrong with one case does not keep the others from being done.

    Args:
        source: folder of subject folders, or a datalist, as ``emim classify --cohort`` takes it.
        folder: where the table goes, as :data:`FILE`.
        shared: the rest of what :class:`FolderRun` takes.

    Attributes:
        rows: see :mod:`EMIMSegmentLib.class_batch_table`.
        table: node with the rows; None before.
    """

    def __init__(self, source: str | Path, model, folder: str | Path, **shared) -> None:
        super().__init__("classify", source, model, Path(folder) / FILE, [], **shared)
        self._results = Path(folder)

    def _load(self, result: dict) -> str:
        self.rows = [self._row(case) for case in result["cases"]]
        self.table = updateClassBatchTable(str(self._results), self._card, self.rows)
        return describeClasses(self.rows, self._results)

    def _row(self, case: dict) -> dict:
        return {
            **whatHappened(case),
            "class": case.get("class"),
            "probabilities": case.get("probabilities") or {},
        }
