"""Every case of a folder of files, segmented or classified by one worker, unattended."""

from __future__ import annotations

import bisect
import json
from pathlib import Path

from EMIMLib import EmimError
from EMIMLib.pattern_arguments import patternArguments
from EMIMSegmentLib.batch_table import describeRows, updateBatchTable
from EMIMSegmentLib.worker_run import WorkerRun


class FolderRun(WorkerRun):
    """A command of the core for all cases of a folder; the results are files, and a table in the scene.

    Args:
        command: ``segment`` or ``classify``.
        source: folder of subject folders, or a datalist, as ``--cohort`` takes it.
        output: what the command is told to write.
        options: those that not every such command has.
        reference, device, overwrite, onEvent, onFinished: as :meth:`EMIMSegmentLogic.batch` takes them.

    Attributes:
        rows: dicts with ``case``, ``error``, ``where`` and ``hint``, among others, by name; each comes when
            its case has ended.
        table: node with the rows; None before.
    """

    def __init__(
        self,
        command: str,
        source: str | Path,
        model,
        output: str | Path,
        options: list[str],
        *,
        reference: str | None,
        device: str,
        overwrite: bool,
        onEvent,
        onFinished,
    ) -> None:
        super().__init__(onEvent, onFinished)
        self.rows: list[dict] = []
        self.table = None
        self._card = model.card
        self._arguments = [command, "--model", str(model.path), "--cohort", str(source)]
        self._arguments += ["--output", str(output), "--device", device, *options]
        self._arguments += ["--reference", reference] if reference else []
        self._arguments += ["--overwrite"] if overwrite else []
        self._arguments += patternArguments(model.card)

    @property
    def failed(self) -> list[str]:
        """Cases of which there is no result."""
        return [row["case"] for row in self.rows if row["error"]]

    def _prepare(self, folder: Path) -> list[str]:
        return self._arguments

    def _observeScene(self) -> None:
        """From files to files: closing the scene for another patient stops nothing."""

    def _say(self, event: dict) -> None:
        if event.get("type") == "case":
            bisect.insort(self.rows, self._row(event), key=lambda row: row["case"])
        super()._say(event)

    def _row(self, case: dict) -> dict:
        """The row of what the core tells of a case."""
        raise NotImplementedError

    def _judge(self, error: EmimError) -> EmimError | None:
        return error if self._worker.result is None else None  # the rows say which cases failed


class FolderBatchRun(FolderRun):
    """Segments each case.

    What is wrong with one case does not keep the others from being done. Cases that an earlier batch with the
    same model and settings has done into the same folder are left as they are, unless ``overwrite``.

    Args:
        source: folder of subject folders, or a datalist, as ``emim segment --cohort`` takes it.
        folder: where the results go.
        extension: of the segmentations, as ``emim segment`` takes it.
        shared: the rest of what :class:`FolderRun` takes.

    Attributes:
        rows: see :mod:`EMIMSegmentLib.batch_table`.
        table: node with the rows; None before.
    """

    def __init__(
        self,
        source: str | Path,
        model,
        folder: str | Path,
        *,
        quality: str,
        probabilities: bool,
        extension: str,
        **shared,
    ) -> None:
        options = ["--quality", quality, "--extension", extension]
        options += ["--probabilities"] if probabilities else []
        options += [] if shared["overwrite"] else ["--resume"]
        super().__init__("segment", source, model, folder, options, **shared)
        self._results = Path(folder)

    def _load(self, result: dict) -> str:
        summary = json.loads((self._results / "summary.json").read_text(encoding="utf-8"))
        asked = set(result["cases"])  # the summary tells of all that lies in the folder
        self.rows = [self._row(case) for case in summary["cases"] if case["case"] in asked]
        self.table = updateBatchTable(str(self._results), self._card, self.rows)
        return describeRows(self.rows)

    def _row(self, case: dict) -> dict:
        return {
            **whatHappened(case),
            "volumes_ml": case.get("volumes_ml") or {},
            "output": case.get("output"),
            "segmentation": None,
            "result": case,
        }


def whatHappened(case: dict) -> dict:
    """What the core says of any case: its name, its files, and why it failed."""
    error = case.get("error") or {}
    return {
        "case": case["case"],
        "error": error.get("what"),
        "where": error.get("where"),
        "hint": error.get("hint"),
        "files": case.get("inputs") or {},
    }
