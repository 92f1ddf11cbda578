"""Classifying every case of a folder of files with one worker, unattended."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

from EMIMSegmentLib.batch_table import batchTable, rowMessage
from EMIMSegmentLib.folder_batch import FolderRun, whatHappened
from EMIMSegmentLib.measurements_table import fillTable, numberColumn, textColumn

FILE = "classes.csv"  # in the folder of the results


class ClassBatchRun(FolderRun):
    """The result is a CSV file in a folder, and a table in the scene.

    What is wrong with one case does not keep the others from being done.

    Args:
        source: folder of subject folders, or a datalist, as ``emim classify --cohort`` takes it.
        folder: where the table goes, as :data:`FILE`.

    Attributes:
        rows: dicts of ``case``, ``class`` (None where it failed), ``probabilities`` (class to probability),
            ``error``, ``where`` and ``hint``; all at once, when the worker is done.
        table: node with the rows; None before.
    """

    def __init__(
        self,
        source: str | Path,
        model,
        folder: str | Path,
        *,
        reference: str | None = None,
        device: str = "auto",
        overwrite: bool = False,
        onEvent=None,
        onFinished=None,
    ) -> None:
        super().__init__(
            "classify", source, model, Path(folder) / FILE, [],
            reference=reference, device=device, overwrite=overwrite, onEvent=onEvent, onFinished=onFinished,
        )  # fmt: skip
        self._results = Path(folder)

    def _load(self, result: dict) -> str:
        self.rows = [_row(case) for case in result["cases"]]
        self.table = batchTable(str(self._results), self._card)
        columns = [
            textColumn("Case", [row["case"] for row in self.rows]),
            textColumn("Class", [row["class"] or _("failed") for row in self.rows]),
        ]
        for name in self._card.classes:
            columns.append(numberColumn(name, [row["probabilities"].get(name) for row in self.rows], 4))
        columns.append(textColumn("Message", [rowMessage(row) for row in self.rows]))
        fillTable(self.table, columns)
        return self._summary()

    def _summary(self) -> str:
        done = len(self.rows) - len(self.failed)
        text = _("Classified {done} of {count} cases: {file}").format(
            done=done, count=len(self.rows), file=self._results / FILE
        )
        if self.failed:
            text += ". " + _("Failed: {names}.").format(names=", ".join(self.failed))
        return text


def _row(case: dict) -> dict:
    return {
        **whatHappened(case),
        "class": case.get("class"),
        "probabilities": case.get("probabilities") or {},
    }
