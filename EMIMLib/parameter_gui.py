"""Binding of widgets and parameters that can be undone, lets one type, and outlives the removal of nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import slicer
import vtk
from slicer.parameterNodeWrapper import createGuiConnector

FIRST = 10.0  # priority of the observer that calls releaseNode: before Slicer's models of the scene


class GuiBinding:
    """Widgets and parameters that follow each other, from now until :meth:`release`.

    In place of the wrapped node's own ``connectGui``. That one writes every widget at every keystroke: "0"
    became "0.000" before a decimal point could follow. In some versions of Slicer it returns no tag for
    ``disconnectGui`` (issue 7547), or leaves its observer with the node, which crashes once the garbage
    collector has taken what the observer refers to.

    Args:
        parameterNode: the wrapped node.
        ui: what ``slicer.util.childWidgetVariables`` returns; its widgets that name a parameter
            (SlicerParameterName) are bound.
        onModified: called after the node was modified, when the widgets show it.
    """

    def __init__(self, parameterNode: Any, ui: Any, onModified: Callable[[], None]) -> None:
        self._node, self._callback, self._showing = parameterNode, onModified, False
        named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
        named.pop(None, None)
        self._connectors = {
            name: createGuiConnector(widget, parameterNode.dataType(name)) for name, widget in named.items()
        }
        self._show()
        for name, connector in self._connectors.items():
            connector.onChanged(partial(self._store, name))
        self._observation = parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)

    def release(self) -> None:
        """Let widgets and node go their own ways."""
        for connector in self._connectors.values():
            connector.onChanged(None)
        self._node.RemoveObserver(self._observation)

    def _onModified(self, caller: Any, event: str) -> None:
        if not self._showing:
            self._show()
        self._callback()

    def _show(self) -> None:
        """Write the widgets that show something else."""
        self._showing = True
        try:
            with slicer.util.NodeModify(self._node):
                for name, connector in self._connectors.items():
                    value = self._node.getValue(name)
                    if connector.read() != value:
                        connector.write(value)
        finally:
            self._showing = False

    def _store(self, name: str) -> None:
        if not self._showing:
            self._node.setValue(name, self._connectors[name].read())


def releaseNode(parameterNode: Any, node: Any) -> None:
    """Let go of ``node``, which is about to be removed, wherever the wrapped node refers to it.

    A selector would take the row that Qt makes current in its place for the user's choice.
    """
    stored = parameterNode.parameterNode
    roles: list[str] = []
    stored.GetNodeReferenceRoles(roles)
    with slicer.util.NodeModify(stored):
        for role in roles:
            if stored.GetNodeReference(role) is node:
                stored.SetNodeReferenceID(role, None)
