"""Reading cohorts: what files hold, what forbids their use, the tables, and datalists."""

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from emim.cli import main
from emim.cohort.scan import scan, survey
from emim.cohort.table import json_rows, summary, text_table, write_table
from emim.cohort.volume import DIGEST, inspect
from emim.errors import EmimError
from emim.events import Events
from emim.run import write_json


def write(path, seed=0, array=None, spacing=(1, 1, 1), origin=(0, 0, 0), direction=None, dtype=np.int16):
    """A small image (Z, Y, X) = (8, 9, 10), noise within a dark border; returns its path."""
    if array is None:
        array = np.zeros((8, 9, 10))
        array[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).integers(1, 1000, (6, 7, 8))
    image = sitk.GetImageFromArray(np.asarray(array).astype(dtype))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), path.suffix != ".nii")
    return path


def write_label(path, values=(0, 1, 2), **options):
    array = np.zeros((8, 9, 10))
    array[2, 2, : len(values)] = values
    return write(path, array=array, **{"dtype": np.uint8, **options})


@pytest.fixture
def cohort(tmp_path):
    """Three good cases: p1 with T1, T2 and a label, p2 with T1 and T2, p3 with T1 alone."""
    folder = tmp_path / "données"
    write(folder / "p1/t1.nii.gz", 1)
    write(folder / "p1/t2.nrrd", 2)
    write_label(folder / "p1/seg.nii.gz")
    write(folder / "p2/t1.mha", 3)
    write(folder / "p2/t2.nii", 4)
    write(folder / "p3/t1.nii.gz", 5)
    return folder


def row(found, name):
    return next(r for r in found.rows if r.id == name)


def test_a_good_cohort(cohort):
    found = scan(cohort)
    assert found.cohort.modalities == ("T1", "T2")
    assert [c.id for c in found.cohort.cases] == ["p1", "p2", "p3"]
    assert [c.id for c in found.cohort.labelled()] == ["p1"]
    assert found.cohort.cases[0].images["T2"] == str(cohort / "p1/t2.nrrd")
    assert found.label_values == (1, 2)
    assert all(r.usable and not r.notes for r in found.rows)
    facts = row(found, "p1").facts("T1")
    assert (facts.size, facts.spacing, facts.orientation) == ((10, 9, 8), (1, 1, 1), "LPS")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "p1/t1.nii.gz")))
    assert facts.range == (array.min(), array.max())


def test_progress_is_reported(cohort):
    class Seen(Events):
        def __init__(self):
            super().__init__()
            self.done = []

        def progress(self, done, total, unit="step", text=""):
            self.done.append((done, total))

    seen = Seen()
    scan(cohort, events=seen, workers=1)
    assert seen.done == [(n, 6) for n in range(7)]


def test_scanning_does_not_import_torch(cohort):
    code = (
        "import sys; from emim.cohort.scan import scan; scan(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(cohort)], check=True)


def test_modalities_in_the_order_asked_for(cohort):
    found = scan(cohort, modalities=["t2", "T1"])
    assert found.cohort.modalities == ("T2", "T1")
    found = scan(cohort, modalities=["T2", "FLAIR"])
    assert found.cohort.modalities == ("T2", "FLAIR")
    assert row(found, "p3").problems == ["no image"]
    assert sum("T1 is not among" in why for _, why in found.ignored) == 3
    with pytest.raises(EmimError, match="Found were: T1, T2"):
        scan(cohort, modalities=["FLAIR"])
    with pytest.raises(EmimError, match="twice"):
        scan(cohort, modalities=["T1", "t1w"])


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def truncated_gz(path):
    cut(write(path.with_suffix(".nii.gz"), 9))


def truncated_nii(path):
    cut(write(path.with_suffix(".nii"), 9))


def truncated_nrrd(path):
    cut(write(path.with_suffix(".nrrd"), 9))


def truncated_mha(path):
    cut(write(path.with_suffix(".mha"), 9))


def flipped_byte(path):
    flip(write(path.with_suffix(".nii.gz"), 9))


def short_but_well_packed(path):
    whole = gzip.decompress(write(path.with_suffix(".nii.gz"), 9).read_bytes())
    path.with_suffix(".nii.gz").write_bytes(gzip.compress(whole[:-100]))


def text_file(path):
    path.with_suffix(".nii").write_text("not an image")


def no_bytes(path):
    path.with_suffix(".nii.gz").touch()


def four_dimensional(path):
    image = sitk.JoinSeries([sitk.ReadImage(str(write(path.with_suffix(".tmp.nii"), n))) for n in (7, 8)])
    path.with_suffix(".tmp.nii").unlink()
    sitk.WriteImage(image, str(path.with_suffix(".nii.gz")))


def colour(path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkVectorFloat32, 3), str(path.with_suffix(".nrrd")))


def two_dimensional(path):
    sitk.WriteImage(sitk.Image([4, 5], sitk.sitkInt16), str(path.with_suffix(".mha")))


def single_slice(path):
    write(path.with_suffix(".nii.gz"), array=np.arange(20).reshape(1, 4, 5))


def not_a_number(path, extension=".nii.gz"):
    array = np.arange(4 * 5 * 6.0).reshape(4, 5, 6)
    array[1, 1, 1:3] = np.nan, np.inf
    write(path.with_suffix(extension), array=array, dtype=np.float32)


def all_not_a_number(path):
    write(path.with_suffix(".mha"), array=np.full((4, 5, 6), np.nan), dtype=np.float32)


def not_a_number_in_nrrd(path):
    not_a_number(path, ".nrrd")


def constant(path):
    write(path.with_suffix(".nii.gz"), array=np.full((4, 5, 6), 7))


def sheared_nrrd(path):
    write(path.with_suffix(".nrrd"), 9, direction=(1, 0.3, 0, 0, 1, 0, 0, 0, 1))


def sheared_nifti(path):
    file = write(path.with_suffix(".nii"), 9)
    data = bytearray(file.read_bytes())
    data[252:254] = (0).to_bytes(2, "little")  # no quaternion
    data[280 + 4 : 280 + 8] = np.float32(0.4).tobytes()  # row 0 of the affine, column 1
    file.write_bytes(bytes(data))


def sheared_beside_a_sound_qform(path):
    affine = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.arange(720, dtype=np.int16).reshape(10, 9, 8), affine)
    image.set_sform(affine, 1)
    image.set_qform(np.eye(4), 1)
    nibabel.save(image, path.with_suffix(".nii.gz"))


BROKEN = {
    sheared_beside_a_sound_qform: "right angles",
    truncated_gz: "damaged or incomplete",
    truncated_nii: "incomplete: ",
    truncated_nrrd: "damaged or incomplete",
    truncated_mha: "cannot be read",
    flipped_byte: "damaged",
    short_but_well_packed: "incomplete: ",
    text_file: "cannot be read",
    no_bytes: "0 bytes",
    four_dimensional: "4-D (10 x 9 x 8 x 2)",
    colour: "3 values",
    two_dimensional: "single slice (4 x 5)",
    single_slice: "single slice (5 x 4 x 1)",
    not_a_number: "2 voxels are NaN or infinite",
    all_not_a_number: "120 voxels are NaN or infinite",
    not_a_number_in_nrrd: "2 voxels are NaN or infinite",
    constant: "every voxel is 7",
    sheared_nrrd: "right angles",
    sheared_nifti: "right angles",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda f: f.__name__)
def test_a_broken_file_leaves_its_case_out(cohort, broken):
    broken(cohort / "p3/flair")
    found = scan(cohort)
    assert [c.id for c in found.cohort.cases] == ["p1", "p2"]
    (problem,) = row(found, "p3").problems
    assert problem.startswith("FLAIR: ")
    assert BROKEN[broken] in problem
    assert problem in text_table(found)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "options", "problem"),
    [
        ((0, 0.5, 1), {"dtype": np.float32}, "not whole numbers"),
        ((0, -1, 1), {"dtype": np.int16}, "reach from -1 to 1"),
        ((0, 40000), {"dtype": np.int32}, "reach from 0 to 40000"),
        ((0, 1), {"origin": (500, 0, 0)}, "does not overlap"),
    ],
)
def test_a_broken_label_leaves_its_case_out(cohort, values, options, problem):
    write_label(cohort / "p2/seg.nii.gz", values, **options)
    found = scan(cohort)
    assert "p2" not in [c.id for c in found.cohort.cases]
    (said,) = row(found, "p2").problems
    assert problem in said


def test_an_image_taken_for_a_label(cohort):
    write(cohort / "p2/seg.nii.gz", array=np.arange(8 * 9 * 10).reshape(8, 9, 10))
    assert "720 different values" in row(scan(cohort), "p2").problems[0]


def test_whole_numbers_stored_as_floats_are_labels(cohort):
    write_label(cohort / "p2/seg.nii.gz", (0, 1, 4), dtype=np.float64)
    assert row(scan(cohort), "p2").label_values == (1, 4)


def test_notes_do_not_leave_a_case_out(cohort):
    write_label(cohort / "p2/seg.nii.gz", (), spacing=(2, 2, 2))
    write(cohort / "p3/t2.nii.gz", 9, origin=(7, 0, 0))
    write(cohort / "p3/flair.nii.gz", 10, dtype=np.int16)
    saturated = np.arange(720).reshape(8, 9, 10)
    saturated[4] = 32767
    write(cohort / "p1/t2.nrrd", array=saturated)
    found = scan(cohort)
    assert len(found.cohort.cases) == 3
    assert row(found, "p1").notes == [
        "T2: intensities are cut off at the largest value of the file's type (saturated)"
    ]
    assert any("label is empty" in n for n in row(found, "p2").notes)
    assert any("grid is that of no image" in n for n in row(found, "p2").notes)
    assert row(found, "p3").notes == [
        "T2 and T1 overlap in space only in part",
        "its 3 images lie on 2 grids",
    ]


def test_images_that_do_not_overlap(cohort):
    write(cohort / "p2/t2.nii", 4, origin=(0, 0, 300))
    assert row(scan(cohort), "p2").problems == ["T2 and T1 do not overlap in space"]


def test_an_image_that_shows_only_a_part(cohort):
    slab = np.zeros((8, 9, 10))
    slab[2:5, 1:-1, 1:-1] = np.random.default_rng(0).integers(1, 1000, (3, 7, 8))
    write(cohort / "p1/flair.nii.gz", array=slab)
    assert row(scan(cohort), "p1").notes == ["FLAIR shows only a part of what the others show"]


def test_label_values_of_one_case_alone(cohort):
    for n, values in enumerate([(0, 1, 2), (0, 1, 2), (0, 1, 4)], start=1):
        write_label(cohort / f"p{n}/seg.nii.gz", values)
    found = scan(cohort)
    assert [r.notes for r in found.rows] == [[], [], ["no other case has the label value 4"]]


def test_two_files_for_one_modality(cohort):
    write(cohort / "p2/t1_again.nii.gz", 8)
    write_label(cohort / "p2/seg.nii.gz")
    write_label(cohort / "p2/lesion_mask.nii.gz")
    found = scan(cohort)
    said = row(found, "p2").problems
    assert said[0] == "2 files for T1: t1.mha, t1_again.nii.gz"
    assert said[1].startswith("2 files for the label")
    assert "2x" in text_table(found)


def test_the_same_image_twice(cohort):
    """Copies are found by their voxels, whatever their format."""
    write(cohort / "p2/t2.nii", 3)  # the same as its T1
    write(cohort / "p3/t1.nii.gz", 1)  # the same as p1's
    with pytest.raises(EmimError, match="None of the 3 cases") as caught:
        scan(cohort)
    assert "p2: T1 is a copy of T2" in caught.value.hint
    assert "p3: T1 is a copy of T1 of p1" in caught.value.hint


@pytest.mark.parametrize("dtype", ["u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("name", ["t1.nii.gz", "t1.nrrd"])
def test_a_copy_of_another_pixel_type_is_found(cohort, dtype, name):
    (cohort / "p3/t1.nii.gz").unlink()
    write(cohort / "p3" / name, 1, dtype=dtype)  # the same as p1's
    assert row(scan(cohort), "p3").problems == ["T1 is a copy of T1 of p1"]


def test_digests_tell_images_that_differ_in_one_voxel(tmp_path, monkeypatch):
    monkeypatch.setattr("emim.cohort.volume.BLOCK", 100)
    array = np.random.default_rng(0).normal(size=(8, 9, 10))
    digests = []
    for first, last in ((0.0, 1.0), (-0.0, 1.0), (0.0, 1.001)):
        array[0, 0, 0], array[-1, -1, -1] = first, last
        digests.append(inspect(write(tmp_path / "a.nrrd", array=array, dtype="f8")).digest)
    assert digests[0] == digests[1] != digests[2]


def test_orientation_and_oblique_grids(tmp_path):
    turned = sitk.Euler3DTransform((0, 0, 0), 0.3, 0, 0).GetMatrix()
    assert inspect(write(tmp_path / "a.nii.gz", direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))).orientation == "RPS"
    oblique = inspect(write(tmp_path / "b.nii.gz", direction=turned))
    assert oblique.orientation == "LPS"
    low, high = oblique.box()
    corners = [np.reshape(turned, (3, 3)) @ np.subtract(c, 0.5) for c in np.ndindex(11, 10, 9)]
    assert np.allclose(low, np.min(corners, axis=0), atol=1e-5)
    assert np.allclose(high, np.max(corners, axis=0), atol=1e-5)


def test_nothing_to_find(tmp_path):
    with pytest.raises(EmimError, match="no such folder"):
        scan(tmp_path / "missing")
    with pytest.raises(EmimError, match="holds no file"):
        scan(tmp_path)
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1/slice.dcm").touch()
    with pytest.raises(EmimError, match="(?s)holds DICOM.*slice.dcm.*DICOM module.*dcm2niix"):
        scan(tmp_path)
    write(tmp_path / "p1/image.nii.gz")
    with pytest.raises(EmimError, match="(?s)name that tells its modality.*p1/image.nii.gz.*--pattern"):
        scan(tmp_path)
    assert scan(tmp_path, patterns={"Xe": "image"}).cohort.modalities == ("Xe",)
    (tmp_path / "list.txt").touch()
    with pytest.raises(EmimError, match="neither"):
        scan(tmp_path / "list.txt")
    with pytest.raises(EmimError, match="not valid"):
        scan(tmp_path, label="re:(")


def test_text_table(cohort):
    write_label(cohort / "p2/seg.nii.gz", (0, 0.5), dtype=np.float32)
    (cohort / "p1/notes.txt").touch()
    text = text_table(scan(cohort))
    lines = text.splitlines()
    assert lines[0] == "All cases: grid 10x9x8, spacing mm 1, axes LPS"
    assert lines[2].split() == ["case", "T1", "T2", "label"]
    assert lines[4].split()[0] == "p1" and lines[4].split()[-2:] == ["1", "2"]
    assert lines[5].endswith("!      LEFT OUT")
    assert lines[6].split()[2:] == ["-", "-"]
    assert "  p2: the label: label values are not whole numbers" in text
    assert "  not an image: p1/notes.txt" in text
    assert lines[-1] == summary(scan(cohort))
    assert lines[-1] == (
        "3 cases: 2 usable (2 subjects), 1 left out, 1 labelled (values 1, 2), 1 with a missing modality. "
        "Modalities: T1, T2."
    )


def test_tables_are_datalists_of_the_same_cohort(cohort, tmp_path):
    write(cohort / "p3/t1_again.nii.gz", 8)
    found = scan(cohort)
    for file in write_table(found, tmp_path / "out"):
        again = scan(file)
        assert again.cohort == found.cohort
        assert [r.problems for r in again.rows] == [r.problems for r in found.rows]
        assert [r.duplicates for r in again.rows] == [r.duplicates for r in found.rows]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cohort.csv", "cohort.json"]
    with open(tmp_path / "out/cohort.csv", encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["id"], first["usable"], first["T1.grid"], first["label_values"]) == (
        "p1",
        "yes",
        "10x9x8",
        "1 2",
    )
    found.cohort.save(tmp_path / "saved.json")
    assert scan(tmp_path / "saved.json").cohort == found.cohort


def test_an_earlier_scan_spares_reading_unless_a_file_changed(cohort, tmp_path, monkeypatch):
    file, _ = write_table(scan(cohort), tmp_path)
    write(cohort / "p2/t1.mha", 99, array=np.full((8, 9, 10), 5))
    read = []
    monkeypatch.setattr("emim.cohort.scan.inspect", lambda p, label: read.append(p) or inspect(p, label))
    found = scan(file)
    assert read == [str(cohort / "p2/t1.mha")]
    assert row(found, "p2").problems == ["T1: the image is empty (every voxel is 5)"]
    assert row(found, "p1").label_values == (1, 2)


def test_files_with_digests_of_an_earlier_kind_are_read_again(cohort, tmp_path):
    """Else copies of them under other names would not be known again."""
    found = scan(cohort)
    file, _ = write_table(found, tmp_path)
    data = json.loads(file.read_text(encoding="utf-8"))
    for facts in (f for case in data["cases"] for f in case["files"].values()):
        facts["digest"] = facts["digest"] and facts["digest"].removeprefix(DIGEST)
    file.write_text(json.dumps(data), encoding="utf-8")
    assert [r.files for r in scan(file).rows] == [r.files for r in found.rows]


def test_json_datalist(cohort):
    entries = [
        {
            "id": "b",
            "subject": "s",
            "images": {"t1": "p1/t1.nii.gz", "Xe": "p1/t2.nrrd"},
            "label": "p1/seg.nii.gz",
        },
        {"id": "a", "images": {"t1": str(cohort / "p2/t1.mha"), "Xe": None}},
        {"id": "c", "images": {"t1": "p9/t1.nii"}},
    ]
    file = cohort / "list.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    found = scan(file)
    assert found.cohort.modalities == ("T1", "Xe")
    assert [(c.id, c.subject, list(c.images)) for c in found.cohort.cases] == [
        ("a", "a", ["T1"]),
        ("b", "s", ["T1", "Xe"]),
    ]
    assert found.cohort.cases[1].label == str(cohort / "p1/seg.nii.gz")
    assert row(found, "c").problems == ["T1: the file does not exist"]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_datalist(cohort, delimiter):
    text = "\ufeffid,T2,T1,label\nx,p1/t2.nrrd,p1/t1.nii.gz,p1/seg.nii.gz\ny,,p2/t1.mha,\n\n"
    (cohort / "list.csv").write_text(text.replace(",", delimiter), encoding="utf-8")
    found = scan(cohort / "list.csv")
    assert found.cohort.modalities == ("T2", "T1")
    assert [(c.id, len(c.images), bool(c.label)) for c in found.cohort.cases] == [
        ("x", 2, True),
        ("y", 1, False),
    ]


def test_decathlon_datalist(cohort):
    training = [{"image": ["p1/t1.nii.gz", "p1/t2.nrrd"], "label": "p1/seg.nii.gz"}, {"image": ["p2/t1.mha"]}]
    data = {"training": training, "test": ["p3/t1.nii.gz"]}
    file = cohort / "dataset.json"
    file.write_text(json.dumps(data))
    found = scan(file)
    assert [(c.id, list(c.images)) for c in found.cohort.cases] == [("p1", ["T1", "T2"]), ("p2", ["T1"])]
    assert found.ignored[0][1] == "only the list named training is used"
    file.write_text(json.dumps({**data, "modality": {"1": "B", "0": "A"}}))
    assert scan(file).cohort.modalities == ("A", "B")
    file.write_text(json.dumps({"training": [{"image": ["p1/x.nii", "p1/y.nii"]}]}))
    with pytest.raises(EmimError, match="which modalities"):
        scan(file)


def test_images_that_nothing_names_are_named_in_order(cohort):
    for n, old in enumerate(("p1/t1.nii.gz", "p1/t2.nrrd")):
        shutil.copy(cohort / old, cohort / f"x_{n}{Path(old).name[2:]}")
    images = [str(p.name) for p in sorted(cohort.glob("x_*"))]
    file = cohort / "list.json"
    file.write_text(json.dumps({"training": [{"image": images, "label": None}]}))
    with pytest.raises(EmimError, match="not clear"):
        scan(file)
    assert scan(file, modalities=("T1", "T2")).cohort.modalities == ("T1", "T2")
    file.write_text(json.dumps({"modality": {"0": "FLAIR", "1": "T2"}, "training": [{"image": images}]}))
    assert scan(file, modalities=("T2", "FLAIR")).cohort.cases[0].images["FLAIR"].endswith(images[0])


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", "[", "not valid JSON"),
        ("a.json", '{"x": 1}', "not a list of cases"),
        ("a.json", "[]", "no case"),
        ("a.json", '[{"id": "a"}]', "case 1"),
        ("a.json", '[{"id": "a/b", "images": {"T1": "x.nii"}}]', "cannot name"),
        ("a.json", '[{"id": "a", "images": {"T1": 3}}]', "must be a text"),
        ("a.json", '[{"id": "a", "images": {"T1": "x.nii", "t1w": "y.nii"}}]', "another name"),
        ("a.json", '[{"id": "a", "images": {}}, {"id": "a", "images": {}}]', "more than once"),
        ("a.json", '{"training": [{"image": 3}]}', "training case 1"),
        ("a.csv", "", "column id"),
        ("a.csv", "id,label\n", "one column per modality"),
        ("a.csv", "id,T1,T1\na,b,c\n", "same name"),
        ("a.csv", "id,T1\na,b,c\n", "line 2"),
        ("a.csv", "id,T1\n", "no case"),
        ("a.csv", "id,T1\n,x.nii\n", "cannot name"),
    ],
)
def test_a_wrong_datalist_is_refused(tmp_path, name, text, what):
    (tmp_path / name).write_text(text)
    with pytest.raises(EmimError, match=what):
        scan(tmp_path / name)


def test_patterns_with_a_datalist_are_refused(cohort):
    file, _ = write_table(scan(cohort), cohort)
    with pytest.raises(EmimError, match="Patterns are for folders"):
        scan(file, patterns={"T1": "x"})


def test_text_table_of_many_cases_on_many_grids(cohort):
    turned = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
    for n in range(30):
        write(cohort / f"q{n:02}/t1.nii.gz", 100 + n)
        write(cohort / f"q{n:02}/t2.nii.gz", 200 + n, spacing=(1, 1, 2), direction=turned)
    text = text_table(scan(cohort))
    lines = text.splitlines()
    assert sum(line.startswith("q") for line in lines) == 30
    assert max(map(len, lines)) <= 120
    assert "  its 2 images lie on 2 grids: q00, q01, q02, q03 and 26 more" in lines
    assert "+n: other images of the case have n further ones; *: oblique" not in text_table(
        scan(cohort / "p1")
    )
    assert next(line for line in lines if line.startswith("q00")).split()[-3:] == ["+1", "LPS", "+1"]
    assert "+n: other images of the case have n further ones" in lines


# ---- for programs -------------------------------------------------------------------------------


def test_rows_for_a_program(cohort, capsys):
    write(cohort / "p2/t1_again.nii.gz", 8)
    (cohort / "p3/t2.nii.gz").write_bytes(b"damaged")
    (cohort / "notes.txt").touch()
    assert main(["scan", str(cohort), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any(e["type"] == "progress" and e["unit"] == "file" for e in events)
    result = events[-1]
    assert (result["type"], result["cases"], result["modalities"]) == ("result", 1, ["T1", "T2"])
    p1, p2, p3 = result["rows"]
    assert p1 == {
        "id": "p1",
        "subject": "p1",
        "usable": True,
        "images": {"T1": str(cohort / "p1/t1.nii.gz"), "T2": str(cohort / "p1/t2.nrrd")},
        "label": str(cohort / "p1/seg.nii.gz"),
        "label_values": [1, 2],
        "problems": [],
        "notes": [],
        "file_problems": {},
    }
    assert not p2["usable"] and len(p2["duplicates"]["T1"]) == 2 and "T1" not in p2["images"]
    assert p2["file_problems"] == {"T1": ["2 files: t1.mha, t1_again.nii.gz"]} and p2["label"] is None
    assert list(p3["file_problems"]) == ["T2"] and p3["file_problems"]["T2"][0] in p3["problems"][0]
    assert result["ignored"] == [{"path": str(cohort / "notes.txt"), "why": "not an image"}]


def test_names_that_a_code_page_lacks_can_be_piped(cohort, tmp_path):
    (cohort / "p3").rename(cohort / "łucja")
    command = [sys.executable, "-m", "emim", "scan", str(cohort), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "łucja" in done.stdout.decode("utf-8") and (tmp_path / "out" / "cohort.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf_8(cohort, tmp_path, capsys):
    """Such images are not used, as ITK could not open them; other files do no harm."""
    folder = os.fsencode(cohort)
    os.rename(folder + b"/p3", folder + b"/p\xe93")
    os.rename(folder + b"/p2/t2.nii", folder + b"/p2/\xe9_t2.nii")
    open(folder + b"/p1/r\xe9sum\xe9.txt", "w").close()
    assert main(["scan", str(cohort), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "not in UTF-8: rename it: p2/\\udce9_t2.nii, p\\udce93/t1.nii.gz" in told.out
    assert "not in UTF-8: 2." in told.err
    found = scan(cohort)
    assert [(c.id, list(c.images)) for c in found.cohort.cases] == [("p1", ["T1", "T2"]), ("p2", ["T1"])]
    for name in ("cohort.json", "cohort.csv"):
        assert scan(tmp_path / "out" / name).cohort == found.cohort
    with pytest.raises(EmimError, match="path is not in UTF-8"):
        scan(os.fsdecode(folder + b"/p\xe93"))
    for case in (b"/p1", b"/p2"):
        shutil.rmtree(folder + case)
    with pytest.raises(EmimError, match="paths of the images are not in UTF-8"):
        scan(cohort)


def test_paths_that_are_not_utf_8_are_read_back_from_json(tmp_path):
    path = os.fsdecode(b"/data/p\xe93")
    write_json(tmp_path / "a.json", {"path": path})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": path}
    events = Events()
    events.record_to(tmp_path / "events.jsonl")
    events.warning("What?", path)
    events.close()
    assert json.loads((tmp_path / "events.jsonl").read_text(encoding="utf-8"))["where"] == path


def test_a_cohort_without_a_usable_case_is_shown_nevertheless(cohort, capsys):
    for case in ("p1", "p2", "p3"):
        for file in (cohort / case).glob("t*"):
            file.write_bytes(b"damaged")
    found = survey(cohort)
    assert found.cohort.cases == () and [r["usable"] for r in json_rows(found)] == [False] * 3
    assert main(["scan", str(cohort), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["cases"] == 0 and len(events[-1]["rows"]) == 3
    assert "None of the 3 cases" in next(e["what"] for e in events if e["type"] == "warning")


def test_patterns_of_a_user_are_remembered_in_the_table(cohort, tmp_path):
    found = scan(cohort, patterns={"T1": "t1*", "T2": ["t2*", "x"]})
    assert found.patterns == {"T1": ("t1*",), "T2": ("t2*", "x")}
    write_table(found, tmp_path / "table")
    assert scan(tmp_path / "table" / "cohort.json").patterns == found.patterns
    assert scan(cohort).patterns == {}


def test_modalities_go_by_their_usual_names(cohort, tmp_path):
    """Whoever names them: patterns of a user, the table, one of an earlier version, who chooses some."""
    found = scan(cohort, patterns={"t1gd": "t1*", "T1CE": "x", "flair": "t2*"})
    assert found.modalities == ("T1ce", "FLAIR")
    assert found.patterns == {"T1ce": ("t1*", "x"), "FLAIR": ("t2*",)}
    file, _ = write_table(found, tmp_path / "table")
    assert scan(file).cohort == found.cohort and scan(file).patterns == found.patterns
    earlier = json.loads(file.read_text(encoding="utf-8"))
    earlier |= {"modalities": ["flair", "t1gd"], "patterns": {"t1gd": ["t1*"], "T1ce": ["x"]}}
    file.write_text(json.dumps(earlier), encoding="utf-8")
    assert scan(file).modalities == ("FLAIR", "T1ce") and scan(file).patterns == {"T1ce": ("t1*", "x")}
    assert found.cohort.with_modalities(("flair", "T1Gd")).modalities == ("FLAIR", "T1ce")
    with pytest.raises(EmimError, match="named twice"):
        found.cohort.with_modalities(("T1ce", "t1gd"))
    with pytest.raises(EmimError, match="has the modality 'T2'"):
        found.cohort.with_modalities(("T2w",))
