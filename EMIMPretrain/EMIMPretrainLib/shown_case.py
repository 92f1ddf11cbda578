"""Showing a case of the cohort in the slice views."""

from __future__ import annotations

from .panel_state import PanelState
from .shown_errors import onceAtATime, shownErrors


@onceAtATime
def showCase(row, logic, state: PanelState) -> None:
    """Load the images and the labels of a ``CaseRow``; a problem is shown."""
    with shownErrors(wait=True):
        if state.previewing:  # its views are linked and all axial
            state.previewing = False
            logic.endPreview()
        structures = logic.structures(state.parameterNode) if state.parameterNode else None
        exported = logic.exportedLabels(state.table)
        logic.loadCase(row, structures=structures, label=exported.get(row.id))
