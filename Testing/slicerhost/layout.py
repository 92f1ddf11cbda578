"""Stand-in for Slicer's layout manager: which views exist follows Slicer's own layout logic.

The views are made when the layout first needs them and drawn only when asked.
"""

import slicer
import vtk
from PySide6.QtCore import Property, QObject, Signal

from slicerhost.chart_view import ChartView
from slicerhost.table_view import TableView
from slicerhost.views import SliceView, ThreeDView


class _Facade:
    """The methods of a Slicer view widget that the modules use; anything else is an AttributeError."""

    __slots__ = ("_view",)

    def __init__(self, view):
        self._view = view


class SliceViewWidget(_Facade):
    __slots__ = ()

    def forceRender(self):
        self._view.render()

    scheduleRender = forceRender

    def renderWindow(self):
        return self._view.window


class SliceWidget(_Facade):
    __slots__ = ()

    def mrmlSliceNode(self):
        return self._view.node

    def mrmlSliceCompositeNode(self):
        return self._view.composite

    def sliceLogic(self):
        return self._view.logic

    def sliceView(self):
        return SliceViewWidget(self._view)

    def fitSliceToBackground(self):
        self._view.logic.FitSliceToBackground()


class ThreeDViewWidget(_Facade):
    __slots__ = ()

    def resetFocalPoint(self):
        self._view.fit()

    resetCamera = resetFocalPoint

    def forceRender(self):
        self._view.render()

    scheduleRender = forceRender

    def renderWindow(self):
        return self._view.window

    def mrmlViewNode(self):
        return self._view.node

    def cameraNode(self):
        return self._view.camera()


class ThreeDWidget(_Facade):
    __slots__ = ()

    def threeDView(self):
        return ThreeDViewWidget(self._view)

    def mrmlViewNode(self):
        return self._view.node

    def viewLogic(self):
        return self._view.logic


class PlotViewWidget(_Facade):
    __slots__ = ()

    def fitToContent(self):
        """The picture of a chart always shows all of it."""

    def repaint(self):
        """Drawn when asked."""

    def mrmlPlotViewNode(self):
        return self._view.node


class PlotWidget(_Facade):
    __slots__ = ()

    def plotView(self):
        return PlotViewWidget(self._view)

    def mrmlPlotViewNode(self):
        return self._view.node


class TableViewWidget(_Facade):
    __slots__ = ()

    def repaint(self):
        """Drawn when asked."""

    def mrmlTableNode(self):
        return self._view.table()


class TableWidget(_Facade):
    __slots__ = ()

    def tableView(self):
        return TableViewWidget(self._view)

    def mrmlTableViewNode(self):
        return self._view.node


class qMRMLLayoutManager(QObject):
    """The part of Slicer's class of this name that the modules use."""

    slicerClassName = "qMRMLLayoutManager"
    layoutChanged = Signal(int)

    def __init__(self, applicationLogic, scene):
        super().__init__()
        self._applicationLogic = applicationLogic
        self._views = {}
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(applicationLogic)
        self._logic.SetMRMLScene(scene)
        self._shown = None
        self._logic.GetLayoutNode().AddObserver(vtk.vtkCommand.ModifiedEvent, self._layout_modified)
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def _layout_modified(self, caller, event):
        for node in self._nodes():
            self._view(node)
        if caller.GetViewArrangement() != self._shown:
            self._shown = caller.GetViewArrangement()
            self.layoutChanged.emit(self._shown)

    def _nodes(self, kind="vtkMRMLAbstractViewNode"):
        """The view nodes of the layout that is shown."""
        nodes = self._logic.GetViewNodes()
        items = (nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems()))
        return [node for node in items if node.IsA(kind)]

    def _view(self, node):
        if node.GetID() not in self._views:
            self._views[node.GetID()] = self._make(node)
        return self._views[node.GetID()]

    def _make(self, node):
        if node.IsA("vtkMRMLSliceNode"):
            return SliceView(self._applicationLogic, node)
        if node.IsA("vtkMRMLViewNode"):
            return ThreeDView(self._applicationLogic, node)
        if node.IsA("vtkMRMLPlotViewNode"):
            return ChartView(node)
        return TableView(node)

    def layoutRoot(self):
        """The XML description of the layout that is shown (test host only)."""
        return self._logic.GetLayoutNode().GetLayoutRootElement()

    def viewOf(self, kind, layoutName):
        """The view that draws the view node of this class and layout name (test host only)."""
        return next(self._view(n) for n in self._nodes(kind) if n.GetLayoutName() == layoutName)

    def layoutLogic(self):
        return self._logic

    def setLayout(self, arrangement):
        self._logic.GetLayoutNode().SetViewArrangement(int(arrangement))

    layout = Property(int, lambda self: self._logic.GetLayoutNode().GetViewArrangement(), setLayout)

    def sliceViewNames(self):
        return tuple(node.GetLayoutName() for node in self._nodes("vtkMRMLSliceNode"))

    def sliceWidget(self, name):
        """The slice view of this name, also one that the present layout does not show; None if unknown."""
        for view in self._views.values():
            if isinstance(view, SliceView) and view.node.GetLayoutName() == name:
                return SliceWidget(view)
        return None

    def mrmlSliceLogics(self):
        return self._applicationLogic.GetSliceLogics()

    def threeDWidget(self, index):
        return self._widget(ThreeDWidget, "vtkMRMLViewNode", index)

    def plotWidget(self, index):
        return self._widget(PlotWidget, "vtkMRMLPlotViewNode", index)

    def tableWidget(self, index):
        return self._widget(TableWidget, "vtkMRMLTableViewNode", index)

    def _widget(self, widget, kind, index):
        nodes = self._nodes(kind)
        return widget(self._view(nodes[index])) if 0 <= index < len(nodes) else None

    threeDViewCount = Property(int, lambda self: len(self._nodes("vtkMRMLViewNode")))
    plotViewCount = Property(int, lambda self: len(self._nodes("vtkMRMLPlotViewNode")))
    tableViewCount = Property(int, lambda self: len(self._nodes("vtkMRMLTableViewNode")))

    def resetSliceViews(self):
        for node in self._nodes("vtkMRMLSliceNode"):
            self._view(node).logic.FitSliceToBackground()

    def resetThreeDViews(self):
        for node in self._nodes("vtkMRMLViewNode"):
            self._view(node).fit()
