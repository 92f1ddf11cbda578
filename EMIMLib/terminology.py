"""The terms EMIM ships for what Slicer's own lists lack, such as an enhancing lesion.

Codes are those of DICOM's context groups for lesions (CID 7159, 7199) and, for the enhancing part, of
the NCI Thesaurus.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

FILE = Path(__file__).with_name("Resources") / "EMIM.term.json"

_loaded = False


def load() -> None:
    """Let Slicer's terminology selector offer EMIM's terms; once per application."""
    global _loaded
    import slicer

    module = getattr(slicer.modules, "terminologies", None)
    if _loaded or module is None:  # switched off: segments keep their codes all the same
        return
    _loaded = bool(module.logic().LoadTerminologyFromFile(str(FILE)))
    if not _loaded:
        logging.warning("Slicer did not accept the terminology %s", FILE)


def terms() -> dict[str, tuple[str, tuple[int, int, int]]]:
    """Name of each term, its Slicer terminology string, and its recommended colour (0 to 255)."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    context = content["SegmentationCategoryTypeContextName"]
    return {
        kind["CodeMeaning"]: (
            f"{context}~{_code(category)}~{_code(kind)}~^^~Anatomic codes - DICOM master list~^^~^^",
            tuple(kind["recommendedDisplayRGBValue"]),
        )
        for category in content["SegmentationCodes"]["Category"]
        for kind in category["Type"]
    }


def _code(item: dict) -> str:
    return f"{item['CodingSchemeDesignator']}^{item['CodeValue']}^{item['CodeMeaning']}"
