"""What the sections of the panel share."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _


class PanelState:
    """The sections read this, change the parameter node, and report other changes by ``changed()``.

    Attributes:
        parameterNode: None while the scene is being closed or imported.
        table: the scanned ``CohortTable`` of the parameter node's folder, or None.
        monitor: the ``RunMonitor`` of the selected run, or None.
        task: the ``ShortTask`` that is running, or None.
        previewing: whether the slice views show the preview of the selected run.
        training: name of a run that is training on this computer, or "".
        changed: brings the whole panel up to date.
        select: ``select(monitor)`` makes another run the selected one.
    """

    def __init__(self, changed: Callable[[], None], select: Callable) -> None:
        self.changed = changed
        self.select = select
        self.parameterNode = None
        self.table = None
        self.monitor = None
        self.task = None
        self.previewing = False
        self.training = ""

    def busyReason(self) -> str:
        """Why no run can be started now, in words; empty when none is training."""
        if not self.training:
            return ""
        return _("“{name}” is training. Wait until it ends, or pause or cancel it.").format(
            name=self.training
        )
