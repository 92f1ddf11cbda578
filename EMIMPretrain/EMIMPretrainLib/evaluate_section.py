"""Judge the model of the selected run on labelled cases that it has not seen."""

from __future__ import annotations

from pathlib import Path

import ctk
import qt
from slicer.i18n import tr as _

from EMIMLib.path_edit import followPath, rememberPath

from .evaluation_run import Evaluation, ScoredCase
from .panel_state import PanelState
from .rich_text import AMBER, RED, bold, colored, lines, plain
from .short_task import ShortTask
from .shown_errors import onceAtATime, shownErrors
from .table_setup import fitHeight, setUpTable
from .task_progress import TaskProgress

FEW = 5  # cases whose mean says little
NAMED = 20  # cases in a sentence


class EvaluateSection:
    """Starts an evaluation, and shows the last one of the selected run."""

    def __init__(self, ui, logic, state: PanelState) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.evaluations: dict[Path, Evaluation] = {}  # run folder to its last one
        self._shown: Evaluation | None = None
        self._judged: Path | None = None  # folder of the run that is being judged
        progress = TaskProgress(ui.evaluateProgressBar, ui.evaluateStatusLabel)
        title = _("Looking at the cases…")
        self.task = ShortTask(state, ui.evaluateButton, progress, title, self._begin, self._onDone)
        ui.evaluatePathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        followPath(ui.evaluatePathLineEdit, self._onPath)
        ui.evaluationTable.connect("cellActivated(int,int)", self._onActivated)  # a double-click, Enter
        ui.evaluationTable.connect("itemSelectionChanged()", self._updateShowButton)
        ui.evaluationShowButton.connect("clicked(bool)", self._onShow)
        ui.openEvaluationButton.connect("clicked(bool)", self._onOpenFolder)
        self._show(None)

    def update(self) -> None:
        monitor = self.state.monitor
        reason = self._modelReason()
        text = plain(reason) if reason else _("Model of {run}").format(run=bold(monitor.name))
        self.ui.evaluateModelLabel.text = text
        self.task.update(reason or ("" if self._folder() else _("Choose the folder of the labelled cases.")))
        evaluation = self.evaluations.get(monitor.folder) if monitor else None
        if evaluation is not self._shown:
            self._show(evaluation)

    def _modelReason(self) -> str:
        """Why the selected run cannot be judged, in words; empty when it can."""
        monitor = self.state.monitor
        if monitor is None or not monitor.canInstall:
            return _("Select a fine-tuning run that is finished.")
        if monitor.classifies:
            return _(
                "Only segmentation is judged here. Classification is judged by its own validation, see "
                "Watch; for a separate test see the README."
            )
        return ""

    def _folder(self) -> str:
        path = self.ui.evaluatePathLineEdit.currentPath
        return "" if path in ("", ".") else path  # so reads an unset one

    def _begin(self, onEvent, onFinished):
        self._judged = self.state.monitor.folder
        rememberPath(self.ui.evaluatePathLineEdit)
        table, folder, node = self.state.table, self._folder(), self.state.parameterNode
        return self.logic.evaluate(
            self.state.monitor,
            table if table is not None and Path(table.source) == Path(folder) else folder,
            labelPattern=node.labelPattern if node else "",
            onEvent=onEvent,
            onFinished=onFinished,
        )

    def _onDone(self, run) -> None:
        self.evaluations[self._judged] = run.evaluation

    def _show(self, evaluation: Evaluation | None) -> None:
        ui = self.ui
        self._shown = evaluation
        for widget in (
            ui.evaluationLabel,
            ui.evaluationTable,
            ui.evaluationShowButton,
            ui.openEvaluationButton,
        ):
            widget.setVisible(evaluation is not None)
        if evaluation is not None:
            ui.evaluationLabel.text = lines(_sentences(evaluation))
            self._fill(evaluation)

    def _fill(self, evaluation: Evaluation) -> None:
        table, names = self.ui.evaluationTable, list(evaluation.means)
        table.clear()
        table.setRowCount(1 + len(evaluation.cases))
        setUpTable(table, [_("Case"), *names], stretched=0)
        for column in range(1, 1 + len(names)):
            table.horizontalHeaderItem(column).setToolTip(_explanation())
        fitHeight(table, 1 + len(evaluation.cases), most=10)
        mean = _("Mean of {n}").format(n=len(evaluation.cases))
        self._fillRow(
            0, mean, [_scores(evaluation.means[n]["dice"], evaluation.means[n]["hd95"]) for n in names]
        )
        for number, case in enumerate(evaluation.cases, 1):
            cells = [_("failed") if case.error else _scores(case.dice[n], case.hd95[n]) for n in names]
            self._fillRow(number, case.row.id, cells, case.error)
        self._updateShowButton()

    def _fillRow(self, number: int, first: str, cells: list[str], error: str = "") -> None:
        for column, text in enumerate([first, *cells]):
            item = qt.QTableWidgetItem(text)
            if column:
                item.setTextAlignment(qt.Qt.AlignCenter)
            if error:
                item.setForeground(qt.QBrush(qt.QColor(RED)))
                item.setToolTip(error)
            font = item.font()
            font.setBold(number == 0)
            item.setFont(font)
            self.ui.evaluationTable.setItem(number, column, item)

    def _chosen(self) -> ScoredCase | None:
        """The case that is chosen in the table."""
        rows = self.ui.evaluationTable.selectionModel().selectedRows()
        number = rows[0].row() if rows else 0  # the first row has the means
        return self._shown.cases[number - 1] if number else None

    def _updateShowButton(self) -> None:
        reason = "" if self._chosen() else _("Choose a case in the table.")
        self.ui.evaluationShowButton.enabled = not reason
        self.ui.evaluationShowButton.toolTip = reason or _(
            "Show the labels of this case, filled, and the model's outlines."
        )

    def _onActivated(self, row: int, column: int) -> None:
        self._showChosen()

    def _onShow(self, checked: bool = False) -> None:
        self._showChosen()

    @onceAtATime
    def _showChosen(self) -> None:
        case = self._chosen()
        if case is None:
            return
        with shownErrors(wait=True):
            if self.state.previewing:  # its views are linked and all axial
                self.state.previewing = False
                self.logic.endPreview()
            self.logic.loadScoredCase(case, self._shown.model)
        self.state.changed()

    def _onOpenFolder(self, checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._shown.folder)))

    def _onPath(self, path: str) -> None:
        self.state.changed()


def _sentences(evaluation: Evaluation) -> list[str]:
    """What is to be read with the scores, as rich text."""
    count = len(evaluation.cases)
    found = [bold(_("Cases new to the model: {n}. Dice, and HD95 in mm.").format(n=count))]
    if count < FEW:
        found.append(
            colored(_("With so few cases the mean is hardly more than luck: look at each of them."), AMBER)
        )
    if evaluation.failed:
        text = _("Could not be segmented, and count as Dice 0: {names}.")
        found.append(colored(text.format(names=_names(evaluation.failed)), RED))
    for name, means in evaluation.means.items():
        if means["both_empty"]:
            text = _("{name}: in {n} of the cases label and result are both empty, which counts as Dice 1.")
            found.append(plain(text.format(name=name, n=means["both_empty"])))
    if evaluation.learned:
        text = _("Left out, as training or validation has seen them: {names}.")
        places: dict[str, list[str]] = {}
        for case, where in evaluation.learned.items():
            places.setdefault(where, []).append(case)
        names = "; ".join(f"{_names(cases)} ({where})" for where, cases in places.items())
        found.append(colored(text.format(names=names), AMBER))
    if evaluation.pretrained:
        text = _("Seen in pre-training, but without labels; they count: {names}.")
        found.append(plain(text.format(names=_names(evaluation.pretrained))))
    return [*found, *(colored(text, AMBER) for text in (*evaluation.doubts, *evaluation.remarks))]


def _names(names: list[str]) -> str:
    more = _(" and {n} more").format(n=len(names) - NAMED) if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _explanation() -> str:
    return _(
        "Dice · HD95. Dice: how much label and result overlap, from 0 (not at all) to 1 (equal). "
        "HD95: how far their surfaces lie apart, in mm, without the farthest 5 %; 0 where they are equal, "
        "the diagonal of the image where one of them is empty and the other is not."
    )


def _scores(dice: float, hd95: float) -> str:
    return f"{dice:.2f} · {hd95:.1f}"
