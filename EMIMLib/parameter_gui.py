"""Binding of widgets and parameters that can be undone."""

from __future__ import annotations

from typing import Any


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
    return parameterNode.connectParametersToGui(named)
