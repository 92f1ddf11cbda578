import filecmp
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from emim.errors import EmimError
from emim.phantom.anatomy import REGIONS, build_head, draw_anatomy
from emim.phantom.generate import generate
from emim.phantom.lesion import draw_lesions
from emim.phantom.noise import SmoothNoise
from emim.phantom.scanner import (
    ORIENTATIONS,
    add_rician_noise,
    make_grid,
    resample_slices,
    world_points,
)
from emim.phantom.shapes import coverage, ellipsoid, tube
from emim.phantom.signal import MODALITIES, Sequence, draw_protocol, inversion_recovery, null_time
from emim.phantom.tissues import TISSUES

SPACING = 5.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("phantom") / "köhort", subjects=16, labelled=8, spacing=SPACING)


def files(cohort):
    return sorted(cohort.glob("sub-*/*.nii.gz"))


def image(cohort, subject, modality):
    return sitk.ReadImage(str(cohort / subject / f"{subject}_{modality}.nii.gz"))


@pytest.mark.parametrize("seed", range(20))
def test_contrasts_are_those_radiologists_know(seed):
    protocol = draw_protocol(np.random.default_rng(seed))
    t1, t1ce, t2, flair = ({t: abs(protocol[m].signal(t)) for t in TISSUES} for m in MODALITIES)
    assert t1["white matter"] > t1["deep grey matter"] > t1["grey matter"] > t1["CSF"]
    assert t2["CSF"] > t2["oedema"] > t2["grey matter"] > t2["white matter"]
    assert flair["oedema"] > 1.3 * flair["white matter"]
    assert flair["grey matter"] > flair["white matter"] > 4 * flair["CSF"]
    # Enhancement shows only after contrast agent; vessels and plexus enhance too, blood products do not.
    assert t1["enhancing tumour"] < t1["white matter"]
    for tissue in ("enhancing tumour", "vessel", "choroid plexus"):
        assert t1ce[tissue] > 1.25 * t1ce["white matter"]
        assert t1ce[tissue] > 1.3 * t1[tissue]
    assert t1["blood products"] > t1["white matter"]
    assert t1ce["blood products"] == pytest.approx(t1["blood products"], rel=0.1)
    assert t1ce["necrosis"] < t1ce["white matter"]


def test_inversion_nulls_the_signal():
    ti = null_time(4300.0, 9000.0)
    assert inversion_recovery(4300.0, 1500.0, 1.0, 9000.0, 100.0, ti) == pytest.approx(0.0, abs=1e-12)
    assert Sequence(3.0, 9000.0, 100.0, ti).signal("CSF") == pytest.approx(0.0, abs=1e-12)


def test_noise_is_rician():
    rng = np.random.default_rng(0)
    air = add_rician_noise(rng, np.zeros(400_000, np.float32), 3.0)
    assert air.mean() == pytest.approx(3.0 * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(3.0 * np.sqrt(2 - np.pi / 2), rel=0.01)
    tissue = add_rician_noise(rng, np.full(400_000, 100.0, np.float32), 3.0)
    assert tissue.mean() == pytest.approx(np.sqrt(100.0**2 + 3.0**2), rel=0.001)
    assert tissue.std() == pytest.approx(3.0, rel=0.01)


def test_air_around_an_unstripped_head_is_rayleigh(tmp_path):
    generate(tmp_path / "p", subjects=1, labelled=1, spacing=SPACING, skull=True)
    array = sitk.GetArrayFromImage(image(tmp_path / "p", "sub-001", "T1")).astype(float)
    corner = array[-6:, :4, :4].ravel()  # 96 voxels above and beside the head
    assert corner.mean() > 0
    assert corner.mean() / corner.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.25)
    assert array.max() > 5 * corner.mean()


def test_smooth_noise_has_the_wavelength_asked_for():
    noise = SmoothNoise(np.random.default_rng(1), 20.0)
    line = np.zeros((3, 60, 900), np.float32)
    line[0] = np.linspace(-90, 90, 900)
    line[1] = np.linspace(-90, 90, 60)[:, None]
    values = noise.at(line)
    assert abs(values.mean()) < 0.1 and 0.6 < values.std() < 1.1
    crossings = (np.diff(np.sign(values), axis=1) != 0).sum(axis=1).mean()
    # Along a line the field is not purely at its peak frequency; half to one and a half of two a wave.
    assert 0.5 < crossings / (2 * 180 / 20.0) < 1.5


def test_shapes_measure_distance():
    on_axis = np.array([[[14.0]], [[0.0]], [[0.0]]])
    assert ellipsoid(on_axis, (0, 0, 0), (10, 10, 10)).item() == pytest.approx(4.0)
    assert tube(on_axis, [(0, 3, 0, 1), (20, 3, 0, 1)]).item() == pytest.approx(2.0)
    assert coverage(np.array([-9.0, 0.0, 9.0]), 2.0).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_points_are_where_simpleitk_says(orientation):
    centre, tilt = np.array([5.0, -7.0, 9.0]), np.array([0.1, 0.0, 0.2])
    grid = make_grid(orientation, (2.0, 3.0, 4.0), (60, 60, 60), centre, tilt)
    points = world_points(grid)
    i, j, k = (n - 2 for n in grid.GetSize())
    expected = grid.TransformIndexToPhysicalPoint((i, j, k))
    np.testing.assert_allclose(points[:, k, j, i], expected, atol=1e-3)
    middle = grid.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in grid.GetSize()])
    np.testing.assert_allclose(middle, centre, atol=1e-9)


def test_thick_slices_keep_positions():
    fine = make_grid("LPS", (1.0, 1.0, 1.0), (40, 40, 40), np.zeros(3), np.zeros(3))
    ramp = sitk.GetImageFromArray(world_points(fine)[2])
    ramp.CopyInformation(fine)
    thick = make_grid("LPS", (1.0, 1.0, 5.0), (30, 30, 30), np.zeros(3), np.array([0.1, 0.05, 0.0]))
    result = sitk.GetArrayFromImage(resample_slices(ramp, thick))
    np.testing.assert_allclose(result, world_points(thick)[2], atol=1e-3)


def test_same_head_on_two_grids_gives_the_same_label():
    anatomy = draw_anatomy(np.random.default_rng(3), np.zeros(3), "ring")
    heads = []
    for orientation, tilt in (("LPS", 0.0), ("PIR", 0.2)):
        grid = make_grid(orientation, (3.0,) * 3, (165, 195, 175), np.array([0, 2.0, -5.0]), np.full(3, tilt))
        head = build_head(anatomy, world_points(grid), grid.GetSpacing(), skull=False)
        label = sitk.GetImageFromArray(head.label)
        label.CopyInformation(grid)
        heads.append(label)
    a = sitk.GetArrayFromImage(heads[0])
    b = sitk.GetArrayFromImage(sitk.Resample(heads[1], heads[0], sitk.Transform(), sitk.sitkNearestNeighbor))
    for inside_a, inside_b in ((a > 0, b > 0), (np.isin(a, (1, 3)), np.isin(b, (1, 3)))):
        assert inside_a.sum() > 200
        assert 2 * (inside_a & inside_b).sum() / (inside_a.sum() + inside_b.sum()) > 0.85


def test_files_and_description(cohort):
    assert "SYNTHETIC" in (cohort / "README.txt").read_text(encoding="utf-8")
    described = json.loads((cohort / "phantom.json").read_text(encoding="utf-8"))
    assert described["synthetic"] is True
    assert [s["id"] for s in described["subjects"]] == [f"sub-{i:03d}" for i in range(1, 17)]
    for file in files(cohort):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        assert "Synthetic phantom" in reader.GetMetaData("ITK_FileNotes")
    for s in described["subjects"]:
        there = {f.name[len("sub-000_") : -len(".nii.gz")] for f in (cohort / s["id"]).iterdir()}
        expected = set(MODALITIES) - set(s["missing"])
        assert there == expected | ({"seg"} if s["id"] <= "sub-008" else set())


def test_variety(cohort):
    subjects = json.loads((cohort / "phantom.json").read_text(encoding="utf-8"))["subjects"]
    assert {s["lesion"] for s in subjects} == {"ring", "solid", "not enhancing", None}
    assert any(s["missing"] for s in subjects) and all(not s["missing"] for s in subjects[:8])
    grids = {i: image(cohort, f"sub-{i:03d}", "T1") for i in range(1, 6)}
    directions = [np.reshape(g.GetDirection(), (3, 3)) for g in grids.values()]
    assert sum(np.linalg.det(d) < 0 for d in directions) == 1  # LAS is left-handed
    assert sum(not np.isin(np.abs(d.round(3)), (0, 1)).all() for d in directions) == 1  # one is oblique
    assert len({tuple(d.round(2).ravel()) for d in directions}) == 5
    flair = image(cohort, "sub-002", "FLAIR")  # on its own grid
    assert flair.GetSize() != grids[2].GetSize() and flair.GetSpacing()[2] > 1.7 * SPACING


def test_labels_lie_on_the_lesion(cohort):
    for i in range(1, 9):
        subject = f"sub-{i:03d}"
        label = image(cohort, subject, "seg")
        t1 = image(cohort, subject, "T1")
        assert label.GetSize() == t1.GetSize()
        np.testing.assert_allclose(label.GetOrigin(), t1.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(label.GetDirection(), t1.GetDirection(), atol=1e-5)
        values = sitk.GetArrayFromImage(label)
        assert set(np.unique(values)) <= {0, 1, 2, 3} and (values > 0).sum() > 20
        assert (3 in values) == (i % 4 != 2)  # "not enhancing" comes second of four
        # The lesion is bright on FLAIR, also where FLAIR has a grid of its own.
        flair = sitk.Resample(image(cohort, subject, "FLAIR"), label, sitk.Transform(), sitk.sitkLinear)
        flair = sitk.GetArrayFromImage(flair)
        assert flair[values == 2].mean() > 1.25 * np.median(flair[(values == 0) & (flair > 0)])
        if 3 in values:
            t1ce = sitk.GetArrayFromImage(image(cohort, subject, "T1ce")).astype(float)
            t1 = sitk.GetArrayFromImage(t1).astype(float)
            ratio = [a[values == 3].mean() / np.median(a[(values == 0) & (a > 0)]) for a in (t1, t1ce)]
            assert ratio[1] > 1.2 * ratio[0]


def test_one_subject_does_not_depend_on_the_others(cohort, tmp_path):
    again = generate(tmp_path / "again", subjects=3, labelled=3, spacing=SPACING)
    for file in files(again):
        assert filecmp.cmp(file, cohort / file.relative_to(again), shallow=False), file
    other = generate(tmp_path / "other", subjects=1, labelled=1, spacing=SPACING, seed=1)
    assert not filecmp.cmp(
        other / "sub-001" / "sub-001_T1.nii.gz", cohort / "sub-001" / "sub-001_T1.nii.gz", shallow=False
    )


def test_existing_folders_are_safe(tmp_path):
    ours = generate(tmp_path / "ours", subjects=1, spacing=SPACING)
    with pytest.raises(EmimError, match="exist already"):
        generate(ours, subjects=1, spacing=SPACING)
    generate(ours, subjects=2, spacing=SPACING, overwrite=True)
    assert (ours / "sub-002").is_dir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(EmimError, match="already there"):
        generate(theirs, subjects=1, spacing=SPACING, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "theirs"]


@pytest.mark.parametrize(
    "wrong", [{"subjects": 0}, {"subjects": 2, "labelled": 3}, {"spacing": 0.0}, {"seed": -1}]
)
def test_arguments_are_checked_first(tmp_path, wrong):
    with pytest.raises(EmimError):
        generate(tmp_path / "p", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr("emim.phantom.generate.build_head", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        generate(tmp_path / "p", subjects=5, spacing=SPACING)
    assert not list(tmp_path.iterdir())


def test_phantoms_that_cannot_be_replaced_stay(tmp_path, monkeypatch):
    folder, rename = generate(tmp_path / "p", subjects=1, spacing=SPACING), os.replace

    def refuse(old, new):
        if Path(old).suffix == ".part":
            raise PermissionError(13, "in use", str(new))
        return rename(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        generate(folder, subjects=2, spacing=SPACING, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["p"] and (folder / "sub-001").is_dir()


def test_every_modality_can_lie_on_a_grid_of_its_own(tmp_path):
    folder = generate(tmp_path / "heads", subjects=1, labelled=1, spacing=5.0, own_grids=True) / "sub-001"
    images = {m: sitk.ReadImage(str(folder / f"sub-001_{m}.nii.gz")) for m in MODALITIES}
    grids = {(i.GetSize(), i.GetSpacing(), i.GetDirection()) for i in images.values()}
    assert len(grids) == len(MODALITIES)
    on_t1 = {m: sitk.GetArrayFromImage(sitk.Resample(i, images["T1"])) > 0 for m, i in images.items()}
    for modality, inside in on_t1.items():  # the same head, wherever the voxels lie
        overlap = 2 * (inside & on_t1["T1"]).sum() / (inside.sum() + on_t1["T1"].sum())
        assert overlap > 0.85, (modality, overlap)  # slices of some 10 mm have coarse edges


def test_classes_differ_in_the_number_of_lesions_alone():
    def everywhere(points, radius):
        return np.ones(points.shape[1], bool)

    for seed in range(3):
        (one,), several = (
            draw_lesions(np.random.default_rng(seed), kind, everywhere) for kind in ("solitary", "multifocal")
        )
        assert 3 <= len(several) <= 5
        assert sum(x.core**3 for x in several) == pytest.approx(one.core**3)
        assert sum((x.core + x.oedema) ** 3 for x in several) == pytest.approx((one.core + one.oedema) ** 3)
        gaps = [np.linalg.norm(a.centre - b.centre) for a, b in itertools.combinations(several, 2)]
        assert min(gaps) > 2.6 * several[0].core


def test_classes_are_written_and_true(tmp_path):
    folder = generate(tmp_path / "heads", subjects=4, labelled=4, spacing=5.0, classes=True)
    rows = [line.split(",") for line in (folder / "classes.csv").read_text().splitlines()]
    assert rows[0] == ["case", "class"] and len(rows) == 5
    for pair in (rows[1:3], rows[3:]):
        assert {kind for _, kind in pair} == {"solitary", "multifocal"}
    for subject, kind in rows[1:]:
        label = image(folder, subject, "seg")
        pieces = sitk.RelabelComponent(sitk.ConnectedComponent((label == 1) | (label == 3)), 10)
        count = int(sitk.GetArrayFromImage(pieces).max())  # of tumours, without crumbs
        assert (count == 1) == (kind == "solitary"), (subject, kind, count)


def test_regions_are_labelled_that_intensities_do_not_tell_apart(cohort, tmp_path):
    folder = generate(tmp_path / "heads", subjects=2, labelled=2, spacing=SPACING, regions=True)
    assert "3 lentiform nucleus" in (folder / "README.txt").read_text()
    for subject in ("sub-001", "sub-002"):
        name = f"{subject}/{subject}_T1.nii.gz"
        assert filecmp.cmp(folder / name, cohort / name, shallow=False), "the images are the same"
        t1 = sitk.DICOMOrient(image(folder, subject, "T1"), "LPS")
        label = sitk.GetArrayFromImage(sitk.DICOMOrient(image(folder, subject, "seg"), "LPS"))
        lesion = sitk.GetArrayFromImage(sitk.DICOMOrient(image(cohort, subject, "seg"), "LPS"))
        assert set(np.unique(label)) == {0, *REGIONS.values()}
        assert not label[(lesion == 1) | (lesion == 3)].any()
        values = sitk.GetArrayFromImage(t1)
        healthy = {n: values[(label == v) & (lesion == 0)] for n, v in REGIONS.items()}
        grey = [np.median(healthy[n]) for n in ("thalamus", "caudate nucleus", "lentiform nucleus")]
        assert max(grey) - min(grey) < 0.3 * (min(grey) - np.median(healthy["lateral ventricle"]))
        low, high = (np.mean(np.argwhere(label == REGIONS[n]), 0) for n in ("cerebellum", "caudate nucleus"))
        assert low[0] < high[0] and low[1] > high[1], "the cerebellum is below and behind"
