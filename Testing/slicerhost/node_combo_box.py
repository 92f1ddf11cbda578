"""Stand-in for qMRMLNodeComboBox.

Of new nodes it never chooses one by itself, unlike Slicer's: modules choose in code. Where the chosen node is
removed, the next one is taken, as Slicer's does, because Qt makes it current. After a scene was imported or
closed none is chosen, because Slicer's takes all rows out and puts them in again (its issue 4570).
"""

from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, Signal

from slicerhost.scene_observer import SceneObserver
from slicerhost.widget_classes import properties, stand_in


@stand_in
class qMRMLNodeComboBox(SceneObserver, W.QWidget):
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeActivated = Signal(object)
    slicerSignals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_currentNodeIsSet",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }
    _currentNodeIsSet = Signal(bool)
    locals().update(
        properties(
            nodeTypes=("QStringList", (), "_scene_changed"),
            showHidden=(bool, False, "_scene_changed"),
            showChildNodeTypes=(bool, True, "_scene_changed"),
            hideChildNodeTypes=("QStringList", (), "_scene_changed"),
            baseName=(str, ""),
            noneEnabled=(bool, False, "_scene_changed"),
            noneDisplay=(str, "None", "_scene_changed"),
            addEnabled=(bool, True),
            removeEnabled=(bool, True),
            editEnabled=(bool, False),
            renameEnabled=(bool, False),
            selectNodeUponCreation=(bool, True),
            interactionNodeSingletonTag=(str, ""),
        )
    )

    def __init__(self, parent=None):
        super().__init__(parent)
        self._box, self._ids, self._attributes, self._current = W.QComboBox(), [], [], ""
        self._without_rows = False
        layout = W.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._chosen)

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.append((nodeType, name, value))
        self._scene_changed()

    def _offers(self, node):
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        if self.showChildNodeTypes:
            wanted = any(node.IsA(kind) for kind in self.nodeTypes)
        else:
            wanted = node.GetClassName() in self.nodeTypes
        if not wanted:
            return False
        return all(
            node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
            for kind, name, value in self._attributes
            if node.IsA(kind)
        )

    def _nodes(self):
        scene = self.mrmlScene()
        nodes = (scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())) if scene else ()
        return [node for node in nodes if self._offers(node)]

    def _scene_changed(self):
        nodes, before = self._nodes(), self._ids
        blocked = self._box.blockSignals(True)
        self._box.clear()
        self._ids = [""] if self.noneEnabled else []
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay)
        for node in nodes:
            self._ids.append(node.GetID())
            self._box.addItem(node.GetName())
        kept = self._current if self._current in self._ids else self._neighbour(before)
        self._box.setCurrentIndex(self._ids.index(kept) if kept in self._ids else -1)
        self._box.blockSignals(blocked)
        self._set(kept)

    def _scene_replaced(self):
        self._without_rows = True
        self._set("")
        self._without_rows = False
        self._scene_changed()

    def _neighbour(self, before):
        """What is current after the removal of the current one of ``before``."""
        if self._current not in before or not any(self._ids):
            return ""
        # Where that is no node, Slicer's takes the last one.
        return self._ids[min(before.index(self._current), len(self._ids) - 1)] or self._ids[-1]

    def _chosen(self, index):
        self._set(self._ids[index] if 0 <= index < len(self._ids) else "")

    def _set(self, node_id):
        if node_id != self._current:
            self._current = node_id
            self.currentNodeIDChanged.emit(node_id)
            self.currentNodeChanged.emit(self.currentNode())
            self._currentNodeIsSet.emit(self.currentNode() is not None)

    def currentNode(self):
        return self.mrmlScene().GetNodeByID(self._current) if self.mrmlScene() and self._current else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, node_id):
        """Chooses a node; instead of one that the box does not offer none, as in Slicer."""
        if node_id and node_id not in self._ids:
            self._scene_changed()
        if node_id not in self._ids or self._without_rows:
            node_id = ""
        blocked = self._box.blockSignals(True)
        self._box.setCurrentIndex(self._ids.index(node_id) if node_id in self._ids else -1)
        self._box.blockSignals(blocked)
        self._set(node_id)

    currentNodeID = Property(str, lambda self: self._current, setCurrentNodeID)

    def nodeCount(self):
        return len(self._nodes())

    def nodeFromIndex(self, index):
        return self._nodes()[index]

    def addNode(self, nodeType=""):
        """What the menu entry "Create new …" does."""
        node = self.mrmlScene().AddNewNodeByClass(nodeType or self.nodeTypes[0], self.baseName)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node
