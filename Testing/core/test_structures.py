"""Structures to segment: from words, from label values, from a file; and which are named by their side."""

import json

import pytest

from emim.errors import EmimError
from emim.training.structures import (
    named_by_side,
    parse_structures,
    read_structures,
    structures_of_values,
)


def test_nested_regions_are_painted_in_the_coding_of_the_labels():
    structures, overlapping = parse_structures(["ET=3", "TC=1,3", "WT=1,2,3"])
    assert overlapping and [s.name for s in structures] == ["WT", "TC", "ET"], "larger ones first"
    assert [s.output for s in structures] == [2, 1, 3]
    structures, _ = parse_structures(["WT=1,2,3,4", "TC=1,3,4", "ET=3,4"])
    assert [s.output for s in structures] == [2, 1, 3]


def test_exclusive_structures_keep_their_values():
    structures, overlapping = structures_of_values([0, 4, 2])
    assert not overlapping and [(s.values, s.output) for s in structures] == [((2,), 2), ((4,), 4)]


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (["left hippocampus", "Right Hippocampus"], 2),
        (["Thalamus_L", "Thalamus-R", "lh.cortex"], 3),
        (["linke Niere", "rechter Lappen", "rein droite", "riñón izquierdo", "linksseitig"], 5),
        (["LeftHippocampus", "HippocampusRight", "kidneyL", "lhCortex", "left1", "Lung_Lt", "Niere_re"], 7),
        (["lesion", "ventricles", "WT", "Leftover", "cleft", "ring", "lésion de l'hippocampe", "linked"], 0),
    ],
)
def test_names_that_tell_a_side(names, sided):
    assert len(named_by_side(names)) == sided


@pytest.mark.parametrize("texts", [["WT"], ["WT=x"], ["=1"], ["A=1", "A=2"], ["A=1", "B=1"], ["A=0"]])
def test_wrong_structures_are_refused(texts):
    with pytest.raises(EmimError):
        parse_structures(texts)


def test_structures_from_a_file_keep_colour_and_terminology(tmp_path):
    file = tmp_path / "structures.json"
    term = "Segmentation category~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~^^~^^"
    entries = [
        {"name": "enhancing", "values": [3], "color": [255, 0, 10], "terminology": term},
        {"name": "whole", "values": [1, 2, 3]},
    ]
    file.write_text(json.dumps(entries))
    (whole, enhancing), overlapping = read_structures(file)
    assert overlapping and (whole.name, whole.values, whole.terminology) == ("whole", (1, 2, 3), None)
    assert (enhancing.output, enhancing.color, enhancing.terminology) == (3, (255, 0, 10), term)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"name": "a", "values": [1]}',
        "[5]",
        '[{"values": [1]}]',
        '[{"name": " ", "values": [1]}]',
        '[{"name": "a"}]',
        '[{"name": "a", "values": []}]',
        '[{"name": "a", "values": [0]}]',
        '[{"name": "a", "values": [1.5]}]',
        '[{"name": "a", "values": "1"}]',
        '[{"name": "a", "values": [1], "color": [1, 2]}]',
        '[{"name": "a", "values": [1], "color": [1, 2, 256]}]',
        '[{"name": "a", "values": [1], "colour": [1, 2, 3]}]',
        '[{"name": "a", "values": [1], "terminology": "x|y"}]',
        '[{"name": "a", "values": [1]}, {"name": "A", "values": [2]}]',
        '[{"name": "a", "values": [1]}, {"name": "b", "values": [1]}]',
    ],
)
def test_wrong_files_of_structures_are_refused(text, tmp_path):
    file = tmp_path / "structures.json"
    file.write_text(text)
    with pytest.raises(EmimError) as caught:
        read_structures(file)
    assert str(file) in caught.value.where
