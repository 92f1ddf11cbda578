"""EMIM's own terms: Slicer takes the file, and the texts that models carry name the codes in it."""

import json

import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402

from EMIMLib import terminology  # noqa: E402


def test_slicer_offers_the_terms_as_soon_as_a_logic_is_made(monkeypatch):
    loaded = []
    logic = slicer.modules.terminologies.logic()
    context = json.loads(terminology.FILE.read_text(encoding="utf-8"))["SegmentationCategoryTypeContextName"]
    for make in (EMIMSegmentLogic, EMIMPretrainLogic):
        monkeypatch.setattr(terminology, "_loaded", False)
        make()
        loaded.append(terminology._loaded)
    assert loaded == [True, True]
    assert logic.IsTerminologyContextLoaded(context)


def test_each_text_names_a_code_of_the_file():
    content = json.loads(terminology.FILE.read_text(encoding="utf-8"))
    codes = {t["CodeMeaning"]: t["CodeValue"] for t in content["SegmentationCodes"]["Category"][0]["Type"]}
    terms = terminology.terms()
    assert set(terms) == set(codes) and "Enhancing Lesion" in terms
    logic = slicer.modules.terminologies.logic()
    for name, (text, color) in terms.items():
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(text, entry), text
        assert entry.GetTypeObject().GetCodeMeaning() == name
        assert entry.GetTypeObject().GetCodeValue() == codes[name]
        assert entry.GetCategoryObject().GetCodeValue() == "49755003"
        assert all(0 <= c <= 255 for c in color)
