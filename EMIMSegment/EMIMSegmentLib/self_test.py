"""What "Reload and Test" checks inside Slicer: panel, guesses, refusals. Needs no model and no packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.package.model import ModelCard
from EMIMLib.models import InstalledModel
from EMIMSegmentLib.card_text import cardText
from EMIMSegmentLib.logic import EMIMSegmentLogic


class SelfTest:
    """Args: test: a unittest.TestCase, whose assertions are used."""

    def __init__(self, test) -> None:
        self.test = test
        self.logic = EMIMSegmentLogic()
        self.card = ModelCard(
            name="self test",
            modalities=("T1", "T2", "FLAIR"),
            optional=("T2",),
            structures=(Structure("lesion", (1,), 1, (230, 159, 0)),),
            overlapping=False,
            preprocess=PreprocessConfig(spacing=(1.0, 1.0, 1.0)),
            network=NetworkConfig(filters=4, blocks=(1, 1)),
            crop=16,
        )

    def run(self) -> None:
        volumes = {name: _volume(f"pat07_{name}") for name in ("t2", "flair", "t1")}
        self.checkGuesses(volumes)
        self.checkStates(volumes)
        self.checkRefusals(volumes)
        self.checkCard()
        self.checkPanel()

    def checkGuesses(self, volumes: dict) -> None:
        guesses = self.logic.guessInputs(self.card)
        found = {modality: guess.node.GetName() for modality, guess in guesses.items()}
        self.test.assertEqual(found, {"T1": "pat07_t1", "T2": "pat07_t2", "FLAIR": "pat07_flair"})

    def checkStates(self, volumes: dict) -> None:
        node = self.logic.getParameterNode()
        node.applyGuesses(self.logic.guessInputs(self.card), self.card.modalities)
        self.test.assertEqual(node.inputState("T1"), "guess")
        node.setInputNode("T1", volumes["t1"])
        node.setNotAvailable("T2")
        self.test.assertEqual([node.inputState(m) for m in ("T1", "T2")], ["chosen", "notAvailable"])
        self.test.assertEqual(list(node.inputs(self.card)), ["T1", "FLAIR"])

    def checkRefusals(self, volumes: dict) -> None:
        twice = self.logic.checkInputs(self.card, {"T1": volumes["t1"], "FLAIR": volumes["t1"]})
        self.test.assertTrue(any(problem.blocking for problem in twice))
        good = {"T1": volumes["t1"], "FLAIR": volumes["flair"]}
        blocking = [p for p in self.logic.checkInputs(self.card, good) if p.blocking]
        self.test.assertEqual(blocking, [])

    def checkCard(self) -> None:
        text = cardText(InstalledModel(Path("self test"), self.card))
        for word in ("T1", "FLAIR", "lesion", self.card.intended_use):
            self.test.assertIn(word, text)

    def checkPanel(self) -> None:
        widget = slicer.util.getModuleWidget("EMIMSegment")
        widget.enter()
        self.test.assertTrue(widget.ui.applyButton.toolTip)


def _volume(name: str):
    voxels = np.random.default_rng(0).normal(100, 20, (12, 12, 12)).astype("float32")
    return slicer.util.addVolumeFromArray(voxels, name=name)
