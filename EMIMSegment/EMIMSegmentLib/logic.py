"""The Logic of EMIMSegment: what the panel does and what scripts call.

From the Python console::

    from EMIMSegment import EMIMSegmentLogic

    segmentation = EMIMSegmentLogic().process(
        inputs={"FLAIR": slicer.util.getNode("FLAIR"), "T1": slicer.util.getNode("T1")},
        model="my model",
        waitForCompletion=True,
    )
    probabilities = EMIMSegmentLogic().classify(inputs={…}, model="my classifier")  # class: probability

It raises :class:`EMIMLib.EmimError` (what, where, hint) and never opens a window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from emim.inference.inputs import modality_called
from EMIMLib import EmimError, guessing, terminology
from EMIMLib.models import InstalledModel, ModelRegistry
from EMIMSegmentLib import (
    alignment,
    class_table,
    display,
    input_checks,
    measured_content,
    result_nodes,
)
from EMIMSegmentLib.alignment import AlignmentRun
from EMIMSegmentLib.case_review import CaseReview, Shown
from EMIMSegmentLib.class_batch import ClassBatchRun
from EMIMSegmentLib.classification_run import ClassificationRun
from EMIMSegmentLib.export_result import exportResult
from EMIMSegmentLib.folder_batch import FolderBatchRun
from EMIMSegmentLib.parameter_node import EMIMSegmentParameterNode
from EMIMSegmentLib.segmentation_run import SegmentationRun
from EMIMSegmentLib.study_batch import StudyBatchRun, StudyClassRun


class EMIMSegmentLogic(ScriptedLoadableModuleLogic):
    """Segments and classifies volumes with installed models.

    Attributes:
        registry: the installed models.
        run: the latest run, or None; one runs at a time.
    """

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        terminology.load()
        self.registry = ModelRegistry()
        self.run: (
            SegmentationRun
            | ClassificationRun
            | AlignmentRun
            | FolderBatchRun
            | StudyBatchRun
            | ClassBatchRun
            | StudyClassRun
            | None
        ) = None
        self._review = CaseReview()

    def getParameterNode(self) -> EMIMSegmentParameterNode:
        return EMIMSegmentParameterNode(super().getParameterNode())

    # Inputs

    def guessInputs(self, card, chosen: Collection = ()) -> dict[str, guessing.Guess]:
        """Modality to :class:`Guess` (node, reason); see :func:`EMIMLib.guessing.guessInputs`."""
        return guessing.guessInputs(card, chosen)

    def examinationsOf(self, card, volumes: Iterable) -> set[guessing.Examination]:
        """Those that the volumes are of; a volume of which nothing tells it counts for nothing."""
        return guessing.examinationsOf(card, volumes)

    def checkInputs(self, card, inputs: dict) -> list[input_checks.Problem]:
        """What is wrong with ``inputs`` (modality to volume); what blocks comes first.

        Raises:
            EmimError: when two volumes are given for one modality under different names.
        """
        return input_checks.checkInputs(card, input_checks.byModality(card, inputs))

    # Segmentation

    def process(
        self,
        inputs: dict,
        model: str | Path | InstalledModel,
        *,
        reference: str | None = None,
        outputSegmentation=None,
        device: str | None = None,
        quality: str = "balanced",
        probabilities: bool = False,
        surface: bool = True,
        show: bool = True,
        opacity: float = 0.5,
        waitForCompletion: bool = True,
        onEvent=None,
        onFinished=None,
    ):
        """Segment volumes.

        Args:
            inputs: modality to volume node; any case and usual names will do (``t1c`` for T1ce). Grids may
                differ, parent transforms are applied, and modalities the model can do without may be absent
                (or None).
            model: name of an installed model, or path of a package or fine-tuning run.
            reference: modality whose grid the result gets; None: the model's own, else the first.
            outputSegmentation: node whose segments are replaced without a question, also those drawn by
                hand (see :meth:`holdsOwnWork`); edited while the worker computes, it is left as it is and
                the result is a new node. None: a new node.
            device: auto, cpu, cuda, mps …; None: as in the settings.
            quality: fast, balanced or best.
            probabilities: also make a volume of the probability of each structure.
            surface, show, opacity: how the result is shown; see :meth:`showResult`.
            waitForCompletion: return the segmentation when it is done, keeping the application alive
                meanwhile; else return the :class:`SegmentationRun` at once.
            onEvent: called with every event of the worker (a dict, see :mod:`emim.events`).
            onFinished: called with the run once: done, failed or cancelled.

        Raises:
            EmimError: when something is refused or fails.
            Cancelled: when it was cancelled or the scene was closed (only when waiting).
        """

        def finished(run: SegmentationRun) -> None:
            try:
                if run.segmentation is not None and show:
                    self.showResult(run.segmentation, opacity=opacity, surface=surface)
            finally:
                if onFinished is not None:
                    onFinished(run)

        run = SegmentationRun(
            self._model(model, "segmentation"),
            inputs,
            reference=reference,
            outputSegmentation=outputSegmentation,
            device=_device(device),
            quality=quality,
            probabilities=probabilities,
            onEvent=onEvent,
            onFinished=finished,
        )
        self._start(run, waitForCompletion)
        return run.segmentation if waitForCompletion else run

    # Classification

    def classify(
        self,
        inputs: dict,
        model: str | Path | InstalledModel,
        *,
        reference: str | None = None,
        outputTable=None,
        device: str | None = None,
        waitForCompletion: bool = True,
        onEvent=None,
        onFinished=None,
    ):
        """Tell to which class an examination belongs; for research, not a diagnosis.

        Args:
            reference: modality on whose grid all are brought; None: the model's own, else the first.
            outputTable: table node that is replaced; None: a new node, named after model and reference.

        Returns:
            Class to probability, in the model's order; the :class:`ClassificationRun` when not waiting.

        See :meth:`process` for the rest. The table of the result is ``run.table``.
        """
        run = ClassificationRun(
            self._model(model, "classification"),
            inputs,
            reference=reference,
            outputTable=outputTable,
            device=_device(device),
            onEvent=onEvent,
            onFinished=onFinished,
        )
        self._start(run, waitForCompletion)
        return run.probabilities if waitForCompletion else run

    def cancel(self) -> None:
        """Stop what is running; returns at once, the end follows within about three seconds."""
        if self.run is not None and self.run.running:
            self.run.cancel()

    # Alignment

    def align(
        self, inputs: dict, reference: str, *, waitForCompletion: bool = True, onEvent=None, onFinished=None
    ):
        """Align volumes rigidly to that of the modality ``reference``, by transforms put above them.

        Returns modality to transform node, or the :class:`AlignmentRun` when not waiting; see
        :meth:`process` for the rest. What was found is in ``run.alignments``.
        """
        run = AlignmentRun(inputs, reference, onEvent, onFinished)
        self._start(run, waitForCompletion)
        return run.transforms if waitForCompletion else run

    def isAligned(self, inputs: dict) -> bool:
        """Whether any of the volumes has an alignment, shown or not."""
        return any(node is not None and self.alignmentOf(node) is not None for node in inputs.values())

    def alignmentOf(self, volume):
        """The transform node that aligns ``volume``, or None."""
        return alignment.alignmentOf(volume)

    def isAlignmentShown(self, volume) -> bool:
        return alignment.isAlignmentShown(volume)

    def setAlignmentShown(self, inputs: dict, shown: bool) -> None:
        """Show the volumes after, or before, they were aligned."""
        alignment.setAlignmentShown(inputs, shown)

    def removeAlignment(self, inputs: dict) -> None:
        """Put the volumes back for good."""
        alignment.removeAlignment(inputs)

    def showAlignment(self, reference, moving) -> None:
        """Show two volume nodes half over each other in the slice views."""
        display.showAlignment(reference, moving)

    # Results

    def showResult(self, segmentation, reference=None, opacity: float = 0.5, surface: bool = True) -> None:
        """Show a segmentation over its reference volume; see :func:`EMIMSegmentLib.display.showResult`."""
        display.showResult(segmentation, reference, opacity, surface)

    def showProbability(self, segmentation, structure: str | None, opacity: float = 0.5) -> None:
        """Show the probability of a structure as an overlay in the slice views; None: of none."""
        display.showProbability(segmentation, structure, opacity)

    def measurementsTable(self, segmentation):
        """Table node with volume (mL), largest diameter (mm), mean intensities; None when there is none."""
        return result_nodes.measurementsTable(segmentation)

    def isEdited(self, segmentation) -> bool:
        """Whether voxels or segments have changed since it was measured; reads all voxels."""
        return measured_content.isEdited(segmentation)

    def holdsOwnWork(self, segmentation) -> bool:
        """Whether it has segments that EMIM did not write as they are: drawn, loaded, or corrected since."""
        return measured_content.holdsOwnWork(segmentation)

    def probabilityVolumes(self, segmentation) -> dict:
        """Structure to volume node."""
        return result_nodes.probabilityVolumes(segmentation)

    def classProbabilities(self, table) -> dict[str, float]:
        """Class to probability as the table node of a result says, the most probable first."""
        return class_table.classProbabilities(table)

    def missingModalities(self, result) -> list[str]:
        """The modalities that were not available for this segmentation or table of classes."""
        return result_nodes.missingModalities(result)

    def modelName(self, result) -> str:
        """The model that made it; "" for a segmentation or table that EMIM did not make."""
        return result_nodes.modelName(result)

    def madeWith(self, result) -> str:
        """Name of that model with its version: the day it was trained, and a fingerprint."""
        return result_nodes.madeWith(result)

    def exportResult(
        self,
        segmentation,
        path: str | Path,
        reference=None,
        onWarning: Callable[[str], None] = logging.warning,
    ) -> Path:
        """Write a result to a file; see :func:`EMIMSegmentLib.export_result.exportResult`."""
        return exportResult(segmentation, path, reference, onWarning)

    # Many cases

    def loadedStudies(self, card) -> list[guessing.Study]:
        """The examinations in the scene: case name, inputs (modality to volume), what is missing, title."""
        return guessing.loadedStudies(card)

    def batch(
        self,
        studies: str | Path | list,
        model: str | Path | InstalledModel,
        folder: str | Path | None = None,
        *,
        reference: str | None = None,
        device: str | None = None,
        quality: str = "balanced",
        probabilities: bool = False,
        extension: str = ".nii.gz",
        overwrite: bool = False,
        waitForCompletion: bool = True,
        onEvent=None,
        onFinished=None,
    ) -> FolderBatchRun | StudyBatchRun:
        """Segment many cases unattended; a case that fails is a row with its error.

        Loaded studies from DICOM are called ``case-`` and a code of the study, the same each time, in files,
        rows and events; only the ``title`` of a row, for the screen, tells who the patient is.

        Args:
            studies: a folder of subject folders (or a datalist), or a list of :class:`Study` (see
                :meth:`loadedStudies`) or of dicts of modality to volume node, called as the first of these.
            folder: where results are written; needed for a folder of files.
            extension: of the files; ``.nii.gz`` for other programs, ``.seg.nrrd`` for Slicer, with names,
                colours, and all of structures that overlap.
            overwrite: replace results of an earlier batch in ``folder``; else what it has done of a folder
                of files is left, and the rest is done.

        See :meth:`process` for the rest. The run has ``rows``, ``failed`` and ``table``.
        """
        model = self._model(model, "segmentation")
        options = {"reference": reference, "device": _device(device), "quality": quality}
        options["probabilities"] = probabilities
        callbacks = {"overwrite": overwrite, "onEvent": onEvent, "onFinished": onFinished}
        callbacks["extension"] = extension
        kinds = (FolderBatchRun, StudyBatchRun, SegmentationRun)
        return self._startBatch(kinds, studies, model, folder, options, callbacks, waitForCompletion)

    def classifyBatch(
        self,
        studies: str | Path | list,
        model: str | Path | InstalledModel,
        folder: str | Path | None = None,
        *,
        reference: str | None = None,
        device: str | None = None,
        overwrite: bool = False,
        waitForCompletion: bool = True,
        onEvent=None,
        onFinished=None,
    ) -> ClassBatchRun | StudyClassRun:
        """Classify many cases unattended; a case that fails is a row with its error.

        Args:
            studies: as for :meth:`batch`; they are named in the same way.
            folder: where ``classes.csv`` is written; needed for a folder of files.
            overwrite: replace that of an earlier batch.

        See :meth:`classify` for the rest. The run has ``rows``, ``failed`` and ``table``.
        """
        model = self._model(model, "classification")
        options = {"reference": reference, "device": _device(device)}
        callbacks = {"overwrite": overwrite, "onEvent": onEvent, "onFinished": onFinished}
        kinds = (ClassBatchRun, StudyClassRun, ClassificationRun)
        return self._startBatch(kinds, studies, model, folder, options, callbacks, waitForCompletion)

    def showCase(
        self, row: dict, model: str | Path | InstalledModel, *, opacity: float = 0.5, surface: bool = True
    ) -> Shown:
        """Show one of the ``rows`` of a batch; see :meth:`EMIMSegmentLib.case_review.CaseReview.show`."""
        return self._review.show(row, self._model(model), opacity=opacity, surface=surface)

    # Inside

    def _startBatch(self, kinds, studies, model: InstalledModel, folder, options, callbacks, wait: bool):
        """Start and return the run of ``kinds``: of a folder, or of studies, made of runs of one study."""
        folderRun, studiesRun, studyRun = kinds
        if not isinstance(studies, (str, Path)):
            makeRun = _maker(studyRun, model, options)
            run = studiesRun(studies, model, makeRun, folder=folder, **callbacks)
        elif folder:
            run = folderRun(studies, model, folder, **options, **callbacks)
        else:
            raise EmimError(_("No folder for the results is chosen."), hint=_("Choose one."))
        self._start(run, wait)
        return run

    def _model(self, model: str | Path | InstalledModel, task: str | None = None) -> InstalledModel:
        found = model if isinstance(model, InstalledModel) else self.registry.find(model)
        if found.card is None:
            raise found.problem
        if task is not None:
            refuseOtherTask(found.card, task)
        return found

    def _start(self, run, wait: bool) -> None:
        if self.run is not None and self.run.running:
            raise EmimError(
                _("EMIM is busy already."), hint=_("Wait until it is done, or cancel what is running.")
            )
        from EMIMLib import dependencies

        dependencies.require()
        self.run = run
        run.start(background=not wait)
        if wait:
            run.wait()


def refuseOtherTask(card, task: str) -> None:
    """Raise :class:`EmimError` when a model was made for something else than ``task``."""
    if card.task == task:
        return
    if task == "segmentation":
        what = _("The model “{name}” tells cases apart; it does not segment.")
        hint = _("Use classify() or classifyBatch(), or choose a model for segmentation.")
    else:
        what = _("The model “{name}” segments structures; it does not classify.")
        hint = _("Use process() or batch(), or choose a model for classification.")
    raise EmimError(what.format(name=card.name), hint=hint)


def _maker(kind, model: InstalledModel, options: dict):
    """Makes the run of one study of a batch; the reference counts where the study has it."""

    def makeRun(inputs: dict, **more):
        inputs = input_checks.byModality(model.card, inputs)
        reference = modality_called(model.card, options["reference"] or "")
        reference = reference if reference in inputs else None
        return kind(model, inputs, **{**options, "reference": reference}, **more)

    return makeRun


def _device(device: str | None) -> str:
    if device is not None:
        return device
    from EMIMLib import settings  # needs Qt, which a test of the Logic may not have

    return settings.device()
