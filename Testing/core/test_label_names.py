"""Labels saved by 3D Slicer are read by the names of their segments, whatever values each file gives them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from recorder import Recorder

from emim.cli import main
from emim.cohort.case import Cohort
from emim.cohort.coding import common_coding, warn_of_recoding
from emim.cohort.scan import scan
from emim.cohort.table import json_rows, summary, text_table, write_table
from emim.cohort.volume import VolumeFacts, inspect
from emim.config import FinetuneConfig, NetworkConfig, PreprocessConfig, Structure
from emim.errors import EmimError
from emim.evaluation.segmentation import evaluate
from emim.inference.seg_nrrd import write_seg_nrrd
from emim.networks.segmenter import Segmenter
from emim.package.bundle import write_package
from emim.package.model import ModelCard
from emim.run import RunFolder
from emim.training.card import make_card
from emim.training.finetune import plan_finetuning
from emim.training.split import Split
from emim.training.start import record_cohort, resume_cohort
from emim.training.structures import parse_structures, structures_of_values
from emim.volumes.cache import build_cache
from emim.volumes.case_label import read_case_label
from emim.volumes.grid import Grid
from emim.volumes.segments import Segment, same_name

SHAPE = (10, 12, 14)  # (Z, Y, X)
GRID = Grid(SHAPE[::-1], (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
SETTINGS = PreprocessConfig(spacing=(1.0, 1.0, 1.0))
BOXES = {  # tumour and edema differ in size, so that no swap goes unseen
    "tumour": np.s_[3:5, 3:6, 3:7],
    "edema": np.s_[5:8, 3:9, 3:9],
    "cyst": np.s_[3:5, 8:10, 3:5],
}
MASS = "Any list~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~^^~^^"
AGREED = {"tumour": 1, "edema": 2}


def mask(name):
    array = np.zeros(SHAPE, bool)
    array[BOXES[name]] = True
    return array


def paint(values, names=None):
    """A label map in which each name has its value."""
    label = np.zeros(SHAPE, np.int16)
    for name, value in values.items():
        label[mask((names or {}).get(name, name))] = value
    return label


def save_segments(file, values, layers=None, names=None):
    structures = [
        Structure(name, (value,), value, (10 * value, 20, 30), MASS if name == "tumour" else None)
        for name, value in values.items()
    ]
    write_seg_nrrd(file, paint(values, names)[None] if layers is None else layers, GRID, structures)
    return file


def add_case(folder, name, values=None, plain=False, names=None):
    (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(sum(name.encode()))
    image = np.zeros(SHAPE, np.int16)
    image[1:-1, 1:-1, 1:-1] = rng.integers(100, 1000, [n - 2 for n in SHAPE])
    sitk.WriteImage(GRID.to_image(image), str(folder / name / "t1.nii.gz"))
    if plain:
        sitk.WriteImage(GRID.to_image(paint(values)), str(folder / name / "seg.nii.gz"))
    elif values:
        save_segments(folder / name / "seg.seg.nrrd", values, names=names)


@pytest.fixture
def swapped(tmp_path):
    """Two cases that agree and one, the first, whose file has the values the other way round."""
    folder = tmp_path / "cohort"
    add_case(folder, "p0", {"edema": 1, "Tumour": 2}, names={"Tumour": "tumour"})
    add_case(folder, "p1", AGREED)
    add_case(folder, "p2", AGREED)
    return folder


def row(found, name):
    return next(r for r in found.rows if r.id == name)


def names_of(found):
    return {s.name: s.value for s in found.segments}


def test_files_that_agree_are_used_as_they_are(tmp_path):
    add_case(tmp_path, "p0", AGREED)
    add_case(tmp_path, "p1", {"edema": 2})
    found = scan(tmp_path)
    assert "2 labelled (values 1 tumour, 2 edema)" in summary(found)
    assert all(r.usable and not r.notes and not r.recode for r in found.rows)
    assert found.segments[0] == Segment("tumour", 1, 0, (10, 20, 30), MASS)
    assert found.segments[1].terminology is None  # Slicer's "Tissue" is what nobody has chosen


def test_segments_are_matched_by_name_and_the_majority_decides(swapped):
    found = scan(swapped)
    assert {k.casefold(): v for k, v in names_of(found).items()} == AGREED
    assert row(found, "p0").recode == {1: 2, 2: 1} and not row(found, "p1").recode
    assert row(found, "p0").notes == [
        "the label numbers its segments in a way of its own: 1 (edema) is read as 2, 2 (Tumour) is read as 1"
    ]
    assert "1 (edema) is read as 2" in text_table(found)
    for case in found.cohort.cases:
        label, _ = read_case_label(case)
        np.testing.assert_array_equal(label, paint(AGREED))


def test_a_name_whose_value_is_taken_gets_another(tmp_path):
    add_case(tmp_path, "p0", AGREED)
    add_case(tmp_path, "p1", {"cyst": 1, "edema": 2})
    found = scan(tmp_path)
    assert names_of(found) == {"tumour": 1, "edema": 2, "cyst": 3}
    assert row(found, "p1").label_values == (2, 3) and found.label_values == (1, 2, 3)


def test_values_given_by_hand_are_told_what_they_mean(swapped, tmp_path, told):
    """Which values that are depends on the other files, so nobody could know."""
    warn_of_recoding(scan(swapped), told, "Mind them.")
    assert len(told.told) == 1 and "read as 1 tumour, 2 edema" in told.told[0].casefold()
    for name in ("a", "b"):
        add_case(tmp_path / "alike", name, AGREED)
    warn_of_recoding(scan(tmp_path / "alike"), told, "Mind them.")
    assert len(told.told) == 1


def test_a_part_of_the_cohort_keeps_the_coding(swapped, tmp_path):
    """Settings were made by it, such as the values of structures."""
    found = scan(swapped)
    write_table(found, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "cohort.json").read_text(encoding="utf-8"))
    assert data["cases"][0]["recode"] == {"1": 2, "2": 1} and data["cases"][0]["label_values"] == [1, 2]
    again = scan(tmp_path / "out" / "cohort.json")
    assert again.cohort == found.cohort and names_of(again) == names_of(found)
    data["cases"] = data["cases"][:1]  # alone, it would number its segments itself
    part = tmp_path / "part.json"
    part.write_text(json.dumps(data), encoding="utf-8")
    assert scan(part).cohort.cases[0].recode == {1: 2, 2: 1}
    assert Cohort.from_dict(json.loads(json.dumps(found.cohort.to_dict()))).cases == found.cohort.cases


@pytest.mark.parametrize("entry", [{"name": "a"}, {"name": "a", "value": "1"}, {"name": 1, "value": 1}, "a"])
def test_segments_of_a_datalist_that_are_none(entry, swapped, tmp_path):
    file = tmp_path / "list.json"
    cases = [{"id": "p1", "images": {"T1": str(swapped / "p1" / "t1.nii.gz")}}]
    file.write_text(json.dumps({"cases": cases, "segments": [entry]}), encoding="utf-8")
    with pytest.raises(EmimError, match="something unexpected"):
        scan(file)


def test_labels_of_a_record_that_knows_no_segments_are_read_again(swapped, tmp_path):
    write_table(scan(swapped), tmp_path / "out")
    file = tmp_path / "out" / "cohort.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data.pop("segments")
    for case in data["cases"]:
        for facts in case["files"].values():
            del facts["segments"]
    file.write_text(json.dumps(data), encoding="utf-8")
    assert scan(file).cohort == scan(swapped).cohort
    facts = inspect(swapped / "p1" / "seg.seg.nrrd", label=True)
    assert VolumeFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_prepared_labels_are_recoded_and_have_a_key_of_their_own(swapped, tmp_path):
    found = scan(swapped)
    cases = build_cache(found.cohort, SETTINGS, tmp_path / "cache", workers=1)
    for case in cases:
        whole = case.crop((0, 0, 0), case.shape)
        assert np.bincount(whole.label.ravel())[1:].tolist() == [mask(n).sum() for n in ("tumour", "edema")]
    as_stored = dataclasses.replace(found.cohort.cases[0], recode={})
    (other,) = build_cache(Cohort(("T1",), (as_stored,)), SETTINGS, tmp_path / "cache", workers=1)
    assert other.path != cases[0].path
    assert len(other.label_voxels(2)) == mask("tumour").sum()


def test_evaluation_reads_references_by_name(swapped, tmp_path):
    found = scan(swapped)
    (tmp_path / "out").mkdir()
    for case in found.cohort.cases:
        sitk.WriteImage(GRID.to_image(paint(AGREED)), str(tmp_path / "out" / f"{case.id}.nii.gz"))
    structures, _ = structures_of_values(found.label_values, found.segments)
    result = evaluate(found, tmp_path / "out", structures)
    assert [s.dice for c in result.cases for s in c.scores] == [1] * 6
    row(found, "p0").problems.append(
        "it is left out"
    )  # one that cannot be segmented has a reference all the same
    unusable = dataclasses.replace(found, cohort=found.cohort.without(["p0"]))
    assert evaluate(unusable, tmp_path / "out", structures).mean_dice() == 1
    with pytest.raises(EmimError, match="'tumour' is given the label values \\[2\\].*has the value 1"):
        evaluate(found, tmp_path / "out", (Structure("tumour", (2,), 1, (0, 0, 0)),))


def make_model(folder, structures, **training):
    card = ModelCard(
        name="m",
        modalities=("T1",),
        structures=structures,
        overlapping=sum(len(s.values) for s in structures) > len({v for s in structures for v in s.values}),
        preprocess=SETTINGS,
        network=NetworkConfig(filters=2, blocks=(1, 1)),
        crop=16,
        training=training,
    )
    return write_package(folder, card, Segmenter(1, card.outputs, card.network).state_dict())


@pytest.mark.parametrize("whole", [False, True], ids=["each segment", "one region"])
def test_evaluating_a_model_on_labels_that_all_have_other_values(whole, tmp_path, capsys):
    """The other hospital numbers all its segments otherwise: names tell what the model's are."""
    add_case(tmp_path / "cohort", "p0", {"edema": 1, "tumour": 2, "cyst": 3})
    (tmp_path / "out").mkdir()
    names = {"tumour": (3,)} if not whole else {"core": (1, 3)}  # core: cyst and tumour as it was trained
    structures = tuple(Structure(n, v, 1, (0, 0, 0)) for n, v in names.items())
    trained = {"cyst": 1, "edema": 2, "tumour": 3}
    model = make_model(tmp_path / "model", structures, **({"segments": trained} if whole else {}))
    truth = mask("tumour") | mask("cyst") if whole else mask("tumour")
    sitk.WriteImage(GRID.to_image(truth.astype(np.uint8)), str(tmp_path / "out" / "p0.nii.gz"))
    command = ["evaluate", str(tmp_path / "cohort"), "--predictions", str(tmp_path / "out")]
    assert main([*command, "--model", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mean_dice"] == 1
    # Values that are given are those that a scan tells.
    given = "--structure=core=2,3" if whole else "--structure=tumour=2"
    assert main([*command, "--model", str(model), "--json", given]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mean_dice"] == 1


REGIONS = (
    Structure("WT", (1, 2, 3), 2, (0, 0, 0)),
    Structure("TC", (1, 3), 1, (0, 0, 0)),
    Structure("ET", (3,), 3, (0, 0, 0)),
)


def judge(tmp_path, capsys, structures, *options, prediction=None, **training):
    """Exit code, last event and warnings of judging ``prediction`` for each case of the cohort."""
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    model = make_model(tmp_path / "model", structures, **training)
    (tmp_path / "out").mkdir(exist_ok=True)
    for case in (tmp_path / "cohort").iterdir() if prediction is not None else ():
        sitk.WriteImage(GRID.to_image(prediction), str(tmp_path / "out" / f"{case.name}.nii.gz"))
    source = tmp_path / "list.json"
    source = source if source.exists() else tmp_path / "cohort"
    command = ["evaluate", str(source), "--predictions", str(tmp_path / "out"), "--model", str(model)]
    code = main([*command, "--json", *options])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, events[-1], [e["what"] for e in events if e["type"] == "warning"]


def test_a_segment_that_the_model_does_not_know_is_not_renumbered(tmp_path, capsys):
    """The model was trained on maps without names: ET is the name of a region, not of a segment."""
    parts = {"tumour": 1, "edema": 2, "cyst": 3}
    add_case(tmp_path / "cohort", "p0", parts)
    code, told, _ = judge(tmp_path, capsys, REGIONS, prediction=paint(parts))
    assert code == 2 and "knows no segment 'cyst' (label value 3)" in told["what"]
    assert "p0" in told["where"] and "one of the model's (ET)" in told["hint"]
    assert '--structure "WT=1,2,3" --structure "TC=1,3" --structure "ET=3"' in told["hint"]
    given = [f"--structure={s.name}={','.join(map(str, s.values))}" for s in REGIONS]
    code, told, _ = judge(tmp_path, capsys, REGIONS, *given, prediction=paint(parts))
    assert (code, told["mean_dice"]) == (0, 1)
    # Renamed: nothing contradicts the values of the others, for which the model has no names.
    save_segments(
        tmp_path / "cohort/p0/seg.seg.nrrd", {"tumour": 1, "edema": 2, "ET": 3}, names={"ET": "cyst"}
    )
    code, told, warnings = judge(tmp_path, capsys, REGIONS, prediction=paint(parts))
    assert (code, told["mean_dice"]) == (0, 1)
    assert any("no names for label values of the references: 1 (tumour), 2 (edema)." in w for w in warnings)


BOTH = (Structure("tumour", (1,), 1, (0, 0, 0)), Structure("edema", (2,), 2, (0, 0, 0)))


@pytest.mark.parametrize(
    "values", [{"Tumor": 1, "edema": 2}, {"edema": 1, "Tumor": 2}], ids=["same", "clash"]
)
def test_a_segment_spelt_in_another_way_than_the_models(values, tmp_path, capsys):
    add_case(tmp_path / "cohort", "p0", values, names={"Tumor": "tumour"})
    code, told, _ = judge(tmp_path, capsys, BOTH, prediction=paint(AGREED))
    assert code == 2 and "knows no segment 'Tumor'" in told["what"] and "--structure" in told["hint"]


def test_a_segment_beside_all_of_the_models_is_none_of_them(tmp_path, capsys):
    """Slicer numbered it as it liked; names tell what it is not, also where it lies alone."""
    add_case(tmp_path / "cohort", "p0", {"cyst": 1, "edema": 3, "tumour": 2})
    code, told, _ = judge(tmp_path, capsys, BOTH, prediction=paint(AGREED))
    assert (code, told["mean_dice"]) == (0, 1)
    add_case(tmp_path / "cohort", "p1", {"cyst": 1})
    code, told, _ = judge(tmp_path, capsys, BOTH, prediction=paint({}))
    assert code == 0 and [s["empty"] for s in told["cases"][1]["scores"]] == ["both", "both"]


def test_labels_drawn_with_the_recorded_values_are_read_by_those_of_the_model(tmp_path, capsys):
    add_case(tmp_path / "cohort", "p0", AGREED, plain=True)
    add_case(tmp_path / "cohort", "p1", {**AGREED, "cyst": 3}, plain=True)
    files = {i: tmp_path / "cohort" / i for i in ("p0", "p1")}
    cases = [
        {"id": i, "images": {"T1": f"{f}/t1.nii.gz"}, "label": f"{f}/seg.nii.gz", "drawn": True}
        for i, f in files.items()
    ]
    record = {"cases": cases, "segments": [{"name": n, "value": v} for n, v in AGREED.items()]}
    (tmp_path / "list.json").write_text(json.dumps(record), encoding="utf-8")
    reverse = (Structure("edema", (1,), 1, (0, 0, 0)), Structure("Tumour", (2,), 2, (0, 0, 0)))
    assert names_of(scan(tmp_path / "list.json")) == AGREED
    found = scan(tmp_path / "list.json", coding=[Segment("Tumour", 2), Segment("edema", 1)])
    assert row(found, "p0").recode == {1: 2, 2: 1}
    # What the record does not name, such as the cyst, may be anything where the values are others.
    assert not row(found, "p1").recode and "does not name its values" in row(found, "p1").problems[0]
    code, told, warnings = judge(tmp_path, capsys, reverse, prediction=paint({"edema": 1, "tumour": 2}))
    assert (code, told["mean_dice"]) == (0, 1) and [c["id"] for c in told["cases"]] == ["p0"]
    assert any("no label that can be used: p1" in w for w in warnings)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ({"a": 0}, "within 1 and 32767"),
        ({"a": -1}, "within 1 and 32767"),
        ({"a": 70000}, "within 1 and 32767"),
        ({"a": 1, "b": 1}, "'a' and 'b' have the same label value 1"),
        ({"a": 1, "A ": 2}, "two of its segments are called 'a'"),
        ({" ": 1}, "has no name"),
        ({"a": True}, "whole number"),
        ({"a": 1.0}, "whole number"),
        (["a"], "name and a whole number"),
    ],
)
def test_segments_of_a_datalist_or_package_that_make_no_sense(segments, said, swapped, tmp_path, capsys):
    pairs = segments.items() if isinstance(segments, dict) else [(None, segments)]
    cases = [{"id": "p1", "images": {"T1": str(swapped / "p1" / "t1.nii.gz")}}]
    data = {"cases": cases, "segments": [{"name": name, "value": value} for name, value in pairs]}
    (tmp_path / "some.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(EmimError, match=said) as caught:
        scan(tmp_path / "some.json")
    assert "some.json" in str(caught.value.where)
    code, told, _ = judge(tmp_path, capsys, BOTH, prediction=paint(AGREED), segments=segments)
    assert code == 2 and said in told["what"]
    assert "model: configs/metadata.json" in told["where"] and "1 to 32767" in told["hint"]


def test_plain_labels_beside_named_ones_are_told_of(tmp_path):
    add_case(tmp_path, "p0", AGREED)
    add_case(tmp_path, "p1", AGREED, plain=True)
    add_case(tmp_path, "p2")
    found = scan(tmp_path)
    told = "the label does not name its values, as those of other cases do: taken for 1 tumour, 2 edema"
    assert [r.notes for r in found.rows] == [[], [told], []]


def test_plain_labels_are_not_guessed_where_named_ones_differ(swapped, tmp_path):
    add_case(swapped, "plain", AGREED, plain=True)
    found = scan(swapped)
    assert "does not name its values" in row(found, "plain").problems[0]
    assert row(found, "plain").label_values is None and row(found, "plain").usable_label is None
    assert [r["file_problems"] for r in json_rows(found)] == [
        {},
        {},
        {},
        {"label": row(found, "plain").problems},
    ]
    events = Recorder()
    structures, _ = structures_of_values(found.label_values, found.segments)
    (tmp_path / "none").mkdir()
    assert [c.id for c in evaluate(found, tmp_path / "none", structures, events=events).cases] == [
        "p0",
        "p1",
        "p2",
    ]
    assert any("no label that can be used: plain" in w for w in events.warnings)
    assert ".seg.nrrd" in row(found, "plain").problems[0] and len(found.cohort.cases) == 3
    write_table(found, tmp_path / "out")
    file = tmp_path / "out" / "cohort.json"
    assert not row(scan(file), "plain").usable
    data = json.loads(file.read_text(encoding="utf-8"))
    next(c for c in data["cases"] if c["id"] == "plain")["drawn"] = True  # in EMIM, with the cohort's values
    file.write_text(json.dumps(data), encoding="utf-8")
    again = scan(file)
    assert row(again, "plain").usable and not row(again, "plain").notes
    assert row(again, "plain").to_dict()["drawn"] is True


def test_segments_that_overlap_are_called_so(tmp_path):
    layers = np.stack([paint({"tumour": 1}), paint({"edema": 2})])
    facts = inspect(save_segments(tmp_path / "a.seg.nrrd", AGREED, layers), label=True)
    assert "its segments overlap (2 layers)" in facts.problems[0] and "Segment Editor" in facts.problems[0]
    lines = (tmp_path / "a.seg.nrrd").read_bytes().split(b"\n\n", 1)
    kept = [x for x in lines[0].split(b"\n") if b"_Layer:=" not in x and b"_LabelValue:=" not in x]
    (tmp_path / "old.seg.nrrd").write_bytes(b"\n".join(kept) + b"\n\n" + lines[1])
    assert "before 4.11" in inspect(tmp_path / "old.seg.nrrd", label=True).problems[0]
    colour = sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "c.nrrd"))
    assert "colour image" in inspect(tmp_path / "c.nrrd", label=True).problems[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Segment1_Name:=edema", b"Segment1_Name:=TUMOUR", "Two segments are called 'TUMOUR'"),
        (
            b"Segment1_LabelValue:=2",
            b"Segment1_LabelValue:=1",
            "'tumour' and 'edema' have the same label value 1",
        ),
        (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=5", "[2], which are none of its segments'"),
        (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=0", "within 1 and 32767"),
        (b"Segment1_LabelValue:=2", b"Segment1_LabelValue:=x", "no whole number: 'x'"),
        (b"Segment1_Name:=edema", b"Segment1_Name:= ", "Segment 1 has no Name"),
    ],
)
def test_a_header_that_contradicts_itself(old, new, said, tmp_path):
    add_case(tmp_path, "p0", AGREED)
    add_case(tmp_path, "p1", AGREED)
    file = tmp_path / "p0" / "seg.seg.nrrd"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old + b"\n", new + b"\n"))
    found = scan(tmp_path)
    assert said in row(found, "p0").problems[0]
    assert names_of(found) == AGREED and not row(found, "p1").recode


@pytest.mark.parametrize("color", ["", "1 0", "a b c", "nan 0 0", "7 0 0"])
def test_a_colour_that_is_none(color, tmp_path):
    file = save_segments(tmp_path / "a.seg.nrrd", {"tumour": 1})
    file.write_bytes(
        file.read_bytes().replace(b"Color:=0.0392157 0.0784314 0.117647", f"Color:={color}".encode())
    )
    (segment,) = inspect(file, label=True).segments
    assert segment.color is None and segment.terminology == MASS


def test_coding_of_names_that_are_given_or_recorded():
    files = [[Segment("a", 1), Segment("b", 2)], [Segment("A ", 1), Segment("c", 2)]]

    def coded(**known):
        return {s.name: s.value for s in common_coding(files, **known)}

    assert coded() == {"a": 1, "b": 2, "c": 3}
    assert coded(recorded=[Segment("c", 1)]) == {"c": 1, "b": 2, "a": 3}
    assert coded(given=[Segment("B", 1), Segment("z", 3)], recorded=[Segment("a", 1)]) == {
        "B": 1,
        "c": 2,
        "a": 3,  # no file has a z
    }


def test_default_structures_are_the_segments(swapped):
    config, _, split, _ = plan_finetuning(scan(swapped), FinetuneConfig())
    first, second = config.structures
    assert (first.name.casefold(), first.values, first.terminology) == ("tumour", (1,), MASS)
    assert (second.name, second.values, second.terminology) == ("edema", (2,), None)
    assert second.color == (20, 20, 30)  # of the first file with that value
    assert {n.casefold(): v for n, v in make_card(config, split, "m").training["segments"].items()} == AGREED
    wrong = dataclasses.replace(config, structures=(Structure("Edema", (1,), 1, (0, 0, 0)),))
    with pytest.raises(EmimError, match="'Edema' is given the label values \\[1\\].*has the value 2"):
        plan_finetuning(scan(swapped), wrong)
    region = dataclasses.replace(config, structures=(Structure("edema", (1, 2), 1, (0, 0, 0)),))
    plan_finetuning(scan(swapped), region)


def test_a_value_without_a_segment_is_numbered():
    structures, _ = structures_of_values([1, 2], [Segment("tumour", 1)])
    assert [s.name for s in structures] == ["tumour", "label 2"]
    with pytest.raises(EmimError, match="'label 2' is given twice"):
        structures_of_values([1, 2], [Segment("label 2", 1)])


def test_names_that_differ_in_case_or_composition_are_the_same(tmp_path, capsys):
    composed, apart = "Läsion", "LA\u0308SION"
    assert same_name(composed) == same_name(apart + " ") != same_name("Lasion")
    add_case(tmp_path / "cohort", "p0", {composed: 1}, names={composed: "tumour"})
    (tmp_path / "out").mkdir()
    save_segments(tmp_path / "out" / "p0.seg.nrrd", {apart: 1}, names={apart: "tumour"})
    found = scan(tmp_path / "cohort")
    structures, _ = structures_of_values(found.label_values, found.segments)
    assert evaluate(found, tmp_path / "out", structures).mean_dice() == 1
    with pytest.raises(EmimError, match="given twice"):
        parse_structures([f"{composed}=1", f"{apart}=2"])
    twice = (BOTH[0], dataclasses.replace(BOTH[1], name="TUMOUR "))
    with pytest.raises(EmimError, match="two structures have the same name"):
        make_model(tmp_path / "model", twice)
    lesion = (Structure(composed, (1,), 1, (0, 0, 0)),)
    code, told, _ = judge(tmp_path, capsys, lesion, f"--structure={apart}=1")
    assert (code, told["mean_dice"]) == (0, 1)


def test_a_run_is_not_resumed_in_another_coding(swapped, tmp_path):
    found = scan(swapped)
    config, _, _, _ = plan_finetuning(found, FinetuneConfig())
    split = Split(("p0", "p1"), ("p2",))
    with RunFolder(tmp_path / "run", "finetune", config, events=Recorder()) as run:
        record_cohort(run, found, split)
    events = Recorder()
    with RunFolder(tmp_path / "run", "finetune", config, resume=True, events=events) as run:
        resume_cohort(run, scan(tmp_path / "run" / "cohort.json"), "auto")
        assert not events.warnings
        save_segments(swapped / "p1" / "seg.seg.nrrd", {"edema": 1, "tumour": 2})
        resume_cohort(run, scan(tmp_path / "run" / "cohort.json"), "auto")
        assert "have changed since the run began: p1" in events.warnings[0]
        with pytest.raises(EmimError, match="numbered differently than when the run began"):
            resume_cohort(run, scan(swapped), "auto")
        swap, swap_names = {"Edema": 1, "TUMOUR": 2}, {"Edema": "edema", "TUMOUR": "tumour"}
        for name in ("p0", "p1", "p2"):
            save_segments(swapped / name / "seg.seg.nrrd", swap, names=swap_names)
        with pytest.raises(EmimError, match="numbered differently than when the run began"):
            resume_cohort(run, scan(swapped), "auto")
