"""Say which loaded volume is which MRI sequence."""

from __future__ import annotations

import html

import qt
import slicer
from slicer.i18n import tr as _

from EMIMSegmentLib.input_row import InputRow
from EMIMSegmentLib.marks import BAD, CHECK, marked, paragraph


class InputsSection:
    """One row per modality of the chosen model, made from its card."""

    def __init__(self, ui, logic, state) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self.rows: list[InputRow] = []
        self._container = self._builtFor = None
        self._problems = []
        self._leftOutFor = set()  # examinations and volumes that "not available" was ticked for
        ui.guessAgainButton.connect("clicked(bool)", self._onGuessAgain)
        ui.referenceComboBox.connect("currentIndexChanged(int)", self._onReferenceChosen)

    def guess(self) -> None:
        """Assign volumes to the modalities that the user has not decided, of the patient of those decided."""
        node, card = self.state.parameterNode, self.state.card
        if node and card and any(node.inputState(m) in ("unset", "guess") for m in card.modalities):
            chosen = [node.inputNode(m) for m in card.modalities if node.inputState(m) == "chosen"]
            node.applyGuesses(self.logic.guessInputs(card, chosen), card.modalities)

    def forget(self) -> None:
        """Let go of what was known of the scene, which is being closed, or gets choices from a file."""
        self._leftOutFor = set()

    def update(self) -> None:
        node, card, ui = self.state.parameterNode, self.state.card, self.ui
        self._takeBackTicks()
        self._buildRows(card)
        idle = self.state.job is None
        for row in self.rows:
            m = row.modality
            row.update(node.inputNode(m), node.inputState(m), node.inputReason(m), idle)
        ui.inputsHintLabel.text = self._hint()
        ui.inputsHintLabel.visible = bool(ui.inputsHintLabel.text)
        self._problems = self._check()
        ui.inputProblemsLabel.text = paragraph(*(_problemText(p) for p in self._problems))
        ui.inputProblemsLabel.visible = bool(self._problems)
        ui.guessAgainButton.enabled = idle and card is not None
        self._updateReference(idle)
        classifies = self.state.classifies
        ui.referenceLabel.text = _("Common grid:") if classifies else _("Grid of the result:")
        ui.referenceComboBox.toolTip = (
            _("The other inputs are brought to the grid of this one; the result is named after it.")
            if classifies
            else _("The segmentation gets the position, the voxel size and the extent of this input.")
        )

    def reason(self) -> str:
        """Why the inputs cannot be used yet, in words; empty when they can."""
        node, card = self.state.parameterNode, self.state.card
        if not card:
            return _("Choose a model.")
        unset = [m for m in card.modalities if node.inputState(m) == "unset"]
        if unset:
            return _("Choose a volume for {names}, or say that it is not available.").format(
                names=", ".join(unset)
            )
        if not self.state.inputs():
            return _("Choose at least one volume.")
        return next((p.what for p in self._problems if p.blocking), "")

    def _hint(self) -> str:
        if not self.state.card:
            return _("The inputs appear here once a model is chosen.")
        if slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0:
            return _(
                "No volume is loaded. Load a patient (DICOM, or File, Add Data), "
                "or try the practice case in the module Sample Data."
            )
        return ""

    def _takeBackTicks(self) -> None:
        """What was not available of one patient may be of the next."""
        node, card = self.state.parameterNode, self.state.card
        ticked = [m for m in card.modalities if node.inputState(m) == "notAvailable"] if card else []
        if not ticked:
            self._leftOutFor = set()
            return
        volumes = self.state.inputs().values()
        examinations = self.logic.examinationsOf(card, volumes)
        told = examinations | {volume.GetID() for volume in volumes}  # these may be put into another folder
        if not self._leftOutFor:
            self._leftOutFor = told
        elif examinations and not told & self._leftOutFor:
            self._leftOutFor = set()
            for modality in ticked:
                node.setNotAvailable(modality, False)
            self.guess()

    def _check(self) -> list:
        """What is wrong with the inputs as far as they are chosen."""
        inputs = self.state.inputs()
        problems = self.logic.checkInputs(self.state.card, inputs) if inputs else []
        # A row without a volume says so itself.
        return [p for p in problems if not (p.modality and p.modality not in inputs)]

    def _buildRows(self, card) -> None:
        wanted = (card.modalities, card.optional) if card else None
        if wanted == self._builtFor:
            return
        if self._container:
            self._container.visible = False
            self._container.deleteLater()
        self.rows, self._container, self._builtFor = [], None, wanted
        if not card:
            return
        self._container = qt.QWidget()
        grid = qt.QGridLayout(self._container)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for i, modality in enumerate(card.modalities):
            optional = modality in card.optional
            self.rows.append(InputRow(grid, 2 * i, modality, optional, self._onChosen, self._onNotAvailable))
        self.ui.inputRowsFrame.layout().addWidget(self._container)

    def _updateReference(self, idle: bool) -> None:
        combo = self.ui.referenceComboBox
        inputs = self.state.inputs()
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for modality, volume in inputs.items():
            combo.addItem(_gridText(modality, volume), modality)
        combo.setCurrentIndex(list(inputs).index(self.state.reference()) if inputs else -1)
        combo.blockSignals(wasBlocked)
        combo.enabled = idle and bool(inputs)

    def _onChosen(self, modality: str, volume) -> None:
        if self.state.parameterNode:
            self.state.parameterNode.setInputNode(modality, volume)
            if volume is not None:  # the others may have been guessed from another patient
                self.guess()

    def _onNotAvailable(self, modality: str, notAvailable: bool) -> None:
        if not self.state.parameterNode:
            return
        if notAvailable:
            self.state.parameterNode.setNotAvailable(modality)
        else:
            self.state.parameterNode.setInputNode(modality, None)
            self.guess()

    def _onGuessAgain(self, checked: bool = False) -> None:
        self.state.parameterNode.clearInputs()
        self.guess()

    def _onReferenceChosen(self, index: int) -> None:
        if self.state.parameterNode and index >= 0:
            self.state.parameterNode.referenceModality = self.ui.referenceComboBox.itemData(index)


def _problemText(problem) -> str:
    text = marked(problem.what, BAD if problem.blocking else CHECK, "✕" if problem.blocking else "●")
    return f"{text} {html.escape(problem.hint)}" if problem.hint else text


def _gridText(modality: str, volume) -> str:
    """Such as ``FLAIR (256×256×24, 0.9×0.9×6 mm)``."""
    image = volume.GetImageData()
    if image is None:
        return modality
    size = "×".join(str(n) for n in image.GetDimensions())
    spacing = "×".join(f"{s:.2g}" for s in volume.GetSpacing())
    return f"{modality} ({size}, {spacing} mm)"
