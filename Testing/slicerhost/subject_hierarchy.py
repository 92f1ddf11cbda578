"""Stand-in for the Qt class that keeps subject-hierarchy items: one item for each visible data node.

No method keeps a reference to the subject-hierarchy node: one held while the scene is cleared and loaded
makes Slicer's C++ code loop forever.
"""

import slicer
import vtk

_BEFORE_VIEWS = 10.0  # observer priority: items exist before the displayable managers hear of a node


class SubjectHierarchyItems:
    def __init__(self, scene):
        self._scene = scene
        for event, react in (
            (slicer.vtkMRMLScene.NodeAddedEvent, self._added),
            (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._about_to_be_removed),
            (slicer.vtkMRMLScene.EndImportEvent, self._imported),
            (slicer.vtkMRMLScene.EndCloseEvent, self._closed),
        ):
            scene.AddObserver(event, react, _BEFORE_VIEWS)

    def _hierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    @staticmethod
    def _has_item(node):
        """Whether Slicer's plugins would show the node in the Data module."""
        kinds = (
            slicer.vtkMRMLDisplayableNode,
            slicer.vtkMRMLTableNode,
            slicer.vtkMRMLTextNode,
            slicer.vtkMRMLPlotChartNode,
            slicer.vtkMRMLPlotSeriesNode,
        )
        return (
            isinstance(node, kinds)
            and not isinstance(node, slicer.vtkMRMLCameraNode)
            and not node.GetHideFromEditors()
        )

    def _add_item(self, node):
        if self._has_item(node):
            hierarchy = self._hierarchy()
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _added(self, scene, event, node):
        if isinstance(node, slicer.vtkMRMLSubjectHierarchyNode):
            slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        elif not scene.IsImporting():
            self._add_item(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _about_to_be_removed(self, scene, event, node):
        if scene.IsClosing() or scene.IsImporting() or not self._has_item(node):
            return
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
        if item:
            hierarchy.RemoveItem(item, False, False)

    def _imported(self, scene, event):
        slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        for index in range(scene.GetNumberOfNodes()):
            self._add_item(scene.GetNthNode(index))

    def _closed(self, scene, event):
        hierarchy = scene.GetSubjectHierarchyNode()
        if hierarchy:
            hierarchy.RemoveAllItems(True)
