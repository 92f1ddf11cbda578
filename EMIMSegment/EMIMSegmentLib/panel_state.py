"""What the sections of the panel share."""

from __future__ import annotations

from collections.abc import Callable


class PanelState:
    """The sections read this, change the parameter node, and report other changes by ``changed()``.

    Attributes:
        parameterNode: None while the module is not shown or the scene is being closed or imported.
        model: the chosen ``InstalledModel``, or None.
        job: the :class:`EMIMSegmentLib.section_job.SectionJob` that is running, or None.
        changed: brings the whole panel up to date.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.parameterNode = None
        self.model = None
        self.job = None

    @property
    def card(self):
        """The card of the chosen model, or None when there is no usable model."""
        return self.model.card if self.model and not self.model.problem else None

    @property
    def classifies(self) -> bool:
        """Whether the chosen model tells cases apart; without one, whether the scene holds such a result."""
        if self.card is not None:
            return self.card.task == "classification"
        node = self.parameterNode
        return bool(node and node.outputTable and not node.outputSegmentation)

    def inputs(self) -> dict:
        """Modality to volume node, in the model's order; those without a volume are absent."""
        return self.parameterNode.inputs(self.card) if self.parameterNode and self.card else {}

    def reference(self) -> str:
        """The modality whose grid the result gets; empty without inputs."""
        inputs = self.inputs()
        for modality in (self.parameterNode.referenceModality if inputs else "", self._ownReference()):
            if modality in inputs:
                return modality
        return next(iter(inputs), "")

    def _ownReference(self) -> str:
        return (self.card.preprocess.reference if self.card else None) or ""
