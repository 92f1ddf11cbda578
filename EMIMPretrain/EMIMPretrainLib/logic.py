"""Everything the module does, for the panel and for the Python console alike.

Pre-train on a folder of images and fine-tune on those with labels::

    from EMIMPretrainLib.logic import EMIMPretrainLogic

    logic = EMIMPretrainLogic()
    cohort = logic.scan("/data/cohort", waitForCompletion=True).table
    run = logic.startPretraining(cohort, settings={"preset": "tiny"}, waitForCompletion=True)
    structures = logic.knownStructures(cohort)
    model = logic.startFinetuning(cohort, run.folder, structures, name="tumour", waitForCompletion=True)
    print(logic.evaluate(model, "/data/labelled cases kept for it", waitForCompletion=True).evaluation.means)
    logic.installModel(model)

To make the cohort of what is loaded, such as from DICOM, first::

    logic.addStudies(logic.loadedStudies("/data/cohort"), "/data/cohort")

To tell cases apart instead: ``startFinetuning(cohort, run.folder, classes="classes.csv", name=…)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from emim.run_state import in_use, read_run
from EMIMLib import EmimError, dependencies, terminology
from EMIMLib import settings as machine
from EMIMLib.models import InstalledModel, ModelRegistry
from EMIMLib.pattern_arguments import patternArguments
from EMIMLib.segmentation_position import bestPosition, jumpTo

from . import (
    add_studies,
    case_classes,
    case_loader,
    charts,
    label_export,
    label_meaning,
    loaded_studies,
    name_patterns,
    preview_volumes,
    run_inputs,
    run_list,
    settings_to_arguments,
    start_points,
    verdict_words,
)
from . import structures as structure_list
from .cohort_table import CaseRow, CohortTable
from .core_task import CoreTask
from .estimate_run import EstimateRun
from .evaluation_run import EvaluationRun, ScoredCase, evaluationFolder
from .parameter_node import EMIMPretrainParameterNode
from .practice_cohort import PracticeRun
from .run_monitor import RunMonitor
from .scan_run import ScanRun
from .structures import Structure
from .verdict_words import Verdict

Cohort = CohortTable | str | Path


class EMIMPretrainLogic(ScriptedLoadableModuleLogic):
    """Cohorts, training runs, and what they show. Raises :class:`EmimError`; never opens a window."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        terminology.load()
        self.registry = ModelRegistry()
        self._tasks: list[CoreTask] = []
        self._monitors: dict[Path, RunMonitor] = {}
        self._charted: RunMonitor | None = None

    def getParameterNode(self) -> EMIMPretrainParameterNode:
        return EMIMPretrainParameterNode(super().getParameterNode())

    def close(self) -> None:
        """Stop watching, scanning and estimating; training goes on."""
        for task in self._tasks:
            task.abandon()
        self._tasks.clear()
        for monitor in self._monitors.values():
            monitor.stop()
        self._monitors.clear()
        self._charted = None

    # ---- cohort

    parsePatterns = staticmethod(name_patterns.parsePatterns)
    matchPreview = staticmethod(name_patterns.matchPreview)
    namesIn = staticmethod(name_patterns.namesIn)
    loadCase = staticmethod(case_loader.loadCase)
    # From DICOM: ``addStudies(loadedStudies(folder), folder)`` writes what is loaded, then scan the folder.
    loadedStudies = staticmethod(loaded_studies.loadedStudies)
    checkStudies = staticmethod(add_studies.checkStudies)
    addStudies = staticmethod(add_studies.addStudies)

    def scan(
        self,
        folder: str | Path,
        patterns: Mapping[str, Sequence[str]] | None = None,
        labelPattern: str = "",
        waitForCompletion: bool = False,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[ScanRun], None] | None = None,
    ) -> ScanRun:
        """Find the cases of a folder or datalist and read every file.

        Raises:
            EmimError: when it cannot be started; when waiting, also when the scan fails.
        """
        return self._run(ScanRun(folder, patterns, labelPattern, onEvent, onFinished), waitForCompletion)

    def rememberExcluded(self, parameterNode: Any, table: CohortTable) -> None:
        """Keep in the scene which cases the user has excluded."""
        parameterNode.excludedCases = "\n".join(table.excludedIds)
        parameterNode.excludedOf = table.source

    def applyExcluded(self, parameterNode: Any, table: CohortTable) -> None:
        """Exclude from a new table the cases that the scene says are excluded of this cohort."""
        same = parameterNode.excludedOf in ("", table.source)
        excluded = set(parameterNode.excludedCases.splitlines()) if same else set()
        for row in table.rows:
            row.included = row.id not in excluded

    def practiceFolder(self) -> Path:
        """Where the practice cohort is put."""
        return machine.runsFolder().parent / "practice-cohort"

    def studiesFolder(self) -> Path:
        """Where loaded studies are put unless another folder is chosen."""
        return machine.runsFolder().parent / "cohort"

    def makePracticeCohort(
        self,
        folder: str | Path | None = None,
        subjects: int = 12,
        spacing: float = 4.0,
        waitForCompletion: bool = False,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[PracticeRun], None] | None = None,
    ) -> PracticeRun:
        """Make a cohort of synthetic heads; an earlier one is replaced, anything else is not.

        Raises:
            EmimError: when it cannot be started; when waiting, also when it fails.
        """
        task = PracticeRun(folder or self.practiceFolder(), subjects, spacing, onEvent, onFinished)
        return self._run(task, waitForCompletion)

    # ---- settings

    pretrainSettings = staticmethod(settings_to_arguments.pretrainSettings)
    finetuneSettings = staticmethod(settings_to_arguments.finetuneSettings)
    presetValues = staticmethod(settings_to_arguments.presetValues)
    settingsProblem = staticmethod(settings_to_arguments.settingsProblem)

    # ---- runs

    runs = staticmethod(run_list.allRuns)
    addRun = staticmethod(run_list.addRun)
    forgetRun = staticmethod(run_list.forgetRun)
    isAddedRun = staticmethod(run_list.isAdded)
    pause = staticmethod(RunMonitor.pause)
    cancel = staticmethod(RunMonitor.cancel)

    def estimate(
        self,
        cohort: Cohort,
        settings: Mapping[str, Any] | None = None,
        init: str | Path | None = None,
        structures: Sequence[Structure] | None = None,
        classes: str | Path | None = None,
        waitForCompletion: bool = False,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[EstimateRun], None] | None = None,
    ) -> EstimateRun:
        """Measure what a run would take; of fine-tuning when ``init`` is given.

        Raises:
            EmimError: for settings or cases that cannot work; when waiting, also when measuring fails.
        """
        folder = machine.runsFolder() / "estimate"
        if init is None:
            arguments = self._pretrainArguments(cohort, folder, settings)
        else:
            arguments = self._finetuneArguments(cohort, folder, settings, init, structures or (), classes)
        return self._run(EstimateRun(arguments, onEvent, onFinished), waitForCompletion)

    def startPretraining(
        self,
        cohort: Cohort,
        runFolder: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "",
        waitForCompletion: bool = False,
        onEvent: Callable[[RunMonitor, dict], None] | None = None,
        onState: Callable[[RunMonitor], None] | None = None,
    ) -> RunMonitor:
        """Pre-train on the cases of a cohort that are used.

        Args:
            cohort: a table, or the path of a folder or datalist, all of whose cases are used then.
            runFolder: new; None: made in the runs folder, from ``name`` or by itself.
            settings: "preset", and any dotted setting of the core.

        Raises:
            EmimError: when it cannot be started; when waiting, also when it fails.
            Cancelled: when waiting, and it was paused or cancelled.
        """
        folder = self._newFolder("pretrain", cohort, runFolder, name)
        arguments = [*self._pretrainArguments(cohort, folder, settings), "--out", str(folder)]
        return self._start(RunMonitor(folder, arguments, onEvent, onState), waitForCompletion)

    def startFinetuning(
        self,
        cohort: Cohort,
        init: str | Path,
        structures: Sequence[Structure] = (),
        runFolder: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "",
        description: str = "",
        intendedUse: str = "",
        licence: str = "",
        classes: str | Path | None = None,
        waitForCompletion: bool = False,
        onEvent: Callable[[RunMonitor, dict], None] | None = None,
        onState: Callable[[RunMonitor], None] | None = None,
    ) -> RunMonitor:
        """Train a segmentation model on the labelled cases of a cohort, or with ``classes`` a classifier.

        Label maps exported with :meth:`exportLabels` replace the cohort's own; ``structures`` must give their
        names and values the meaning they were drawn with (:meth:`knownStructures`).

        Args:
            init: pre-training run, model package, or "scratch".
            structures: what to segment; see :mod:`EMIMPretrainLib.structures`.
            classes: CSV or JSON file with the class of each case or subject; makes a classification model.
            name, description, intendedUse, licence: of the model.

        Raises:
            EmimError: when it cannot be started; when waiting, also when it fails.
            Cancelled: when waiting, and it was paused or cancelled.
        """
        folder = self._newFolder("finetune", cohort, runFolder, name)
        arguments = self._finetuneArguments(cohort, folder, settings, init, structures, classes)
        card = {"name": name, "description": description, "intended-use": intendedUse, "licence": licence}
        for option, text in card.items():
            if text.strip():
                arguments.append(f"--{option}={text.strip()}")
        arguments += ["--out", str(folder)]
        return self._start(RunMonitor(folder, arguments, onEvent, onState), waitForCompletion)

    def resume(
        self,
        runFolder: str | Path,
        waitForCompletion: bool = False,
        onEvent: Callable[[RunMonitor, dict], None] | None = None,
        onState: Callable[[RunMonitor], None] | None = None,
    ) -> RunMonitor:
        """Continue a run from its last checkpoint, with its own settings, on this machine's device.

        Raises:
            EmimError: when there is no run, or a process trains in it; when waiting, also when it fails.
            Cancelled: when waiting, and it was paused or cancelled.
        """
        run = read_run(runFolder)
        if in_use(run.folder):
            raise EmimError(
                _("Another process is training in this run folder."),
                run.folder,
                _("Watch it from the list of runs, or pause it there first."),
            )
        arguments = [run.command, "--resume", "--out", str(run.folder), *self._machineArguments()]
        return self._start(RunMonitor(run.folder, arguments, onEvent, onState), waitForCompletion)

    def attach(
        self,
        runFolder: str | Path,
        onEvent: Callable[[RunMonitor, dict], None] | None = None,
        onState: Callable[[RunMonitor], None] | None = None,
    ) -> RunMonitor:
        """Watch a run, whoever started it; of one that is watched already, the same monitor.

        Raises:
            EmimError: when the folder is no run.
        """
        folder = Path(runFolder).absolute()
        monitor = self._monitors.get(folder)
        if monitor is None:
            monitor = RunMonitor(folder, None, onEvent, onState)
            monitor.start()
            self._monitors[folder] = monitor
        else:
            monitor.onEvent, monitor.onState = onEvent or monitor.onEvent, onState or monitor.onState
        return monitor

    def release(self, monitor: RunMonitor) -> None:
        """Watch a run no longer, unless it was started here or its charts are shown."""
        if monitor.startedHere or monitor is self._charted:
            return
        monitor.stop()
        if self._monitors.get(monitor.folder) is monitor:
            del self._monitors[monitor.folder]

    def inits(self) -> list[tuple[str, str]]:
        """See :func:`EMIMPretrainLib.start_points.startPoints`."""
        return start_points.startPoints(self.runs(), self.registry)

    def installModel(self, run: RunMonitor | str | Path, overwrite: bool = False) -> InstalledModel:
        """See :func:`EMIMPretrainLib.start_points.installModel`."""
        folder = run.folder if isinstance(run, RunMonitor) else Path(run)
        return start_points.installModel(folder, self.registry, overwrite)

    def isInstalled(self, run: RunMonitor | str | Path) -> bool:
        """See :func:`EMIMPretrainLib.start_points.isInstalled`."""
        folder = run.folder if isinstance(run, RunMonitor) else Path(run)
        return start_points.isInstalled(folder, self.registry)

    # ---- judging

    def evaluate(
        self,
        model: RunMonitor | str | Path,
        cohort: Cohort,
        folder: str | Path | None = None,
        labelPattern: str = "",
        waitForCompletion: bool = False,
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[EvaluationRun], None] | None = None,
    ) -> EvaluationRun:
        """Segment labelled cases with a model and score the results: Dice and HD95.

        Cases that training or validation of the model has seen are left out, and named in the answer, as are
        those that only pre-training has seen, which count. Images are known again by their voxels.

        Args:
            model: fine-tuning run, model package, or the name of an installed model; only a run tells what it
                has seen.
            cohort: folder or datalist; or a table, whose cases all count, used or not, with the label maps
                exported with :meth:`exportLabels`.
            folder: for segmentations and scores; None: made in the run folder.
            labelPattern: name pattern of label files in a folder; empty: usual names.

        Raises:
            EmimError: when it cannot be started, as for a model that does not segment; when waiting, also
                when it fails, or no labelled case is new to the model.
        """
        found = self.registry.find(model.folder if isinstance(model, RunMonitor) else model)
        found.card.require("segmentation", found.path)
        options = ["--device", machine.device()]
        name = cohort.name if isinstance(cohort, CohortTable) else Path(cohort).stem
        results = evaluationFolder(found.path, name) if folder is None else Path(folder).absolute()
        if isinstance(cohort, CohortTable):
            exported = self.exportedLabels(cohort)
            structures = structure_list.structuresFromCore(found.card.structures)
            label_meaning.refuseOtherMeaning(structures, exported)
            inputs = run_inputs.inputsFolder(machine.runsFolder() / "evaluation")
            cohort = run_inputs.writeLabelledCases(inputs / "cohort.json", cohort, exported)
        elif Path(cohort).is_dir():
            options += patternArguments(found.card)
            options += ["--label-pattern", labelPattern] if labelPattern else []
        task = EvaluationRun(found.path, cohort, results, options, onEvent, onFinished)
        return self._run(task, waitForCompletion)

    def loadScoredCase(self, case: ScoredCase, model: str | Path) -> list[Any]:
        """Show a case with its label, filled, and what the model has segmented, as outlines.

        The slice views go to where the label shows most, or, where it is empty, what the model has segmented.

        Returns:
            The volume nodes.

        Raises:
            EmimError: when a file cannot be read.
        """
        structures = structure_list.structuresFromCore(self.registry.find(model).card.structures)
        volumes = case_loader.loadCase(case.row, structures=structures)
        shown = [case_loader.labelNode(case.row.label.path)]
        if case.prediction:
            shown.append(case_loader.loadPrediction(case.row.id, case.prediction))
        positions = (bestPosition(node) for node in shown if node is not None)
        if position := next(filter(None, positions), None):
            jumpTo(position)
        return volumes

    # ---- watching

    endPreview = staticmethod(preview_volumes.endPreview)

    def showCharts(self, monitor: RunMonitor) -> dict[str, Any]:
        """Show the curves of a run, and of no other, and keep them up to date.

        Returns:
            Chart nodes: "loss", and "rank" of pre-training, "dice" of segmentation, "scores" of
            classification.
        """
        self._leaveCharts()
        self._charted = monitor
        monitor.listeners.append(self._followCharts)
        return self._updateCharts(monitor)

    def showChartInLayout(self, chartNode: Any) -> None:
        """Show a chart in the plot view, in a layout that has one."""
        slicer.modules.plots.logic().ShowChartInLayout(chartNode)

    def verdict(self, monitor: RunMonitor) -> Verdict:
        """How the run is doing."""
        if monitor.classifies:
            return verdict_words.classificationVerdict(monitor.metrics, monitor.folder)
        if monitor.command == "finetune":
            return verdict_words.finetuningVerdict(monitor.metrics)
        return verdict_words.pretrainingVerdict(monitor.metrics, monitor.folder)

    def showPreview(self, monitor: RunMonitor, modality: str = "") -> dict[str, Any]:
        """See :func:`EMIMPretrainLib.preview_volumes.showPreview`."""
        return preview_volumes.showPreview(monitor.metrics, monitor.folder, modality)

    def previewModalities(self, monitor: RunMonitor) -> list[str]:
        return preview_volumes.previewModalities(monitor.metrics)

    def previewText(self, monitor: RunMonitor) -> str:
        return preview_volumes.previewText(monitor.metrics)

    # ---- structures, labels and classes

    readClasses = staticmethod(case_classes.readClasses)
    classCounts = staticmethod(case_classes.classCounts)

    structuresFromCohort = staticmethod(structure_list.structuresFromCohort)
    structuresFromSegmentation = staticmethod(structure_list.structuresFromSegmentation)
    structuresProblem = staticmethod(structure_list.structuresProblem)

    def knownStructures(self, table: CohortTable) -> list[Structure]:
        """The structures of the exported labels, and one for each other value in the cohort's own.

        Raises:
            EmimError: when what is kept beside an exported label map is damaged.
        """
        exported = self.exportedLabels(table)
        usedFirst = sorted((r for r in table.rows if r.id in exported), key=lambda r: not r.used)
        known = label_meaning.knownStructures(exported[r.id] for r in usedFirst)
        values = {v for s in known for v in s["values"]}
        return known + [s for s in self.structuresFromCohort(table) if not values.intersection(s["values"])]

    def structures(self, parameterNode: Any) -> list[Structure]:
        return structure_list.readStructures(parameterNode.structures)

    def setStructures(self, parameterNode: Any, structures: Sequence[Structure]) -> None:
        parameterNode.structures = structure_list.structuresText(structures)

    def labelsFolder(self, table: CohortTable) -> Path:
        return label_export.labelsFolder(table, machine.runsFolder())

    def exportedLabels(self, table: CohortTable) -> dict[str, Path]:
        return label_export.exportedLabels(table, machine.runsFolder())

    def exportLabels(
        self,
        segmentation: Any,
        referenceVolume: Any,
        row: CaseRow,
        structures: Sequence[Structure],
        table: CohortTable,
    ) -> Path:
        """See :func:`EMIMPretrainLib.label_export.exportLabels`; an earlier label map is replaced.

        Raises:
            EmimError: also when the exported labels of another case that is used have other names or values.
        """
        structure_list.checkStructures(structures)
        others = self._usedLabels(table)
        others.pop(row.id, None)
        label_meaning.refuseOtherMeaning(structures, others)
        folder = self.labelsFolder(table)
        return label_export.exportLabels(segmentation, referenceVolume, row, structures, folder)

    def replacedLabels(self, segmentation: Any, row: CaseRow, table: CohortTable) -> Path | None:
        """The exported label map that :meth:`exportLabels` would replace by another drawing, or None.

        A segmentation that was loaded from the file or exported to it is no other drawing.
        """
        file = self.exportedLabels(table).get(row.id)
        return None if file is None or case_loader.isExported(segmentation, file) else file

    def removeLabels(self, row: CaseRow, table: CohortTable) -> None:
        """Delete the exported label map of a case; the cohort's own is used again."""
        label_export.removeLabels(row, self.labelsFolder(table))

    # ---- within

    def _usedLabels(self, table: CohortTable) -> dict[str, Path]:
        """The exported label map of each case that is used and has one."""
        used = {row.id for row in table.usedRows}
        return {caseId: file for caseId, file in self.exportedLabels(table).items() if caseId in used}

    def _run(self, task: Any, wait: bool) -> Any:
        dependencies.require()
        self._tasks = [t for t in self._tasks if t.running]
        task.start()
        self._tasks.append(task)
        if wait:
            task.waitForFinished()
        return task

    def _start(self, monitor: RunMonitor, wait: bool) -> RunMonitor:
        dependencies.require()
        earlier = self._monitors.pop(monitor.folder, None)
        monitor.start()
        if earlier is not None:
            earlier.stop()
        self._monitors[monitor.folder] = monitor
        if wait:
            monitor.waitForFinished()
        return monitor

    def _newFolder(self, command: str, cohort: Cohort, runFolder: str | Path | None, name: str) -> Path:
        if runFolder is None:
            return run_inputs.newRunFolder(machine.runsFolder(), command, cohort, name)
        folder = Path(runFolder).absolute()
        run_inputs.refuseUsed(folder)
        return folder

    def _pretrainArguments(
        self, cohort: Cohort, folder: Path, settings: Mapping[str, Any] | None
    ) -> list[str]:
        if isinstance(cohort, CohortTable):
            cohort = run_inputs.writeDatalist(run_inputs.inputsFolder(folder) / "cohort.json", cohort)
        return ["pretrain", str(cohort), *self._settingArguments(settings)]

    def _finetuneArguments(
        self,
        cohort: Cohort,
        folder: Path,
        settings: Mapping[str, Any] | None,
        init: str | Path,
        structures: Sequence[Structure],
        classes: str | Path | None,
    ) -> list[str]:
        inputs = run_inputs.inputsFolder(folder)
        task = self._taskArguments(cohort, inputs, structures, classes)
        if isinstance(cohort, CohortTable):
            cohort = run_inputs.writeDatalist(inputs / "cohort.json", cohort, self.exportedLabels(cohort))
        start = "none" if str(init) == start_points.SCRATCH else str(init)
        return ["finetune", str(cohort), "--init", start, *task, *self._settingArguments(settings)]

    def _taskArguments(
        self, cohort: Cohort, inputs: Path, structures: Sequence[Structure], classes: str | Path | None
    ) -> list[str]:
        """What is to be learned, written for the core."""
        if classes is None:
            structure_list.checkStructures(structures)
            if isinstance(cohort, CohortTable):
                label_meaning.refuseOtherMeaning(structures, self._usedLabels(cohort))
            file = run_inputs.writeStructures(inputs / "structures.json", structures)
            return ["--structures", str(file)]
        if structures:
            raise EmimError(
                _("Both structures and classes are given."),
                classes,
                _("Give what the model is to learn only."),
            )
        file = Path(classes).absolute()
        if isinstance(cohort, CohortTable):  # the user's file may name cases that are left out
            file = run_inputs.writeClasses(inputs / "classes.json", case_classes.readClasses(classes, cohort))
        return ["--task", "classification", "--classes", str(file)]

    def _settingArguments(self, settings: Mapping[str, Any] | None) -> list[str]:
        settings = {"device": machine.device(), **(settings or {})}
        return [*settings_to_arguments.settingArguments(settings), *self._cacheArguments()]

    def _machineArguments(self) -> list[str]:
        return ["--device", machine.device(), *self._cacheArguments()]

    def _cacheArguments(self) -> list[str]:
        cache = machine.cacheFolder()
        return ["--cache", str(cache)] if cache else []

    def _followCharts(self, monitor: RunMonitor) -> None:
        if charts.exist():
            self._updateCharts(monitor)
        else:  # the scene was closed
            self._leaveCharts()

    def _leaveCharts(self) -> None:
        if self._charted is not None and self._followCharts in self._charted.listeners:
            self._charted.listeners.remove(self._followCharts)
        self._charted = None

    def _updateCharts(self, monitor: RunMonitor) -> dict[str, Any]:
        make = charts.finetuningCharts if monitor.command == "finetune" else charts.pretrainingCharts
        if monitor.classifies:
            make = charts.classificationCharts
        return charts.updateCharts(make(monitor.metrics, monitor.name))
