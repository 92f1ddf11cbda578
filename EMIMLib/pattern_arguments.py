"""What the core is told about names of files, for a folder that a model is applied to."""

from __future__ import annotations

from emim.cohort.vocabulary import PATTERNS


def patternArguments(card) -> list[str]:
    """The name patterns of a model that a scan does not know by itself."""
    arguments = []
    for modality, patterns in card.patterns.items():
        texts = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        if texts != PATTERNS.get(modality):
            for text in texts:
                arguments += ["--pattern", f"{modality}={text}"]
    return arguments
