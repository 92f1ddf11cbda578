"""Make a model from few labelled cases, and install it."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from EMIMLib import dependencies, settings

from .estimate_view import EstimateView
from .labels_section import LabelsSection
from .panel_state import PanelState
from .rich_text import AMBER, GREEN, colored, plain
from .shown_errors import onceAtATime, shownErrors
from .start_points import SCRATCH
from .structures_section import StructuresSection
from .task_section import TaskSection

LEAST_LABELS = 2  # one case to learn from, one to check on
VERY_FEW, FEW = 5, 20  # labelled cases
FEW_CLASSIFIED = 60  # a validation on a fifth of them hardly excludes chance


class FinetuneSection:
    """Starts fine-tuning of ``state.table``, and installs the model of the selected run."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.labels = LabelsSection(ui, logic, state)
        self.structures = StructuresSection(ui, logic, state, self.labels)
        self.task = TaskSection(ui, logic, state)
        self.estimate = EstimateView(
            state,
            ui.finetuneEstimateButton,
            ui.finetuneEstimateProgressBar,
            ui.finetuneEstimateLabel,
            self._beginEstimate,
            self._question,
        )
        self._installed = ""  # folder of the run whose model was installed
        ui.initComboBox.connect("currentIndexChanged(int)", self._onInit)
        ui.startFinetuneButton.connect("clicked(bool)", self._onStart)
        ui.installModelButton.connect("clicked(bool)", self._onInstall)
        ui.openSegmentButton.connect("clicked(bool)", self._onOpenSegment)
        self._startToolTip = ui.startFinetuneButton.toolTip
        self._installToolTip = ui.installModelButton.toolTip

    def refresh(self) -> None:
        """Read again which runs and models there are to start from."""
        combo = self.ui.initComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for label, path in [(_("Choose…"), ""), *self.logic.inits()]:
            combo.addItem(label, str(path))
        combo.blockSignals(wasBlocked)
        self._proposeInit()
        self.update()

    def _proposeInit(self) -> None:
        """The pre-training run that has just finished, where nothing was chosen yet."""
        node, monitor = self.state.parameterNode, self.state.monitor
        if node is None or node.init or monitor is None or monitor.command != "pretrain":
            return
        if monitor.phase == "finished" and self.ui.initComboBox.findData(str(monitor.folder)) >= 0:
            node.init = str(monitor.folder)

    def update(self) -> None:
        self.labels.update()
        self.structures.update()
        self.task.update()
        node = self.state.parameterNode
        if node is None:
            return
        self._showInit(node.init)
        self.ui.labelsLabel.text = self._labelsText()
        reason = self._reason()
        self.estimate.update(reason)
        reason = reason or self.state.busyReason()
        self.ui.startFinetuneButton.enabled = not reason
        self.ui.startFinetuneButton.toolTip = reason or self._startToolTip
        self.ui.finetuneHintLabel.text = colored(reason, AMBER) if reason else self._honestHint()
        self._updateInstall()

    def _showInit(self, init: str) -> None:
        combo = self.ui.initComboBox
        if combo.findData(init) < 0:
            combo.addItem(_("{path} (not found)").format(path=init), init)
        if combo.itemData(combo.currentIndex) != init:
            wasBlocked = combo.blockSignals(True)
            combo.setCurrentIndex(combo.findData(init))
            combo.blockSignals(wasBlocked)

    def _labelsText(self) -> str:
        table = self.state.table
        if table is None:
            return _("Scan a cohort first; its label maps are found with the images.")
        count, drawn = len(self.labels.labelledIds()), len(self.labels.exported)
        text = _("Cases with labels: {n} of {all}").format(n=count, all=len(table.usedRows))
        text += _("; drawn in Slicer: {n}.").format(n=drawn) if drawn else "."
        return plain(text)

    def _honestHint(self) -> str:
        if self.task.classifies:
            return self._classHint()
        count = len(self.labels.labelledIds())
        if count < VERY_FEW:
            return colored(
                _(
                    "Very few labels: expect a rough model, and a validation on one or two cases that says "
                    "little. Check every result by eye; label some more cases with its help."
                ),
                AMBER,
            )
        if count < FEW:
            return plain(
                _(
                    "Few labels: this is what pre-training is for. Keep some labelled cases of your own out "
                    "of the cohort to judge the model fairly, under Evaluate."
                )
            )
        return ""

    def _classHint(self) -> str:
        node = self.state.parameterNode
        if node.init == SCRATCH and node.classificationMode != "full":
            return colored(
                _("The network learns nothing then: choose a pre-training to start from, or train it whole."),
                AMBER,
            )
        if len(self.task.classes) >= FEW_CLASSIFIED:
            return ""
        return plain(
            _(
                "Few cases: the verdict will often stay undecided. Keep some cases out of the cohort "
                "to judge the model fairly."
            )
        )

    def _reason(self) -> str:
        """Why fine-tuning cannot start, in words; empty when it can."""
        node, table = self.state.parameterNode, self.state.table
        if table is None:
            return _("Scan a cohort first.")
        problem = ""
        if self.task.classifies:
            problem = self.task.reason()
        elif len(self.labels.labelledIds()) < LEAST_LABELS:
            problem = _("At least two cases need labels: one to learn from, one to check on.")
        if problem:
            return problem
        if not node.init:
            return _("Choose what to start from.")
        if not self.task.classifies:
            problem = self.logic.structuresProblem(self.logic.structures(node))
        return problem or ("" if node.modelName.strip() else _("Give the model a name."))

    def _updateInstall(self) -> None:
        monitor = self.state.monitor
        possible = bool(monitor and monitor.canInstall)
        self.ui.installModelButton.enabled = possible
        self.ui.installModelButton.toolTip = (
            self._installToolTip if possible else _("Select a fine-tuning run that is finished.")
        )
        shown = bool(monitor and str(monitor.folder) == self._installed)
        self.ui.installedLabel.setVisible(shown)

    def _arguments(self) -> dict:
        node = self.state.parameterNode
        arguments = {"init": node.init, "settings": self.logic.finetuneSettings(node)}
        if self.task.classifies:
            return {**arguments, "classes": node.classesFile}
        return {**arguments, "structures": self.logic.structures(node)}

    def _beginEstimate(self, onEvent, onFinished):
        return self.logic.estimate(
            self.state.table, onEvent=onEvent, onFinished=onFinished, **self._arguments()
        )

    def _question(self) -> tuple:
        node, table = self.state.parameterNode, self.state.table
        if node is None or table is None:
            return ()
        known = sorted(self.task.classes.items() if self.task.classifies else self.labels.labelledIds())
        cases = (table.source, known)
        return cases, sorted(map(str, self._arguments().items())), settings.device()

    def _onInit(self, index: int) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.init = self.ui.initComboBox.itemData(index)

    @onceAtATime
    def _onStart(self, checked: bool = False) -> None:
        node = self.state.parameterNode
        with shownErrors():
            if not dependencies.ensure(self.ui.startFinetuneButton):
                return
            with slicer.util.WaitCursor():
                run = self.logic.startFinetuning(
                    self.state.table,
                    name=node.modelName.strip(),
                    description=node.modelDescription.strip(),
                    intendedUse=node.intendedUse.strip(),
                    licence=node.licence.strip(),
                    **self._arguments(),
                )
                self.state.select(run)

    @onceAtATime
    def _onInstall(self, checked: bool = False) -> None:
        monitor = self.state.monitor
        with shownErrors():
            replace = self.logic.isInstalled(monitor)
            question = _("A model of this name is installed already. Replace it with the new one?")
            if replace and not slicer.util.confirmOkCancelDisplay(question):
                return
            with slicer.util.WaitCursor():
                model = self.logic.installModel(monitor, overwrite=replace)
            self._installed = str(monitor.folder)
            text = _("Installed as “{name}”.").format(name=model.name)
            self.ui.installedLabel.text = colored("✓ " + text, GREEN)
        self.refresh()

    def _onOpenSegment(self, checked: bool = False) -> None:
        with shownErrors():
            slicer.util.selectModule("EMIMSegment")
