"""Segmenting examinations that are loaded in the scene, one after the other, unattended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from EMIMLib import Cancelled, EmimError
from EMIMSegmentLib.batch_table import describeRows, updateBatchTable
from EMIMSegmentLib.export_result import exportResult
from EMIMSegmentLib.guessing import Study
from EMIMSegmentLib.result_nodes import modelName
from EMIMSegmentLib.segmentation_run import SegmentationRun, measurementsOf
from EMIMSegmentLib.worker_run import CANCELLED, FINISHED, PREPARING, RUNNING

CASE = "EMIM.BatchCase"  # attribute of a segmentation that a batch made: the case


class StudyBatchRun:
    """Has the face of a :class:`EMIMSegmentLib.worker_run.WorkerRun`.

    What is wrong with one case does not keep the others from being done. Cancelling keeps the cases that
    are done. Segmentations of an earlier batch are replaced.

    Args:
        studies: :class:`Study`, or dicts of modality to volume node.
        makeRun: makes the run of one case from its inputs; takes outputSegmentation, onEvent, onFinished.
        folder: results are also written there, one ``.nii.gz`` a case; None: only to the scene.
        overwrite: replace files from an earlier batch.

    Attributes:
        rows: see :mod:`EMIMSegmentLib.batch_table`; each comes when its case is done.
        table: node with the rows; None before the end.
    """

    def __init__(
        self,
        studies: list,
        card,
        makeRun: Callable[..., SegmentationRun],
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        onEvent=None,
        onFinished=None,
    ) -> None:
        if not studies:
            raise EmimError(
                _("There is no examination to segment."),
                hint=_("Load volumes whose names tell the modality, or choose a folder."),
            )
        self.state = PREPARING
        self.error: EmimError | None = None
        self.sceneClosed = False
        self.result: dict = {}
        self.rows: list[dict] = []
        self.table = None
        self.summary = ""
        self.log = ""
        self._cases = [_Case(name, inputs) for name, inputs in _named(studies)]
        self._count = len(self._cases)
        self._card = card
        self._makeRun = makeRun
        self._folder = None if folder is None else Path(folder)
        self._overwrite = overwrite
        self._onEvent = onEvent
        self._onFinished = onFinished
        self._run: SegmentationRun | None = None
        self._case: _Case | None = None
        self._background = False
        self._cancelRequested = False
        if self._folder is not None:
            self._checkFolder()

    @property
    def running(self) -> bool:
        return self.state in (PREPARING, RUNNING)

    @property
    def cancelled(self) -> bool:
        return self.state == CANCELLED

    @property
    def failed(self) -> list[str]:
        """Cases that were not segmented."""
        return [row["case"] for row in self.rows if row["error"]]

    def start(self, background: bool) -> None:
        """Start; ``background`` returns at once, and the event loop does the rest."""
        self._background = background
        self.state = RUNNING
        self._next()

    def cancel(self) -> None:
        """Stop the case that is running and do no further one."""
        self._cancelRequested = True
        if self._run is not None:
            self._run.cancel()

    def wait(self) -> None:
        """Keep the application alive until the batch has ended.

        Raises:
            Cancelled: when it was cancelled.
        """
        while self.running:
            run = self._run
            with contextlib.suppress(EmimError, Cancelled):  # kept by the run
                run.wait()
            if run.running:  # the application quits
                break
        if self.state != FINISHED:
            raise Cancelled(_("The scene was closed.") if self.sceneClosed else _("Cancelled."))

    def _next(self) -> None:
        while self._cases and not self._cancelRequested:
            self._case = self._cases.pop(0)
            number = self._count - len(self._cases)
            text = _("Case {number} of {count}: {name}")
            self._say(
                {
                    "type": "status",
                    "time": time.time(),
                    "text": text.format(number=number, count=self._count, name=self._case.name),
                }
            )
            try:
                self._startRun()
            except EmimError as error:
                self.rows.append(_row(self._case.name, error))
                continue
            if self._background:
                return
            with contextlib.suppress(EmimError, Cancelled):  # kept by the run
                self._run.wait()
            self._take(self._run)
        self._end()

    def _startRun(self) -> None:
        inputs = {m: slicer.mrmlScene.GetNodeByID(i) for m, i in self._case.nodeIDs.items()}
        self._run = self._makeRun(
            {m: node for m, node in inputs.items() if node is not None},
            outputSegmentation=_earlier(self._case.name, self._card),
            onEvent=self._say,
            onFinished=self._onRunFinished if self._background else None,
        )
        self._run.start(self._background)

    def _onRunFinished(self, run: SegmentationRun) -> None:
        self._take(run)
        self._next()

    def _take(self, run: SegmentationRun) -> None:
        self.log += run.log
        if run.cancelled:
            self._cancelRequested = True
            self.sceneClosed = run.sceneClosed
            return
        if run.error is not None:
            self.rows.append(_row(self._case.name, run.error))
            return
        name = self._case.name
        run.segmentation.SetAttribute(CASE, name)
        run.segmentation.GetDisplayNode().SetVisibility(False)  # or all patients' results lie over each other
        volumes = {m["structure"]: m["volume_ml"] for m in measurementsOf(run.result)}
        row = {**_row(name), "volumes_ml": volumes, "segmentation": run.segmentation.GetID()}
        self.rows.append(row)
        if self._folder is not None:
            try:
                row["output"] = str(exportResult(run.segmentation, self._file(name)))
            except EmimError as error:
                row.update(error=error.what, where=error.where, hint=error.hint)

    def _end(self) -> None:
        if self.rows and not self.sceneClosed:
            self.table = updateBatchTable(str(self._folder or _("loaded volumes")), self._card, self.rows)
        self.summary = describeRows(self.rows)
        self.state = CANCELLED if self._cancelRequested else FINISHED
        if self._onFinished is not None:
            self._onFinished(self)

    def _say(self, event: dict) -> None:
        if self._onEvent is not None:
            self._onEvent({**event, "case": self._case.name})

    def _file(self, case: str) -> Path:
        safe = "".join("_" if c in '<>:"/\\|?*' or ord(c) < 32 else c for c in case).strip(" .")
        return self._folder / f"{safe or 'case'}.nii.gz"

    def _checkFolder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmimError(
                _("The folder cannot be made: {error}.").format(error=error.strerror),
                self._folder,
                _("Choose another folder."),
            ) from error
        existing = [self._file(case.name) for case in self._cases if self._file(case.name).exists()]
        if existing and not self._overwrite:
            raise EmimError(
                _("There are results in the folder already."),
                existing[0],
                _("Choose another folder, or let them be overwritten."),
            )


class _Case:
    def __init__(self, name: str, inputs: dict) -> None:
        self.name = name
        self.nodeIDs = {m: node.GetID() for m, node in inputs.items() if node is not None}


def _named(studies: list) -> list[tuple[str, dict]]:
    """Case name, unique, and inputs of each study."""
    named: list[tuple[str, dict]] = []
    for study in studies:
        if isinstance(study, Study):
            name, inputs = study.name, study.inputs
        else:
            inputs = study
            name = next((node.GetName() for node in inputs.values() if node is not None), _("case"))
        taken = [n for n, _inputs in named]
        unique, i = name, 2
        while unique in taken:
            unique, i = f"{name} ({i})", i + 1
        named.append((unique, inputs))
    return named


def _earlier(case: str, card):
    """The segmentation that an earlier batch made of this case with this model, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(CASE) == case and modelName(node) == card.name:
            return node
    return None


def _row(case: str, error: EmimError | None = None) -> dict:
    return {
        "case": case,
        "error": error.what if error else None,
        "where": error.where if error else None,
        "hint": error.hint if error else None,
        "volumes_ml": {},
        "output": None,
        "segmentation": None,
    }
