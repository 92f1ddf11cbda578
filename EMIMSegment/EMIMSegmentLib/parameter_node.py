"""What the user chose in the panel, kept in the scene."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import slicer
from slicer import vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

QUALITIES = ["fast", "balanced", "best"]
EXTENSIONS = [".nii.gz", ".seg.nrrd"]
UNSET, GUESS, CHOSEN, NOT_AVAILABLE = "unset", "guess", "chosen", "notAvailable"


@parameterNodeWrapper
class EMIMSegmentParameterNode:
    """The choices of one scene.

    The volumes are node references, one for each modality of the model, because their number and names
    come from the model. Each has a state: ``unset``, ``guess``, ``chosen`` or ``notAvailable``.

    Attributes:
        modelPath: name, folder name or path of the model.
        referenceModality: the input whose grid the result gets; "" leaves it to the model.
        outputSegmentation: its segments are replaced; None: a new node.
        outputTable: of classification, likewise.
        batchExtension: of the files that a batch writes.
    """

    modelPath: str = ""
    referenceModality: str = ""
    quality: Annotated[str, Choice(QUALITIES)] = "balanced"
    probabilities: bool = False
    showSurface: bool = True
    segmentationOpacity: Annotated[float, WithinRange(0, 1)] = 0.5
    outputSegmentation: vtkMRMLSegmentationNode
    outputTable: vtkMRMLTableNode
    batchExtension: Annotated[str, Choice(EXTENSIONS)] = ".nii.gz"

    def inputNode(self, modality: str):
        """The volume of ``modality``, or None."""
        return self.parameterNode.GetNodeReference(_role(modality))

    def inputState(self, modality: str) -> str:
        """``unset``, ``guess``, ``chosen`` or ``notAvailable``; a volume that was removed is unset."""
        state = self.parameterNode.GetParameter(_role(modality) + ".state") or UNSET
        if state in (GUESS, CHOSEN) and self.inputNode(modality) is None:
            return UNSET
        return state

    def inputReason(self, modality: str) -> str:
        """Why the volume was guessed, for people; "" where it was not."""
        if self.inputState(modality) != GUESS:
            return ""
        return self.parameterNode.GetParameter(_role(modality) + ".reason")

    def setInputNode(self, modality: str, node, state: str = CHOSEN, reason: str = "") -> None:
        """Take ``node`` for ``modality``; None makes it unset again."""
        self._write(modality, node, state if node is not None else UNSET, reason)

    def setNotAvailable(self, modality: str, notAvailable: bool = True) -> None:
        """Say that there is no such volume; False makes the modality unset again."""
        self._write(modality, None, NOT_AVAILABLE if notAvailable else UNSET, "")

    def inputs(self, card) -> dict:
        """Modality to volume, in the model's order; those without a volume are absent."""
        nodes = {m: self.inputNode(m) for m in card.modalities}
        return {m: node for m, node in nodes.items() if node is not None}

    def applyGuesses(self, guesses: dict, modalities) -> None:
        """Fill in :class:`~EMIMLib.guessing.Guess` where the user has chosen nothing.

        An earlier guess for one of the ``modalities`` is taken back where there is none now: it was another
        examination's.
        """
        with slicer.util.NodeModify(self.parameterNode):
            for modality in modalities:
                state, guess = self.inputState(modality), guesses.get(modality)
                if state in (UNSET, GUESS) and guess is not None:
                    self.setInputNode(modality, guess.node, GUESS, guess.reason)
                elif state == GUESS:
                    self.setInputNode(modality, None)

    def clearInputs(self) -> None:
        """Forget all volumes and states, also those of modalities the present model does not have."""
        node = self.parameterNode
        with slicer.util.NodeModify(node):
            for name in node.GetParameterNames():
                if name.startswith(_PREFIX):
                    node.UnsetParameter(name)
                    node.RemoveNodeReferenceIDs(name.rsplit(".", 1)[0])

    def _write(self, modality: str, node, state: str, reason: str) -> None:
        role, parameters = _role(modality), self.parameterNode
        with slicer.util.NodeModify(parameters):
            parameters.SetNodeReferenceID(role, node.GetID() if node is not None else None)
            parameters.SetParameter(role + ".state", state)
            parameters.SetParameter(role + ".reason", reason)


_PREFIX = "input."


def _role(modality: str) -> str:
    # A scene file separates roles by spaces, colons and semicolons; a modality may be called anything.
    return _PREFIX + quote(modality, safe="").replace("~", "%7E")
