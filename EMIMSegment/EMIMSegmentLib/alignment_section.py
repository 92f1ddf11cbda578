"""Align the inputs to the reference, and look at the result."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from EMIMLib.error_display import showError
from EMIMSegmentLib.marks import CHECK, marked, paragraph
from EMIMSegmentLib.section_job import SectionJob
from EMIMSegmentLib.tables import fillTable


class AlignmentSection:
    def __init__(self, ui, logic, state) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._figures = {}  # ID of the transform that aligns: what was found when it was made
        self._looking = False
        self.job = SectionJob(
            state, ui.alignButton, ui.alignmentLogFrame, _("Aligning"), self._begin, self._onAligned
        )
        ui.undoAlignmentButton.connect("clicked(bool)", self._onUndo)
        ui.alignedRadioButton.connect("clicked(bool)", self._onShownChanged)
        ui.asLoadedRadioButton.connect("clicked(bool)", self._onShownChanged)
        ui.alignmentLookComboBox.connect("activated(int)", self._look)
        ui.alignmentFadeSlider.connect("valueChanged(double)", self._onFade)
        ui.alignmentCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)

    def forget(self) -> None:
        """Let go of what was found in the scene, which is being closed."""
        self._figures = {}

    def update(self) -> None:
        ui, idle = self.ui, self.state.job is None
        inputs, reference = self.state.inputs(), self.state.reference()
        moving = [m for m in inputs if m != reference]
        aligned = [m for m in moving if self.logic.alignmentOf(inputs[m])]
        ui.alignmentHintLabel.text = (
            _(
                "Moves the other inputs onto {reference} by shift and rotation. Files stay as they are."
            ).format(reference=reference)
            if moving
            else _("Choose at least two inputs to align them.")
        )
        self.job.update("" if moving else _("Choose at least two inputs."))
        ui.undoAlignmentButton.enabled = idle and bool(aligned)
        ui.alignmentLookFrame.visible = bool(moving)
        self._updateShown(inputs, aligned, idle)
        self._updateLook(moving)
        self._updateFigures({m: self.logic.alignmentOf(inputs[m]).GetID() for m in aligned})

    def _updateShown(self, inputs: dict, aligned: list, idle: bool) -> None:
        shown = any(self.logic.isAlignmentShown(inputs[m]) for m in aligned)
        for button, on in ((self.ui.alignedRadioButton, shown), (self.ui.asLoadedRadioButton, not shown)):
            button.checked = on
            button.enabled = idle and bool(aligned)

    def _updateLook(self, moving: list) -> None:
        combo = self.ui.alignmentLookComboBox
        if [combo.itemText(i) for i in range(combo.count)] != moving:
            combo.clear()
            combo.addItems(moving)

    def _updateFigures(self, aligned: dict) -> None:
        figures = {m: self._figures[key] for m, key in aligned.items() if key in self._figures}
        rows = [
            (
                modality,
                f"{figure['translation_mm']:.1f}",
                f"{figure['rotation_deg']:.1f}",
                f"{figure['similarity_before']:.2f} → {figure['similarity_after']:.2f}",
            )
            for modality, figure in figures.items()
        ]
        headers = (_("Input"), _("Shift (mm)"), _("Rotation (°)"), _("Similarity"))
        fillTable(self.ui.alignmentTable, headers, rows)
        self.ui.alignmentTable.visible = bool(rows)
        warnings = [
            marked(f"{m}: {f['warning']}", CHECK, "●") for m, f in figures.items() if f.get("warning")
        ]
        self.ui.alignmentWarningLabel.text = paragraph(*warnings)
        self.ui.alignmentWarningLabel.visible = bool(warnings)

    def _begin(self, onEvent, onFinished):
        return self.logic.align(
            self.state.inputs(),
            self.state.reference(),
            waitForCompletion=False,
            onEvent=onEvent,
            onFinished=onFinished,
        )

    def _onAligned(self, run) -> None:
        for modality, transform in run.transforms.items():
            self._figures[transform.GetID()] = run.alignments[modality]
        self.state.changed()
        self._look()

    def _onUndo(self, checked: bool = False) -> None:
        try:
            self.logic.removeAlignment(self.state.inputs())
        except Exception as error:
            showError(error)
        self.state.changed()

    def _onShownChanged(self, checked: bool = False) -> None:
        self.logic.setAlignmentShown(self.state.inputs(), self.ui.alignedRadioButton.checked)
        self.state.changed()
        self._look()

    def _look(self, index: int = 0) -> None:
        inputs = self.state.inputs()
        reference, moving = (
            inputs.get(self.state.reference()),
            inputs.get(self.ui.alignmentLookComboBox.currentText),
        )
        if reference and moving:
            self.logic.showAlignment(reference, moving)
            self._looking = True
            slicer.util.setSliceViewerLayers(foregroundOpacity=self.ui.alignmentFadeSlider.value)

    def _onFade(self, value: float) -> None:
        if not self._looking:
            self._look()
        slicer.util.setSliceViewerLayers(foregroundOpacity=value)

    def _onCollapsed(self, collapsed: bool) -> None:
        if collapsed and self._looking:
            self._looking = False
            slicer.util.setSliceViewerLayers(foreground=None)
