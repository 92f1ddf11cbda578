"""Dice and HD95 against values worked out by hand, and every kind of empty or missing result."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from recorder import Recorder

from emim.cli import main
from emim.cohort.case import Case, Cohort
from emim.config import Structure
from emim.errors import EmimError
from emim.evaluation.masks import prediction_values
from emim.evaluation.scores import score
from emim.evaluation.segmentation import evaluate
from emim.inference.seg_nrrd import read_seg_nrrd, write_seg_nrrd
from emim.volumes.grid import Grid

SHAPE = (12, 16, 20)  # (Z, Y, X)
SPACING = (1.0, 2.0, 3.0)  # (i, j, k)
REGIONS = (
    Structure("WT", (1, 2, 3), 2, (0, 255, 0)),
    Structure("TC", (1, 3), 1, (255, 0, 0)),
    Structure("ET", (3,), 3, (0, 0, 255)),
)
LESION = (Structure("lesion", (1,), 7, (255, 0, 0)),)
PARTLY = (Structure("A", (1, 2), 1, (0, 0, 0)), Structure("B", (2, 3), 2, (0, 0, 0)))


def cube(z, y, x, value=1, size=4) -> np.ndarray:
    array = np.zeros(SHAPE, np.int16)
    array[z : z + size, y : y + size, x : x + size] = value
    return array


def save(path, array, spacing=SPACING, origin=(0, 0, 0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return str(path)


def brute_hd95(a: np.ndarray, b: np.ndarray, spacing) -> float:
    """From the definition: surfaces are voxels with a face neighbour outside."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis in range(3):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return np.argwhere((padded & ~inner)[1:-1, 1:-1, 1:-1]) * np.array(spacing)

    p, q = surface(a), surface(b)
    distances = np.linalg.norm(p[:, None] - q[None], axis=-1)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def test_two_cubes():
    a, b = cube(2, 3, 4) > 0, cube(2, 3, 5) > 0
    s = score("x", a, b, (3, 2, 1))
    assert s.dice == pytest.approx(2 * 48 / 128)  # 3 of 4 layers shared
    assert s.hd95 == pytest.approx(1)  # one voxel of 1 mm along x
    assert s.reference_ml == s.prediction_ml == pytest.approx(64 * 6 / 1000)
    assert s.empty is None


def test_distances_are_in_mm_along_the_right_axes():
    for axis, spacing in enumerate((3, 2, 1)):
        a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        at = [5, 5, 5]
        a[tuple(at)] = True
        at[axis] += 3
        b[tuple(at)] = True
        assert score("x", a, b, (3, 2, 1)).hd95 == pytest.approx(3 * spacing)


def test_hd95_by_brute_force():
    rng = np.random.default_rng(0)
    spacing = (3.0, 2.0, 1.0)
    for shift in ((0, 0, 3), (2, 1, 0), (3, 4, 5)):
        a = cube(2, 3, 4, size=6) > 0
        b = np.roll(a, shift, (0, 1, 2)) & (rng.random(SHAPE) < 0.9)
        assert score("x", a, b, spacing).hd95 == pytest.approx(brute_hd95(a, b, spacing), abs=1e-4)


def test_empty_masks():
    some, none = cube(2, 3, 4) > 0, np.zeros(SHAPE, bool)
    diagonal = np.sqrt(36**2 + 32**2 + 20**2)
    both, missed, invented = (score("x", *m, (3, 2, 1)) for m in ((none, none), (some, none), (none, some)))
    assert (both.dice, both.hd95, both.empty) == (1, 0, "both")
    assert (missed.dice, missed.hd95, missed.empty) == (0, pytest.approx(diagonal), "prediction")
    assert (invented.dice, invented.hd95, invented.empty) == (0, pytest.approx(diagonal), "reference")


def test_values_of_painted_regions():
    assert prediction_values(REGIONS) == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    renumbered = [Structure(s.name, s.values, i + 4, s.color) for i, s in enumerate(REGIONS)]
    assert prediction_values(renumbered) == {"WT": (4, 5, 6), "TC": (5, 6), "ET": (6,)}
    assert prediction_values(LESION) == {"lesion": (7,)}
    with pytest.raises(EmimError, match="overlap partly"):
        prediction_values(PARTLY)


@pytest.fixture
def cohort(tmp_path):
    """Cases: good, moved by a voxel, both empty, invented, missed, without prediction."""
    (tmp_path / "out").mkdir()
    none = np.zeros(SHAPE, np.int16)
    made = {
        "good": (cube(2, 3, 4), cube(2, 3, 4, 7)),
        "moved": (cube(2, 3, 4), cube(2, 3, 5, 7)),
        "nothing": (none, none),
        "invented": (none, cube(2, 3, 4, 7)),
        "missed": (cube(2, 3, 4), none),
        "absent": (cube(2, 3, 4), None),
    }
    cases = []
    for name, (reference, prediction) in made.items():
        cases.append(Case(name, name, {}, save(tmp_path / f"{name}.nii.gz", reference)))
        if prediction is not None:
            save(tmp_path / "out" / f"{name}.nii.gz", prediction)
    return Cohort((), (*cases, Case("unlabelled", "u", {})))


def test_a_folder(cohort, tmp_path):
    events = Recorder()
    result = evaluate(cohort, tmp_path / "out", LESION, tmp_path / "scores.json", events)
    assert [c.id for c in result.cases] == ["good", "moved", "nothing", "invented", "missed", "absent"]
    dice = [c.scores[0].dice for c in result.cases]
    assert dice == pytest.approx([1, 0.75, 1, 0, 0, 0])
    diagonal = pytest.approx(np.sqrt(36**2 + 32**2 + 20**2))
    assert [c.scores[0].hd95 for c in result.cases] == [0, 1, 0, diagonal, diagonal, diagonal]
    assert [c.id for c in result.failed] == ["absent"]
    assert any("absent" in w for w in events.warnings)

    summary = result.summary()["lesion"]
    assert summary["dice"]["mean"] == pytest.approx(2.75 / 6)
    assert summary["dice"]["mean_without_empty"] == pytest.approx(1.75 / 5)
    assert summary["dice"]["median"] == pytest.approx(0.375)
    assert summary["dice"]["std"] == pytest.approx(np.std(dice, ddof=1))
    assert (summary["both_empty"], summary["reference_empty"], summary["prediction_empty"]) == (1, 1, 1)

    data = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert data["failed"] == 1 and data["mean_dice"] == pytest.approx(2.75 / 6)
    assert data["cases"][1]["scores"][0]["dice"] == pytest.approx(0.75)
    assert set(data["definitions"]) >= {"dice", "hd95", "failed"}
    text = (tmp_path / "scores.txt").read_text(encoding="utf-8")
    assert text == result.table()
    for line in ("moved", "both empty", "failed", "mean ", "without empty", "Failed: absent"):
        assert line in text
    with pytest.raises(EmimError, match="exists already"):
        evaluate(cohort, tmp_path / "out", LESION, tmp_path / "scores.json")
    with pytest.raises(EmimError, match="give --classes"):
        evaluate(cohort, tmp_path / "scores.json", LESION)


def test_regions_from_a_painted_map_and_from_layers(tmp_path):
    """A map in the training coding scores 1; layers keep what painting cannot."""
    label = cube(1, 2, 2, 2, 8)
    label[3:7, 4:8, 4:8] = 1
    label[4:6, 5:7, 5:7] = 3
    reference = {"p": save(tmp_path / "ref.nii.gz", label)}
    (tmp_path / "a").mkdir()
    save(tmp_path / "a/p.nii.gz", label)
    painted = evaluate(reference, tmp_path / "a", REGIONS)
    assert [s.dice for s in painted.cases[0].scores] == [1, 1, 1]
    assert painted.cases[0].scores[0].reference_ml == pytest.approx(512 * 6 / 1000)

    (tmp_path / "b").mkdir()
    masks = [np.isin(label, s.values) for s in REGIONS]
    masks[0][3:7, 4:8, 4:8] = False  # a WT with a hole where TC lies: lost when painted
    layers = np.stack([m * np.uint8(s.output) for m, s in zip(masks, REGIONS, strict=True)])
    grid = Grid.of(sitk.ReadImage(reference["p"]))
    write_seg_nrrd(tmp_path / "b/p.seg.nrrd", layers, grid, REGIONS)
    layered = evaluate(reference, tmp_path / "b", REGIONS).cases[0].scores
    assert layered[0].dice == pytest.approx(2 * 448 / (448 + 512))
    assert (layered[1].dice, layered[2].dice) == (1, 1)


def test_structures_that_overlap_partly_are_scored_from_layers_only(tmp_path):
    label = cube(1, 2, 2, 1) + cube(5, 2, 2, 2) + cube(5, 8, 8, 3)
    reference = {i: save(tmp_path / f"{i}.nii.gz", label) for i in "pq"}
    layers = np.stack([np.isin(label, s.values) * np.uint8(s.output) for s in PARTLY])
    (tmp_path / "out").mkdir()
    write_seg_nrrd(tmp_path / "out/p.seg.nrrd", layers, Grid.of(sitk.ReadImage(reference["p"])), PARTLY)
    result = evaluate(reference, tmp_path / "out", PARTLY)
    assert [[s.dice for s in c.scores] for c in result.cases] == [[1, 1], [0, 0]]
    save(tmp_path / "out/q.nii.gz", layers.max(0))
    with pytest.raises(EmimError, match="overlap partly"):
        evaluate(reference, tmp_path / "out", PARTLY, tmp_path / "scores.json")
    # Another tool's map with the values of the reference says of each voxel what it is.
    save(tmp_path / "out/q.nii.gz", label)
    result = evaluate(reference, tmp_path / "out", PARTLY, same_values=True)
    assert [[s.dice for s in c.scores] for c in result.cases] == [[1, 1], [1, 1]]


@pytest.fixture
def cases(tmp_path):
    """A datalist: good, with damaged images (segmented by another tool, or not), damaged label, no label."""
    rng = np.random.default_rng(0)
    (tmp_path / "out").mkdir()
    label = cube(2, 3, 4) + cube(6, 8, 8, 2)
    rows = ["id,T1,T2,label"]
    for name in ("good", "done", "lost", "torn", "bare"):
        t1, t2 = (save(tmp_path / f"{name}_{m}.nii", rng.normal(size=SHAPE)) for m in ("T1", "T2"))
        reference = save(tmp_path / f"{name}.nii", label) if name != "bare" else ""
        rows.append(f"{name},{t1},{t2},{reference}")
        if name != "lost":
            save(tmp_path / "out" / f"{name}.nii", label)
    for name in ("done_T2", "lost_T2", "torn"):
        (tmp_path / f"{name}.nii").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("chosen", [[], ["--cases", "good,done,lost,torn,bare"]])
def test_cases_that_cannot_be_used_are_not_silently_left_out(cases, chosen, capsys):
    command = ["evaluate", str(cases / "list.csv"), "--predictions", str(cases / "out"), *chosen]
    assert main([*command, "--structure", "lesion=1,2", "--output", str(cases / "scores.json")]) == 4
    data = json.loads((cases / "scores.json").read_text(encoding="utf-8"))
    assert {c["id"]: c["scores"][0]["dice"] for c in data["cases"]} == {"good": 1, "done": 1, "lost": 0}
    told = capsys.readouterr().err
    assert "Case lost failed" in told and "no label that can be used: torn." in told
    assert ("no label: bare." in told) == bool(chosen), "in a cohort most cases have no label"
    # The other tool's label maps use the values of the references: 2 is no unknown value.
    assert "no structure's" not in told


def test_cases_that_cannot_be_used_are_not_silently_left_out_of_classes(cases, capsys):
    (cases / "classes.csv").write_text("case,class\ngood,a\nlost,b\ndone,b\n", encoding="utf-8")
    table = cases / "p.csv"
    table.write_text(
        "case,probability_a,probability_b\ngood,0.9,0.1\ndone,0.2,0.8\nlost,,\n", encoding="utf-8"
    )
    chosen = ["--predictions", str(table), "--cases", "good,done,lost,bare"]
    result = ["--classes", str(cases / "classes.csv"), "--output", str(cases / "scores.json")]
    assert main(["evaluate", str(cases / "list.csv"), *chosen, *result]) == 4
    data = json.loads((cases / "scores.json").read_text(encoding="utf-8"))
    assert data["failed"] == ["lost"] and data["accuracy"] == pytest.approx(2 / 3)
    assert "no class: bare." in capsys.readouterr().err


@pytest.mark.parametrize("named", ["--cases", "--split"])
def test_a_case_named_twice_counts_once(named, cases, capsys):
    (cases / "classes.csv").write_text("case,class\ngood,a\nbare,b\n", encoding="utf-8")
    table = cases / "p.csv"
    table.write_text("case,probability_a,probability_b\ngood,0.9,0.1\nbare,0.9,0.1\n", encoding="utf-8")
    (cases / "split.json").write_text('{"test": ["good", "bare", "bare", "bare"]}', encoding="utf-8")
    chosen = [named, "good,bare,bare,bare" if named == "--cases" else str(cases / "split.json")]
    command = ["evaluate", str(cases / "list.csv"), "--classes", str(cases / "classes.csv"), *chosen]
    assert main([*command, "--predictions", str(table)]) == 0
    assert "2 cases of 2 subjects" in capsys.readouterr().out


def test_cases_and_a_split_are_not_both_taken(cases, capsys):
    (cases / "split.json").write_text('{"test": ["good"]}', encoding="utf-8")
    command = ["evaluate", str(cases / "list.csv"), "--predictions", str(cases / "out")]
    assert main([*command, "--split", str(cases / "split.json"), "--cases", "done"]) == 2
    assert "--cases and --split" in capsys.readouterr().err


def test_a_segmentation_of_an_old_slicer(tmp_path):
    """One layer a segment, neither layers nor values numbered."""
    masks = np.zeros((4, 5, 6, 2), np.uint8)
    masks[1, 1, 1, 0] = masks[2, :, :, 1] = 1
    image = sitk.GetImageFromArray(masks, isVector=True)
    for i, name in enumerate(("small", "large")):
        image.SetMetaData(f"Segment{i}_ID", f"s{i}")
        image.SetMetaData(f"Segment{i}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "old.seg.nrrd"))
    found, grid = read_seg_nrrd(tmp_path / "old.seg.nrrd")
    assert {n: int(m.sum()) for n, m in found.items()} == {"small": 1, "large": 30} and grid.shape == (
        4,
        5,
        6,
    )


def test_a_prediction_on_another_grid(tmp_path):
    (tmp_path / "out").mkdir()
    label = cube(3, 3, 3, 1, 6)
    reference = {"p": save(tmp_path / "ref.nii.gz", label)}
    # Every third voxel: the nearest of each group of three, so nothing is lost.
    save(tmp_path / "out/p.nii.gz", (label * 7)[1::3, 1::3, 1::3], (3, 6, 9), SPACING)
    events = Recorder()
    result = evaluate(reference, tmp_path / "out", LESION, events=events)
    assert any("another grid" in w for w in events.warnings)
    assert result.cases[0].scores[0].dice == 1 and not result.failed

    # The same voxels stored in another order are the same prediction, to the voxel.
    image = sitk.Flip(sitk.ReadImage(reference["p"]), (True, False, True))
    sitk.WriteImage(image * 7, str(tmp_path / "out/p.nii.gz"))
    events = Recorder()
    assert evaluate(reference, tmp_path / "out", LESION, events=events).cases[0].scores[0].dice == 1
    assert not events.warnings

    save(tmp_path / "out/p.nii.gz", label * 7, origin=(900, 0, 0))
    result = evaluate(reference, tmp_path / "out", LESION, events=events)
    assert "overlap" in result.failed[0].error and result.cases[0].scores[0].dice == 0


def test_wrong_coding_is_said(tmp_path):
    (tmp_path / "out").mkdir()
    reference = {"p": save(tmp_path / "ref.nii.gz", cube(2, 3, 4))}
    save(tmp_path / "out/p.nii.gz", cube(2, 3, 4, 4))
    events = Recorder()
    result = evaluate(reference, tmp_path / "out", LESION, events=events)
    assert result.cases[0].scores[0].dice == 0
    assert any("prediction has values that are no structure's: 4" in w for w in events.warnings)
    reference = {"p": save(tmp_path / "ref.nii.gz", cube(2, 3, 4, 9))}
    evaluate(reference, tmp_path / "out", LESION, events=events)
    assert any("reference has values that are no structure's: 9" in w for w in events.warnings)


def test_a_truncated_prediction_is_a_failure_not_a_smaller_lesion(tmp_path):
    (tmp_path / "out").mkdir()
    reference = {"p": save(tmp_path / "ref.nii", cube(2, 3, 4))}
    file = tmp_path / "out/p.nii"
    save(file, cube(2, 3, 4, 7))
    file.write_bytes(file.read_bytes()[:-200])
    result = evaluate(reference, tmp_path / "out", LESION)
    assert "incomplete" in result.failed[0].error


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("Layer:=2", "layer 2, but the layers end at 1"),
        ("Layer:=-1", "layer -1"),
        ("Layer:=", "Segment1_Layer is no whole number: ''"),
        ("LabelValue:=one", "Segment1_LabelValue is no whole number: 'one'"),
    ],
)
def test_a_segment_that_is_nowhere_is_a_failure(field, said, tmp_path):
    (tmp_path / "out").mkdir()
    layers = np.stack([cube(2, 3, 4, 1), cube(2, 3, 4, 2)])
    file = tmp_path / "out/p.seg.nrrd"
    write_seg_nrrd(file, layers, Grid(SHAPE[::-1], SPACING, (0.0, 0.0, 0.0)), PARTLY)
    header, voxels = file.read_bytes().split(b"\n\n", 1)
    key = field.partition(":=")[0]
    lines = [
        f"Segment1_{field}" if x.startswith(f"Segment1_{key}:=") else x for x in header.decode().split("\n")
    ]
    file.write_bytes("\n".join(lines).encode() + b"\n\n" + voxels)
    reference = {i: save(tmp_path / "ref.nii", cube(2, 3, 4)) for i in ("p", "q")}
    result = evaluate(reference, {"p": file}, PARTLY)
    assert said in result.failed[0].error and len(result.failed) == 2
    with pytest.raises(EmimError, match="Segment") as caught:
        read_seg_nrrd(file)
    assert caught.value.where == str(file) and caught.value.hint


def test_a_prediction_that_cannot_be_used_is_a_failure_whatever_it_raises(tmp_path, monkeypatch):
    def fails(*args):
        raise MemoryError("Unable to allocate 49.1 TiB")

    monkeypatch.setattr("emim.evaluation.segmentation.prediction_masks", fails)
    label = save(tmp_path / "ref.nii", cube(2, 3, 4))
    events = Recorder()
    result = evaluate({"p": label}, {"p": label}, LESION, events=events)
    assert "49.1 TiB" in result.failed[0].error and result.cases[0].scores[0].dice == 0
    assert any("Case p failed" in w for w in events.warnings)


def test_bad_input(tmp_path):
    reference = {"p": save(tmp_path / "ref.nii.gz", cube(2, 3, 4))}
    (tmp_path / "out").mkdir()
    with pytest.raises(EmimError, match="no such folder"):
        evaluate(reference, tmp_path / "nowhere", LESION)
    with pytest.raises(EmimError, match="no reference labels"):
        evaluate(Cohort(()), tmp_path / "out", LESION)
    with pytest.raises(EmimError, match="no such reference"):
        evaluate({"p": tmp_path / "gone.nii.gz"}, tmp_path / "out", LESION)
    save(tmp_path / "out/p.nii.gz", cube(2, 3, 4))
    save(tmp_path / "out/p.nrrd", cube(2, 3, 4))
    with pytest.raises(EmimError, match="several predictions"):
        evaluate(reference, tmp_path / "out", LESION)
