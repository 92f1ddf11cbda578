"""Binding of widgets and parameters that can be undone, lets one type, and outlives the removal of nodes."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.parameterNodeWrapper import GuiConnector, createGuiConnector

FIRST = 10.0  # priority of the observer that calls releaseNode: before Slicer's models of the scene


def connectGui(parameterNode: Any, ui: Any) -> int:
    """Bind every widget of ``ui`` that names a parameter (SlicerParameterName) to the wrapped node.

    The node's own ``connectGui`` returns None in some versions of Slicer (its issue 7547), so that the
    widgets would go on writing to nodes that are shown no more.

    Args:
        ui: what ``slicer.util.childWidgetVariables`` returns.

    Returns:
        The tag for ``disconnectGui``.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    named.pop(None, None)
    return parameterNode.connectParametersToGui(
        {name: _connector(widget, parameterNode.dataType(name)) for name, widget in named.items()}
    )


def _connector(widget: Any, datatype: Any) -> GuiConnector:
    """Slicer's connector, but one that leaves a widget alone which shows the value already.

    Slicer writes every widget at every keystroke: "0" became "0.000" before a decimal point could follow.
    """
    connector = createGuiConnector(widget, datatype)
    write = connector.write

    def writeOther(value: Any) -> None:
        if connector.read() != value:
            write(value)

    connector.write = writeOther
    return connector


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
