"""Put what is loaded in the scene, such as from DICOM, into the cohort."""

from __future__ import annotations

from pathlib import Path

from .panel_state import PanelState
from .shown_errors import shownErrors
from .studies_dialog import StudiesDialog


class StudiesSection:
    """The button that adds loaded studies.

    Args:
        scan: the task of the cohort section that reads the folder.
    """

    def __init__(self, ui, logic, state: PanelState, scan) -> None:
        self.ui, self.logic, self.state, self._scan = ui, logic, state, scan
        ui.addStudiesButton.connect("clicked(bool)", self._onAdd)

    def update(self) -> None:
        self.ui.addStudiesButton.enabled = self.state.parameterNode is not None and self.state.task is None

    def _onAdd(self, checked: bool = False) -> None:
        node = self.state.parameterNode
        with shownErrors():
            dialog = StudiesDialog(self.logic, self._folder(), self.logic.parsePatterns(node.patterns))
            if dialog.exec():
                node.cohortFolder = str(dialog.folder)
                self._scan.start()

    def _folder(self) -> Path:
        """That of the cohort, unless it is none of the user's own."""
        chosen = Path(self.state.parameterNode.cohortFolder)
        own = chosen.is_absolute() and chosen.is_dir() and chosen != self.logic.practiceFolder()
        return chosen if own else self.logic.studiesFolder()
