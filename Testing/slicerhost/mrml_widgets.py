"""Stand-ins for Slicer's qMRML widgets: the few the modules use, on the real MRML scene."""

import slicer
from PySide6 import QtGui
from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.ctk_values import ValueWidget
from slicerhost.node_combo_box import qMRMLNodeComboBox  # noqa: F401  (declares the class)
from slicerhost.scene_observer import SceneObserver
from slicerhost.widget_classes import properties, stand_in


@stand_in
class qMRMLWidget(SceneObserver, W.QWidget):
    """The root of every panel: passes the scene on."""

    mrmlSceneChanged = Signal(object)
    slicerSignals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def _scene_set(self):
        self.mrmlSceneChanged.emit(self.mrmlScene())


@stand_in
class qSlicerWidget(qMRMLWidget):
    pass


@stand_in
class qMRMLSliderWidget(ValueWidget):
    locals().update(properties(quantity=(str, "")))


@stand_in
class qMRMLSpinBox(ValueWidget):
    hasSlider = False
    locals().update(properties(quantity=(str, "")))


@stand_in
class qMRMLSegmentsTableView(SceneObserver, W.QWidget):
    """Colour, name and visibility of each segment; the visibility can be switched."""

    selectionChanged = Signal(object, object)
    locals().update(
        properties(
            headerVisible=(bool, True),
            visibilityColumnVisible=(bool, True),
            colorColumnVisible=(bool, True),
            opacityColumnVisible=(bool, False),
            statusColumnVisible=(bool, False),
            readOnly=(bool, False),
            jumpToSelectedSegmentEnabled=(bool, False),
            filterBarVisible=(bool, False),
            selectionMode=(int, 3),
        )
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node_id, self._observations = "", []
        self._tree = W.QTreeWidget()
        self._tree.setHeaderLabels(["", "Colour", "Name"])
        self._tree.setRootIsDecorated(False)
        layout = W.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._tree)
        self._tree.itemChanged.connect(self._item_changed)

    def setSegmentationNode(self, node):
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._observations = []
        self._node_id = node.GetID() if node else ""
        if node:
            segmentation = slicer.vtkSegmentation
            events = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
            self._observations = [(node, node.AddObserver(event, self._fill)) for event in events]
        self._fill()

    def segmentationNode(self):
        return slicer.mrmlScene.GetNodeByID(self._node_id) if self._node_id else None

    def _scene_changed(self):
        if self._node_id and not self.segmentationNode():
            self.setSegmentationNode(None)

    def _fill(self, *_):
        blocked = self._tree.blockSignals(True)
        self._tree.clear()
        node = self.segmentationNode()
        for segment_id in node.GetSegmentation().GetSegmentIDs() if node else []:
            segment = node.GetSegmentation().GetSegment(segment_id)
            item = W.QTreeWidgetItem(["", "", segment.GetName()])
            item.setData(0, Qt.UserRole, segment_id)
            display = node.GetDisplayNode()
            visible = display is None or display.GetSegmentVisibility(segment_id)
            item.setCheckState(0, Qt.Checked if visible else Qt.Unchecked)
            item.setBackground(1, QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._tree.addTopLevelItem(item)
        for column in range(3):
            self._tree.resizeColumnToContents(column)
        self._tree.blockSignals(blocked)

    def _item_changed(self, item, column):
        node = self.segmentationNode()
        if node and column == 0 and node.GetDisplayNode():
            visible = item.checkState(0) == Qt.Checked
            node.GetDisplayNode().SetSegmentVisibility(item.data(0, Qt.UserRole), visible)

    def selectedSegmentIDs(self):
        return tuple(item.data(0, Qt.UserRole) for item in self._tree.selectedItems())

    def setSelectedSegmentIDs(self, segment_ids):
        for row in range(self._tree.topLevelItemCount):
            item = self._tree.topLevelItem(row)
            item.setSelected(item.data(0, Qt.UserRole) in segment_ids)

    segmentCount = Property(int, lambda self: self._tree.topLevelItemCount)
