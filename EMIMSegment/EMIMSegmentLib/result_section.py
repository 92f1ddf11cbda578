"""Look at the segmentation, read its measurements, save it."""

from __future__ import annotations

import html
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib.error_display import showError
from EMIMLib.models import folderName
from EMIMSegmentLib.display import SURFACE, showSurface
from EMIMSegmentLib.marks import CHECK, marked, paragraph
from EMIMSegmentLib.measured_content import contentTimes
from EMIMSegmentLib.measurements_view import showMeasurements
from EMIMSegmentLib.result_nodes import noteCorrected, sizeChangeText
from EMIMSegmentLib.tables import tableText

ROW_HEIGHT, MOST_ROWS = 26, 8  # of the table of segments, which has no height of its own


class ResultSection:
    """Shows the segmentation chosen in the parameter node, made, or looked at, whichever came last."""

    def __init__(self, ui, logic, state) -> None:
        self.ui, self.logic, self.state = ui, logic, state
        self._shownID = self._outputID = ""
        self._message = ""
        self._judgedFor, self._edited = None, False
        ui.opacitySlider.connect("valueChanged(double)", self._onOpacity)
        ui.fillCheckBox.connect("clicked(bool)", self._onFill)
        ui.outlineCheckBox.connect("clicked(bool)", self._onOutline)
        ui.surface3DCheckBox.connect("clicked(bool)", self._onSurface)
        ui.probabilityComboBox.connect("activated(int)", self._onProbability)
        ui.exportNiftiButton.connect("clicked(bool)", self._onExportNifti)
        ui.exportSegNrrdButton.connect("clicked(bool)", self._onExportSegNrrd)
        ui.copyMeasurementsButton.connect("clicked(bool)", self._onCopy)

    @property
    def segmentation(self):
        """The segmentation node that is shown, or None."""
        node = slicer.mrmlScene.GetNodeByID(self._shownID) if self._shownID else None
        return node if node is not None and node.IsA("vtkMRMLSegmentationNode") else None

    def showRun(self, run) -> None:
        """Show what a run has made, and say what it had to do without."""
        self.show(run.segmentation)
        self.ui.resultCollapsibleButton.collapsed = False

    def show(self, segmentation) -> None:
        """Show this one until another is chosen or made."""
        self._shownID = segmentation.GetID()
        self._message = ""
        self.ui.probabilityComboBox.setCurrentIndex(0)
        self.state.changed()

    def forget(self) -> None:
        """Let go of the segmentation: the scene is being closed."""
        self._shownID = self._outputID = ""
        self.ui.segmentsTable.setSegmentationNode(None)

    def update(self) -> None:
        node, ui = self.state.parameterNode, self.ui
        outputID = node.outputSegmentation.GetID() if node.outputSegmentation else ""
        if outputID not in ("", self._shownID) and (outputID != self._outputID or not self.segmentation):
            self._shownID = outputID
            self._message = ""
        self._outputID = outputID
        segmentation = self.segmentation
        ui.resultFrame.visible = segmentation is not None and not self.state.classifies
        if segmentation is None:
            self._shownID = ""
            ui.resultLabel.text = _("The segmentation appears here after Apply.")
            ui.segmentsTable.setSegmentationNode(None)
            return
        if self.state.classifies:
            return
        ui.resultLabel.text = paragraph(
            self._message or self._origin(segmentation),
            self._withoutText(segmentation),
            *(marked(text, CHECK, "●") for text in self._warnings(segmentation)),
        )
        if ui.segmentsTable.segmentationNode() is not segmentation:
            ui.segmentsTable.setSegmentationNode(segmentation)
        rows = min(segmentation.GetSegmentation().GetNumberOfSegments(), MOST_ROWS)
        ui.segmentsTable.setFixedHeight((rows + 2) * ROW_HEIGHT)
        self._updateDisplay(segmentation)
        self._updateProbabilities(segmentation)
        measured = showMeasurements(
            ui.measurementsTable, self.logic.measurementsTable(segmentation), segmentation
        )
        ui.measurementsTable.visible = measured
        ui.copyMeasurementsButton.enabled = measured

    def export(self, path: str) -> None:
        """Save the segmentation; the ending of ``path`` says how. A problem is shown."""
        try:
            warnings: list[str] = []
            written = self.logic.exportResult(self.segmentation, path, onWarning=warnings.append)
        except Exception as error:
            showError(error)
            return
        saved = html.escape(_("Saved as {path}").format(path=written))
        self._message = paragraph(saved, *(marked(text, CHECK, "●") for text in warnings))
        self.state.changed()

    def _updateDisplay(self, segmentation) -> None:
        display, ui = segmentation.GetDisplayNode(), self.ui
        if display is None:
            return
        ui.fillCheckBox.checked = display.GetVisibility2DFill()
        ui.outlineCheckBox.checked = display.GetVisibility2DOutline()
        hasSurface = segmentation.GetSegmentation().ContainsRepresentation(SURFACE)
        ui.surface3DCheckBox.checked = hasSurface and display.GetVisibility3D()

    def _updateProbabilities(self, segmentation) -> None:
        names = list(self.logic.probabilityVolumes(segmentation))
        combo = self.ui.probabilityComboBox
        if [combo.itemData(i) for i in range(1, combo.count)] != names:
            combo.clear()
            combo.addItem(_("not shown"), "")
            for name in names:
                combo.addItem(name, name)
        for widget in (combo, self.ui.probabilityLabel):
            widget.visible = bool(names)

    def _origin(self, segmentation) -> str:
        name = f"<b>{html.escape(segmentation.GetName())}</b>"
        model = self.logic.madeWith(segmentation)
        return _("{name}, made with {model}").format(name=name, model=html.escape(model)) if model else name

    def _withoutText(self, segmentation) -> str:
        names = ", ".join(self.logic.missingModalities(segmentation))
        return marked(_("made without {names}").format(names=names), CHECK, "●") if names else ""

    def _warnings(self, segmentation) -> list[str]:
        """What is to be known of its measurements."""
        edited = _("Edited since: these are the model's measurements.")
        found = [edited if self._isEdited(segmentation) else "", sizeChangeText(segmentation)]
        return [text for text in found if text]

    def _isEdited(self, segmentation) -> bool:
        """Whether the measurements are no longer those of the segmentation."""
        judgedFor = contentTimes(segmentation)
        if judgedFor != self._judgedFor:
            self._judgedFor, self._edited = judgedFor, self.logic.isEdited(segmentation)
            if self._edited:
                noteCorrected(segmentation)
        return self._edited

    def _onOpacity(self, value: float) -> None:
        if self.segmentation is not None and self.segmentation.GetDisplayNode() is not None:
            self.segmentation.GetDisplayNode().SetOpacity2DFill(value)

    def _onFill(self, checked: bool) -> None:
        self.segmentation.GetDisplayNode().SetVisibility2DFill(checked)

    def _onOutline(self, checked: bool) -> None:
        self.segmentation.GetDisplayNode().SetVisibility2DOutline(checked)

    def _onSurface(self, checked: bool) -> None:
        showSurface(self.segmentation, checked)

    def _onProbability(self, index: int) -> None:
        structure = self.ui.probabilityComboBox.itemData(index)
        self.logic.showProbability(self.segmentation, structure or None)

    def _onExportNifti(self, checked: bool = False) -> None:
        self._export(".nii.gz", _("Label map (*.nii.gz)"))

    def _onExportSegNrrd(self, checked: bool = False) -> None:
        self._export(".seg.nrrd", _("Segmentation (*.seg.nrrd)"))

    def _export(self, ending: str, kind: str) -> None:
        suggestion = str(Path.home() / (folderName(self.segmentation.GetName()) + ending))
        parent, title = slicer.util.mainWindow(), _("Save the segmentation")
        path = qt.QFileDialog.getSaveFileName(parent, title, suggestion, kind)
        if path:
            self.export(path if path.lower().endswith(ending) else path + ending)

    def _onCopy(self, checked: bool = False) -> None:
        lines = [tableText(self.ui.measurementsTable), *self._warnings(self.segmentation)]
        qt.QApplication.clipboard().setText("\n".join(lines))
