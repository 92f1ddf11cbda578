"""Examinations that are loaded in the scene, segmented or classified one after the other, unattended."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import slicer
from slicer.i18n import tr as _

from EMIMLib import Cancelled, EmimError
from EMIMLib.guessing import Study
from EMIMLib.models import folderName
from EMIMSegmentLib.batch_table import describeRows, updateBatchTable
from EMIMSegmentLib.case_run import CaseRun
from EMIMSegmentLib.class_batch_table import FILE, describeClasses, updateClassBatchTable, writeClasses
from EMIMSegmentLib.export_result import exportResult, refuseOtherFormat
from EMIMSegmentLib.measured_content import holdsOwnWork
from EMIMSegmentLib.result_nodes import classifiedVolume, isMadeBy, referenceVolume
from EMIMSegmentLib.segmentation_run import measurementsOf
from EMIMSegmentLib.worker_run import CANCELLED, FAILED, FINISHED, PREPARING, RUNNING

CASE = "EMIM.BatchCase"  # attribute of a node that a batch made: the name of the case, never its title


class StudyRun:
    """Has the face of a :class:`EMIMSegmentLib.worker_run.WorkerRun`.

    What is wrong with one case does not keep the others from being done. Cancelling keeps the cases that
    are done.

    Args:
        studies: :class:`Study`, or dicts of modality to volume node.
        model: the :class:`EMIMLib.models.InstalledModel`.
        makeRun: makes the run of one case from its inputs, what :meth:`_again` says, onEvent and onFinished.
        folder: results are also written there; None: only to the scene.
        overwrite: replace what an earlier batch has made of the same volumes, in the scene and in files; a
            segmentation in the scene that was corrected by hand is kept beside the new one.

    Attributes:
        rows: dicts with ``case``, ``title``, ``error``, ``where`` and ``hint``, among others; each comes when
            its case is done.
        table: node with the rows; None before the end.
    """

    NOTHING: ClassVar[dict] = {}  # what a row has besides, where the case failed

    def __init__(
        self,
        studies: list,
        model,
        makeRun: Callable[..., CaseRun],
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        onEvent=None,
        onFinished=None,
    ) -> None:
        if not studies:
            raise EmimError(
                _("There is no examination."),
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
        self._cases = _named(studies)
        self._count = len(self._cases)
        self._model, self._card = model, model.card
        self._makeRun = makeRun
        self._folder = None if folder is None else Path(folder)
        self._overwrite = overwrite
        self._onEvent = onEvent
        self._onFinished = onFinished
        self._run: CaseRun | None = None
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
        """Cases of which there is no result."""
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
            EmimError: when the table of all cases could not be written.
        """
        while self.running:
            run = self._run
            with contextlib.suppress(EmimError, Cancelled):  # kept by the run
                run.wait()
            if run.running:  # the application quits
                break
        if self.error is not None:
            raise self.error
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
            except Exception as error:
                self.rows.append(self._row(_told(error)))
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
            **self._again(),
            onEvent=self._say,
            onFinished=self._onRunFinished if self._background else None,
        )
        self._run.start(self._background)

    def _onRunFinished(self, run: CaseRun) -> None:
        self._take(run)
        self._next()

    def _take(self, run: CaseRun) -> None:
        self.log += run.log
        if run.cancelled:
            self._cancelRequested = True
            self.sceneClosed = run.sceneClosed
        elif run.error is not None:
            self.rows.append(self._row(run.error))
        else:
            try:
                self.rows.append(self._found(run))
            except Exception as error:
                self.rows.append(self._row(_told(error)))

    def _end(self) -> None:
        self.state = CANCELLED if self._cancelRequested else FINISHED
        if self.rows and not self.sceneClosed:
            try:
                self.summary = self._conclude(str(self._folder or _("loaded volumes")))
            except EmimError as error:
                self.error, self.state = error, FAILED
        if self._onFinished is not None:
            self._onFinished(self)

    def _row(self, error: EmimError | None = None, **found) -> dict:
        return {
            "case": self._case.name,
            "title": self._case.title,
            "error": error.what if error else None,
            "where": error.where if error else None,
            "hint": error.hint if error else None,
            "nodes": self._case.nodeIDs,
            **self.NOTHING,
            **found,
        }

    def _earlier(self, kind: str, volumeOf: Callable) -> list:
        """The nodes that earlier batches made of these volumes with this version of the model."""
        volumes, earlier = set(self._case.nodeIDs.values()), []
        for node in slicer.util.getNodesByClass(kind):
            volume = volumeOf(node)
            made = node.GetAttribute(CASE) is not None and isMadeBy(node, self._model)
            if made and volume is not None and volume.GetID() in volumes:
                earlier.append(node)
        return earlier

    def _say(self, event: dict) -> None:
        if self._onEvent is not None:
            self._onEvent({**event, "case": self._case.name})

    def _checkFolder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmimError(
                _("The folder cannot be made: {error}.").format(error=error.strerror),
                self._folder,
                _("Choose another folder."),
            ) from error
        existing = [file for file in self._files() if file.exists()]
        if existing and not self._overwrite:
            raise EmimError(
                _("There are results in the folder already."),
                existing[0],
                _("Choose another folder, or let them be overwritten."),
            )

    # What a kind of batch fills in

    def _again(self) -> dict:
        """Arguments of ``makeRun`` that make the case replace the result of an earlier batch."""
        raise NotImplementedError

    def _found(self, run) -> dict:
        """The row of a case that is done, whose results are marked with :data:`CASE` and written."""
        raise NotImplementedError

    def _files(self) -> list[Path]:
        """The files that are going to be written."""
        raise NotImplementedError

    def _conclude(self, source: str) -> str:
        """Fill the table of all rows, :attr:`table`; return one sentence about the batch."""
        raise NotImplementedError


class StudyBatchRun(StudyRun):
    """Segments each study; in a folder, one file a case.

    Args:
        extension: of these files, such as ``.nii.gz``.

    Attributes:
        rows: see :mod:`EMIMSegmentLib.batch_table`.
    """

    NOTHING: ClassVar = {"volumes_ml": {}, "output": None, "segmentation": None}

    def __init__(self, *arguments, extension: str, **options) -> None:
        self._extension = extension
        self._corrected: list[str] = []  # names of segmentations that were not replaced
        refuseOtherFormat(extension)
        super().__init__(*arguments, **options)

    def _again(self) -> dict:
        if not self._overwrite:  # it may have been corrected by hand since
            return {"outputSegmentation": None}
        earlier = self._earlier("vtkMRMLSegmentationNode", referenceVolume)
        corrected = [node for node in earlier if holdsOwnWork(node)]
        self._corrected += [node.GetName() for node in corrected]
        return {"outputSegmentation": next((node for node in earlier if node not in corrected), None)}

    def _found(self, run) -> dict:
        run.segmentation.SetAttribute(CASE, self._case.name)
        run.segmentation.GetDisplayNode().SetVisibility(False)  # or all patients' results lie over each other
        volumes = {m["structure"]: m["volume_ml"] for m in measurementsOf(run.result)}
        row = self._row(volumes_ml=volumes, segmentation=run.segmentation.GetID())
        if self._folder is not None:
            try:
                file = self._file(self._case.name)
                row["output"] = str(exportResult(run.segmentation, file, onWarning=self._warn))
            except EmimError as error:
                row.update(error=error.what, where=error.where, hint=error.hint)
        return row

    def _files(self) -> list[Path]:
        return [self._file(case.name) for case in self._cases]

    def _conclude(self, source: str) -> str:
        self.table = updateBatchTable(source, self._card, self.rows)
        text = describeRows(self.rows)
        if self._corrected:
            kept = _("Corrected by hand, so not replaced: {names}.")
            text += " " + kept.format(names=", ".join(self._corrected))
        return text

    def _file(self, case: str) -> Path:
        return self._folder / (folderName(case, unique=True) + self._extension)

    def _warn(self, text: str) -> None:
        event = {"type": "warning", "time": time.time(), "what": text, "where": self._case.name}
        self._say({**event, "hint": None})


class StudyClassRun(StudyRun):
    """Classifies each study; in a folder, one table of all.

    Attributes:
        rows: see :mod:`EMIMSegmentLib.class_batch_table`.
    """

    NOTHING: ClassVar = {"class": None, "probabilities": {}}

    def _again(self) -> dict:
        return {"outputTable": next(iter(self._earlier("vtkMRMLTableNode", classifiedVolume)), None)}

    def _found(self, run) -> dict:
        run.table.SetAttribute(CASE, self._case.name)
        likeliest = max(run.probabilities, key=run.probabilities.get)
        return self._row(probabilities=run.probabilities, **{"class": likeliest})

    def _files(self) -> list[Path]:
        return [self._folder / FILE]

    def _conclude(self, source: str) -> str:
        self.table = updateClassBatchTable(source, self._card, self.rows)
        folder = None if self.cancelled else self._folder  # a file of some cases would pass for all
        if folder is not None:
            writeClasses(folder / FILE, self.rows, self._card)
        return describeClasses(self.rows, folder)


def _told(error: Exception) -> EmimError:
    """Why a case failed, in words; what nobody foresaw must not end the batch either."""
    if isinstance(error, EmimError):
        return error
    logging.exception("A case of a batch failed")
    return EmimError(
        f"{type(error).__name__}: {error}",
        hint=_("This is a defect of EMIM; please report it with the log."),
    )


class _Case:
    """Its name is for files, events and attributes; its title is for the screen only."""

    def __init__(self, name: str, title: str, inputs: dict) -> None:
        self.name, self.title = name, title
        self.nodeIDs = {m: node.GetID() for m, node in inputs.items() if node is not None}


def _named(studies: list) -> list[_Case]:
    """The case of each study, with a name of its own."""
    cases: list[_Case] = []
    for study in studies:
        if isinstance(study, Study):
            name, title, inputs = study.name, study.title, study.inputs
        else:
            inputs, title = study, ""
            name = next((node.GetName() for node in inputs.values() if node is not None), _("case"))
        taken = {case.name.casefold() for case in cases}  # some systems do not tell a file A from a
        unique, i = name, 2
        while unique.casefold() in taken:
            unique, i = f"{name} ({i})", i + 1
        cases.append(_Case(unique, title if title not in ("", name) else unique, inputs))
    return cases
