"""One MRI sequence that the chosen model takes: which volume it is, or that it is not available."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from EMIMSegmentLib.marks import BAD, CHECK, GOOD, QUIET, marked


class InputRow:
    """Two lines of ``grid``: the volume, and below it what is known about the choice.

    Args:
        grid: a QGridLayout; the row adds its widgets at ``line`` and ``line + 1``.
        modality: as the model names it.
        optional: the model can do without it.
        onChosen: ``onChosen(modality, node or None)`` when the user chooses.
        onNotAvailable: ``onNotAvailable(modality, bool)`` when the user says so.
    """

    def __init__(
        self,
        grid,
        line: int,
        modality: str,
        optional: bool,
        onChosen: Callable,
        onNotAvailable: Callable,
    ) -> None:
        self.modality, self.optional = modality, optional
        self._onChosenCallback, self._onNotAvailableCallback = onChosen, onNotAvailable
        self.label = qt.QLabel(modality)
        self.selector = self._makeSelector()
        self.notAvailable = qt.QCheckBox(_("not available"))
        self.notAvailable.objectName = f"notAvailableCheckBox_{modality}"
        self.notAvailable.toolTip = _(
            "Segment without {modality}; the model was trained to do without it."
        ).format(modality=modality)
        self.notAvailable.connect("clicked(bool)", self._onNotAvailable)
        self.required = qt.QLabel(marked(_("required"), QUIET))
        self.required.toolTip = _("The model cannot do without {modality}.").format(modality=modality)
        self.mark = qt.QLabel()
        self.mark.textFormat = qt.Qt.RichText
        self.mark.wordWrap = True
        self.mark.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self.mark.setContentsMargins(0, 0, 0, 4)
        grid.addWidget(self.label, line, 0)
        grid.addWidget(self.selector, line, 1)
        grid.addWidget(self.notAvailable if optional else self.required, line, 2)
        grid.addWidget(self.mark, line + 1, 1, 1, 2)

    def update(self, node, state: str, reason: str, enabled: bool) -> None:
        """Show the choice; ``state`` as :meth:`EMIMSegmentParameterNode.inputState` gives it."""
        for widget in (self.selector, self.notAvailable):
            widget.blockSignals(True)
        self.selector.setCurrentNode(node)
        self.notAvailable.checked = state == "notAvailable"
        for widget in (self.selector, self.notAvailable):
            widget.blockSignals(False)
        self.selector.enabled = enabled and state != "notAvailable"
        self.notAvailable.enabled = enabled
        self.mark.text = self._markText(state, reason)
        self.mark.toolTip = reason

    def _makeSelector(self):
        selector = slicer.qMRMLNodeComboBox()
        selector.objectName = f"inputSelector_{self.modality}"
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False  # no label maps
        selector.addEnabled = selector.removeEnabled = selector.renameEnabled = False
        selector.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)  # long names widen no panel
        selector.noneEnabled = True
        selector.noneDisplay = _("Choose a volume")
        selector.toolTip = _("The loaded volume that is the {modality} of the patient.").format(
            modality=self.modality
        )
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChosen)
        selector.connect("nodeActivated(vtkMRMLNode*)", self._onChosen)  # a guess that is confirmed
        return selector

    def _markText(self, state: str, reason: str) -> str:
        if state == "chosen":
            return marked(_("chosen"), GOOD, "✓")
        if state == "guess":
            return marked(_("guessed: {reason}").format(reason=reason), CHECK, "●")
        if state == "notAvailable":
            return marked(_("left out: the model does without it"), QUIET, "○")
        if self.optional:
            return marked(_("choose a volume, or tick “not available”"), CHECK, "●")
        return marked(_("needed: choose a volume"), BAD, "●")

    def _onChosen(self, node=None) -> None:
        self._onChosenCallback(self.modality, node)

    def _onNotAvailable(self, checked: bool) -> None:
        self._onNotAvailableCallback(self.modality, checked)
