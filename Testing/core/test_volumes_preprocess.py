"""One grid for all modalities: landmarks stay where they are in the patient, statistics are right."""

import numpy as np
import pytest
import SimpleITK as sitk

from emim.cohort.case import Case, Cohort
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.volumes.foreground import find_foreground
from emim.volumes.grid import Grid
from emim.volumes.io import read_header
from emim.volumes.preprocess import prepare_case, resample_array, resolve_spacing
from emim.volumes.resample import resample_volume

RIGHT_ANGLED = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
LAS = (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)  # left-handed
SAGITTAL = (0, 0, 1.0, 1.0, 0, 0, 0, -1.0, 0)  # slices run from right to left


def turned(degrees, direction=RIGHT_ANGLED):
    a = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return tuple(float(v) for v in (x @ z @ np.reshape(direction, (3, 3))).ravel())


def centred(size, spacing, direction=RIGHT_ANGLED, centre=(5.0, -8.0, 12.0)):
    grid = Grid(size, spacing, (0.0, 0.0, 0.0), direction)
    origin = np.array(centre) - grid.position((np.array(size) - 1) / 2)
    return Grid(size, spacing, tuple(float(x) for x in origin), direction)


def positions(grid):
    k, j, i = np.indices(grid.shape)
    return grid.position(np.stack([i, j, k], axis=-1))


def draw(grid, balls, background=0.0, body=20.0, tissue=100.0):
    """A soft-edged ball of tissue around the common centre, with small bright balls in it."""
    where = positions(grid)

    def inside(centre, radius):
        return np.clip(radius - np.linalg.norm(where - centre, axis=-1) + 0.5, 0, 1)

    image = tissue * (inside((5.0, -8.0, 12.0), body) > 0) * (1 + 0.001 * where[..., 0])
    for number, (centre, radius) in enumerate(balls):
        image = image + (number + 1) * 400 * inside(centre, radius)
    return np.where(image == 0, background, image).astype(np.float32)


def save(path, grid, array):
    sitk.WriteImage(grid.to_image(array), str(path))
    return str(path)


def centre_of(array, grid):
    """Centre of mass in mm, of a blob cut out at half its height."""
    weight = np.where(array > array.max() / 2, array, 0)
    return (positions(grid) * weight[..., None]).sum((0, 1, 2)) / weight.sum()


GRIDS = {
    "a": centred((48, 50, 44), (1.0, 1.0, 1.0), LAS),
    "b": centred((60, 56, 22), (0.8, 0.8, 2.0), turned(17)),
    "c": centred((40, 44, 46), (1.2, 1.0, 1.1), turned(-12, SAGITTAL), centre=(7.0, -6.0, 11.0)),
    "d": centred((76, 74, 40), (0.6, 0.6, 1.2), turned(8, LAS), centre=(4.0, -8.0, 13.0)),
}


MARK = np.array([1.3, -3.4, 15.2])


@pytest.fixture(scope="module")
def four_grids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four_grids")
    return {m: save(folder / f"{m}.nii.gz", g, draw(g, [(MARK, 4.0)])) for m, g in GRIDS.items()}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, 1.3, 1.2)])
@pytest.mark.parametrize("reference", ["a", "b", "c", "d"])
def test_a_landmark_on_four_grids_is_at_one_voxel_and_maps_back(four_grids, reference, spacing):
    images, mark = four_grids, MARK
    case = Case("x", "x", images)
    prepared = prepare_case(case, list(GRIDS), PreprocessConfig(spacing, reference))
    assert prepared.image.shape == (4, *prepared.grid.shape) and prepared.image.dtype == np.float32
    axes = np.reshape(prepared.grid.direction, (3, 3))
    assert (np.abs(axes).argmax(0) == range(3)).all() and (np.diag(axes) > 0).all()  # LPS
    assert prepared.reference_path == images[reference]

    bright = np.maximum(prepared.image - 1.5, 0)
    index = [prepared.grid.index(centre_of(volume, prepared.grid)) for volume in bright]
    assert np.abs(index - prepared.grid.index(mark)).max() < 0.5

    target = read_header(images[reference]).grid
    back = resample_array(bright, prepared.grid, target, [0.0] * 4)
    assert back.shape == (4, *target.shape)
    for volume in back:
        assert np.abs(target.index(centre_of(volume, target)) - target.index(mark)).max() < 0.5


@pytest.mark.parametrize("direction", [RIGHT_ANGLED, LAS, SAGITTAL, turned(17), turned(-9, SAGITTAL)])
def test_voxels_of_the_right_spacing_are_copied_not_interpolated(tmp_path, direction):
    grid = centred((30, 34, 26), (1.0, 1.1, 0.9), direction)
    noise = np.random.default_rng(0).normal(100, 10, grid.shape).astype(np.float32)
    noise[:4] = noise[-3:] = noise[:, :5] = noise[:, -2:] = noise[..., :3] = noise[..., -4:] = 0
    label = (noise > 105).astype(np.int16) + (noise > 115)
    case = Case(
        "x", "x", {"m": save(tmp_path / "m.nrrd", grid, noise)}, save(tmp_path / "l.nrrd", grid, label)
    )
    prepared = prepare_case(case, ["m"], PreprocessConfig(grid.oriented().spacing))

    back = resample_array(prepared.image, prepared.grid, grid, [0.0])[0]
    values = noise[noise != 0]
    low, high = np.quantile(values, (0.005, 0.995))
    kept = values[(values >= low) & (values <= high)].astype(np.float64)
    expected = np.where(noise == 0, 0, np.clip((noise - kept.mean()) / kept.std(), -5, 5))
    np.testing.assert_allclose(back, expected, atol=1e-5)
    mapped = resample_array(prepared.label[None].astype(np.float32), prepared.grid, grid, [0.0])[0]
    np.testing.assert_array_equal(mapped, label)  # to the voxel, both ways


def test_probabilities_return_exactly_over_swapped_axes_and_a_crop():
    target = centred((9, 8, 7), (1.0, 2.0, 3.0), turned(20, SAGITTAL))
    working = target.oriented().cropped((1, 2, 1), (6, 7, 5))
    inside = np.random.default_rng(0).random((3, *working.shape), np.float32)
    there = resample_array(inside, working, target, [1.0, 0.0, 0.5])
    assert there.shape == (3, *target.shape)
    assert np.isin(inside, there).all()  # no value is blurred
    np.testing.assert_array_equal(resample_array(there, target, working, [9, 9, 9]), inside)
    ones = resample_array(np.ones((1, *working.shape), np.float32), working, target, [0.0])[0] > 0
    for channel, outside in zip(there, (1.0, 0.0, 0.5), strict=True):
        assert (channel[~ones] == outside).all() and (~ones).any()


def test_grids_that_do_not_meet_give_the_outside_value():
    source, far = centred((6, 6, 6), (1.0,) * 3), centred((5, 4, 3), (1.0,) * 3, centre=(500.0, 0.0, 0.0))
    array = np.ones((1, *source.shape), np.float32)
    assert (resample_array(array, source, far, [7.0]) == 7).all()
    tilted = centred((5, 4, 3), (1.0,) * 3, turned(30), centre=(500.0, 0.0, 0.0))
    assert (resample_array(array, source, tilted, [7.0]) == 7).all()


def test_resampling_to_a_much_coarser_grid_does_not_alias():
    fine = centred((64, 20, 20), (0.5, 1.0, 1.0))
    coarse = centred((16, 20, 20), (2.0, 1.0, 1.0), centre=(5.2, -8.0, 12.0))
    stripes = np.broadcast_to(np.arange(64) % 2, fine.shape).astype(np.float32)  # one voxel wide
    result = resample_volume(stripes, fine, coarse)
    np.testing.assert_allclose(result[:, :, 2:-2], 0.5, atol=0.02)
    ramp = positions(fine)[..., 0].astype(np.float32)  # and a slope keeps its place
    np.testing.assert_allclose(
        resample_volume(ramp, fine, coarse)[:, :, 3:-3], positions(coarse)[:, :, 3:-3, 0], atol=1e-3
    )


def test_respacing_keeps_the_box_and_an_axis_that_agrees():
    grid = centred((30, 20, 10), (1.0, 0.9996, 3.0), turned(10))
    new = grid.respaced((1.5, 1.0, 1.0))
    assert new.size == (20, 20, 30) and new.spacing == (1.5, 0.9996, 1.0)
    middle = [g.position((np.array(g.size) - 1) / 2) for g in (grid, new)]
    np.testing.assert_allclose(*middle, atol=1e-9)
    assert grid.respaced((1.0, 1.0, 3.0)).is_same(grid, 1e-9)


def test_a_label_on_another_grid_keeps_its_values_and_place(tmp_path):
    mark, other = np.array([1.0, -4.0, 15.0]), np.array([11.0, -13.0, 8.0])
    image = save(tmp_path / "m.nii.gz", GRIDS["a"], draw(GRIDS["a"], []))
    where = positions(GRIDS["d"])
    label = 1 * (np.linalg.norm(where - mark, axis=-1) < 5) + 4 * (np.linalg.norm(where - other, axis=-1) < 5)
    case = Case("x", "x", {"m": image}, save(tmp_path / "l.nii.gz", GRIDS["d"], label.astype(np.int16)))
    prepared = prepare_case(case, ["m"], PreprocessConfig((1.0, 1.0, 1.0)))
    assert prepared.label.dtype == np.int16 and set(np.unique(prepared.label)) == {0, 1, 4}
    for value, place in ((1, mark), (4, other)):
        found = prepared.label == value
        assert np.abs(centre_of(found, prepared.grid) - place).max() < 0.5
        assert found.sum() == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.1)


def test_a_label_beyond_the_foreground_is_not_cropped_away(tmp_path):
    grid = GRIDS["a"]
    label = np.zeros(grid.shape, np.int16)
    label[0, 0, 0] = 3
    case = Case("x", "x", {"m": save(tmp_path / "m.mha", grid, draw(grid, [], body=8.0))}, "")
    without = prepare_case(case, ["m"], PreprocessConfig((1.0,) * 3))
    case = Case("x", "x", case.images, save(tmp_path / "l.mha", grid, label))
    assert (prepare_case(case, ["m"], PreprocessConfig((1.0,) * 3)).label == 3).sum() == 1
    assert without.label is None and max(without.grid.size) <= 16 + 2 + 2 * 2


def test_a_missing_modality_is_zero_and_said_to_be_missing(tmp_path):
    images = {m: save(tmp_path / f"{m}.mha", GRIDS[m], draw(GRIDS[m], [])) for m in "bc"}
    prepared = prepare_case(Case("x", "x", images), ["a", "b", "c"], PreprocessConfig((1.0,) * 3, "a"))
    assert prepared.present.tolist() == [False, True, True]
    assert not prepared.image[0].any() and prepared.image[1].any() and prepared.image[2].any()
    assert prepared.reference_path == images["b"]  # the reference is missing too: the first one present


@pytest.mark.parametrize("background", [0.0, -1024.0, 57.5, 3000.0])
def test_scores_do_not_depend_on_the_value_of_the_background(tmp_path, background):
    grid = GRIDS["a"]
    rng = np.random.default_rng(3)
    body = draw(grid, []) > 0
    array = np.where(body, rng.normal(700, 50, grid.shape), background).astype(np.float32)
    array[tuple(np.argwhere(body)[100])] = 1e6  # one hot voxel must not set the scale
    case = Case("x", "x", {"m": save(tmp_path / "m.mha", grid, array)})
    prepared = prepare_case(case, ["m"], PreprocessConfig((1.0,) * 3))
    assert prepared.foreground.sum() == body.sum()
    scores = prepared.image[0][prepared.foreground]
    assert abs(scores.mean()) < 0.02 and 0.98 < scores.std() < 1.06 and scores.max() == 5
    assert not prepared.image[0][~prepared.foreground].any()


@pytest.mark.parametrize("cut", [0.0, 8.0])  # defacing and some scanners set the darkest air to 0
def test_noisy_air_is_not_foreground(cut):
    grid = GRIDS["a"]
    rng = np.random.default_rng(4)
    head, brain, inner = (draw(grid, [], body=r) > 0 for r in (18.0, 13.0, 16.0))
    skull = inner & ~brain
    signal = np.where(head & ~skull, 200.0, 0.0)
    raw = np.hypot(signal + rng.normal(0, 8, grid.shape), rng.normal(0, 8, grid.shape)).astype(np.float32)
    raw[raw < cut] = 0
    raw, head = raw[16:], head[16:]  # the field of view ends in the head, so the skull is open below
    found = find_foreground(raw)
    assert found.fill is None
    assert (found.mask & ~head).sum() < 0.01 * head.sum()  # no air
    assert (found.mask & head).sum() > 0.97 * head.sum()  # and the dark skull inside belongs to it


def test_where_nothing_is_air_all_is_foreground():
    pelvis = np.random.default_rng(5).normal(300, 60, (20, 22, 24)).astype(np.float32)
    assert find_foreground(pelvis).mask.all()


def test_two_equal_parts_stay_and_specks_go():
    legs = np.zeros((20, 30, 40), np.float32)
    legs[:, 10:20, 4:14] = legs[:, 10:20, 26:36] = 500
    legs += (legs > 0) * np.random.default_rng(6).normal(0, 20, legs.shape).astype(np.float32)
    expected = legs > 0
    legs[3, 3, 3] = 400
    legs[10, 15, 8] = 0  # a hole
    expected[10, 15, 8] = True
    np.testing.assert_array_equal(find_foreground(legs).mask, expected)


def test_a_stripped_modality_is_zero_where_it_measured_nothing(tmp_path):
    grid = GRIDS["a"]
    narrow, wide = draw(grid, [], body=10.0, background=-7.0), draw(grid, [], body=16.0)
    case = Case(
        "x", "x", {"n": save(tmp_path / "n.mha", grid, narrow), "w": save(tmp_path / "w.mha", grid, wide)}
    )
    prepared = prepare_case(case, ["n", "w"], PreprocessConfig((1.0,) * 3))
    assert prepared.foreground.sum() == (wide > 0).sum()
    assert np.count_nonzero(prepared.image[0]) <= (narrow > 0).sum() < np.count_nonzero(prepared.image[1])


def test_median_spacing_is_taken_in_patient_axes_from_headers(tmp_path):
    grids = [
        centred((5, 6, 7), (1.0, 2.0, 3.0)),
        centred((5, 6, 7), (2.0, 3.0, 1.0), SAGITTAL),  # the same spacings, seen from LPS
        centred((5, 6, 7), (0.5, 9.0, 9.0)),
    ]
    cases = [
        Case(str(n), str(n), {"m": save(tmp_path / f"{n}.mha", g, draw(g, []))}) for n, g in enumerate(grids)
    ]
    cohort = Cohort(("m",), tuple(cases))
    assert resolve_spacing(cohort, PreprocessConfig()).spacing == (1.0, 2.0, 3.0)
    assert resolve_spacing(cohort, PreprocessConfig((4.0, 4.0, 4.0))).spacing == (4.0, 4.0, 4.0)


def test_what_cannot_be_prepared_is_refused_naming_the_file(tmp_path):
    grid, config = GRIDS["a"], PreprocessConfig((1.0,) * 3)
    good = save(tmp_path / "good.mha", grid, draw(grid, []))
    elsewhere = centred(grid.size, grid.spacing, centre=(900.0, 0.0, 0.0))
    far = save(tmp_path / "far.mha", elsewhere, np.roll(draw(grid, []), 0))
    flat = np.zeros(grid.shape, np.float32)
    flat[10:30, 10:30, 10:30] = 5
    flat = save(tmp_path / "flat.mha", grid, flat)
    label = save(tmp_path / "label.mha", elsewhere, np.ones(grid.shape, np.int16))

    def refused(images, said, where, label=None, config=config, modalities=("a", "b")):
        with pytest.raises(EmimError, match=said) as caught:
            prepare_case(Case("x", "x", images, label), modalities, config)
        assert caught.value.where == where

    refused({"a": good, "b": far}, "nothing within the reference", far)
    refused({"a": flat}, "no contrast", flat)
    refused({"a": good}, "No labelled voxel", label, label)
    refused({"z": good}, "none of the modalities a, b", good)
    refused({"a": good}, "spacing", "preprocess.spacing", config=PreprocessConfig())
    refused({"a": good}, "not a modality", "preprocess.reference", config=PreprocessConfig((1.0,) * 3, "z"))
    refused({"a": good}, "clip", "preprocess.clip", config=PreprocessConfig((1.0,) * 3, clip=0.0))
