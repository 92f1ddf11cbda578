"""Reading files: geometry as in the file, and every refusal in words."""

import gzip
import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from emim.cohort.volume import inspect
from emim.errors import EmimError
from emim.volumes.grid import Grid
from emim.volumes.io import read_header, read_image, read_label

RANDOM = np.random.default_rng(1).normal(100, 20, (5, 6, 7)).astype(np.float32)
LEFT_HANDED = Grid((7, 6, 5), (1.0, 1.5, 3.0), (10.0, -20.0, 30.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
OBLIQUE = Grid((7, 6, 5), (0.7, 0.7, 4.0), (3.0, 2.0, 1.0), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1.0))


@pytest.mark.parametrize("grid", [LEFT_HANDED, OBLIQUE])
@pytest.mark.parametrize("name", ["a.nii.gz", "Ünïcode 脳.nii", "a.nrrd", "a.mha"])
def test_geometry_and_values_are_those_of_the_file(tmp_path, grid, name):
    sitk.WriteImage(grid.to_image(RANDOM), str(tmp_path / name))
    image = read_image(tmp_path / name)
    assert Grid.of(image).is_same(grid, 1e-4)
    assert read_header(tmp_path / name).grid.is_same(grid, 1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), RANDOM)


def test_left_handed_nifti_has_the_affine_nibabel_sees(tmp_path):
    affine = np.array([[2.0, 0, 0, -5], [0, 3, 0, 7], [0, 0, -1, 9], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(RANDOM.T, affine), tmp_path / "a.nii.gz")
    grid = read_header(tmp_path / "a.nii.gz").grid
    index = np.array([1.0, 2, 3])
    expected = (affine @ [*index, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(grid.position(index), expected, atol=1e-5)


def test_a_series_of_one_volume_is_a_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Image(RANDOM.T[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    assert read_header(tmp_path / "a.nii.gz").grid.shape == RANDOM.shape
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "a.nii.gz")), RANDOM)


@pytest.mark.parametrize("q_code", [0, 1])
def test_a_sheared_grid_is_refused_with_the_remedy(tmp_path, q_code):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    image = nibabel.Nifti1Image(RANDOM.T, sheared)
    image.set_sform(sheared, 1)
    image.set_qform(np.eye(4), q_code)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(EmimError, match="sheared") as caught:
        read_image(tmp_path / "a.nii.gz")
    assert "Resample" in caught.value.hint and caught.value.where.endswith("a.nii.gz")


def test_a_sheared_grid_is_refused_in_every_format(tmp_path):
    image = sitk.GetImageFromArray(RANDOM)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    text = (tmp_path / "a.nrrd").read_bytes()
    straight = b"space directions: (1,0,0) (0,1,0) (0,0,1)"
    assert straight in text
    (tmp_path / "a.nrrd").write_bytes(text.replace(straight, b"space directions: (1,0,0) (.6,.8,0) (0,0,1)"))
    with pytest.raises(EmimError, match="sheared"):
        read_header(tmp_path / "a.nrrd")


def test_nifti_2_is_named(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(nibabel.Nifti2Image(RANDOM.T, np.eye(4)), tmp_path / name)
        with pytest.raises(EmimError, match="NIfTI version 2"):
            read_header(tmp_path / name)
        assert "NIfTI version 2" in inspect(tmp_path / name).problems[0]


def write(path, array, vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))


@pytest.mark.parametrize(
    ("array", "vector", "said"),
    [
        (np.full((4, 4, 4), 3.0, np.float32), False, "every voxel is 3"),
        (
            np.where(np.arange(64).reshape(4, 4, 4) == 5, np.nan, 1).astype(np.float32),
            False,
            "1 voxels .* NaN",
        ),
        (
            np.where(np.arange(64).reshape(4, 4, 4) < 2, -np.inf, 1).astype(np.float32),
            False,
            "2 voxels .* NaN",
        ),
        (np.zeros((4, 4), np.float32), False, "not a 3-D volume: its size is 4 x 4"),
        (np.zeros((4, 4, 4, 3), np.float32), True, "3 numbers"),
    ],
)
def test_unusable_images_are_refused(tmp_path, array, vector, said):
    write(tmp_path / "a.mha", array, vector)
    with pytest.raises(EmimError, match=said) as caught:
        read_image(tmp_path / "a.mha")
    assert caught.value.where == str(tmp_path / "a.mha") and caught.value.hint


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(EmimError, match="no such file"):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").write_bytes(b"not an image")
    with pytest.raises(EmimError, match="cannot be read"):
        read_header(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("offset", [0.0, -1.0, float("nan"), float("inf")])
def test_a_header_that_does_not_say_where_the_voxels_are_is_refused(tmp_path, offset):
    """ITK would take the header for voxels."""
    file = tmp_path / "a.nii"
    write(file, RANDOM)
    content = bytearray(file.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    file.write_bytes(content)
    with pytest.raises(EmimError, match="vox_offset"):
        read_image(file)
    assert "vox_offset" in inspect(file).problems[0]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((3, 30_000, 30_000, 30_000), "no room for the 108000000000000 bytes"),
        ((3, 5, 4, 4), "of 320 bytes|the 320 bytes"),
        ((4, 4, 4, 4, 0), "impossible size"),
    ],
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path, name, size, said):
    stored = np.arange(16, dtype=np.float32).reshape(4, 2, 2)
    write(tmp_path / "whole.nii", stored)
    content = bytearray((tmp_path / "whole.nii").read_bytes())
    content[40 : 40 + 2 * len(size)] = np.array(size, "<i2").tobytes()
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert re.search(said, inspect(file).problems[0])
    with pytest.raises(EmimError, match=said):
        read_image(file)


def test_the_emptiest_label_is_not_taken_for_damaged(tmp_path):
    """Nothing packs better than zeros."""
    label = np.zeros((64, 256, 256), np.int16)
    write(tmp_path / "a.nii", label)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes(), 9))
    assert inspect(tmp_path / "a.nii.gz", label=True).values == ()


def test_an_image_that_does_not_fit_into_memory_does_not_end_a_scan(tmp_path, monkeypatch):
    def fails(*args):
        raise MemoryError

    write(tmp_path / "a.nii", RANDOM)
    monkeypatch.setattr("emim.cohort.volume.read_pixels", fails)
    assert inspect(tmp_path / "a.nii").problems == ("there is not enough memory to read it",)


def test_a_file_that_cannot_be_read_does_not_end_a_scan(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(5, "Input/output error")

    write(tmp_path / "a.nii", RANDOM)
    monkeypatch.setattr("emim.cohort.volume.read_pixels", fails)
    assert inspect(tmp_path / "a.nii").problems == ("it cannot be read: Input/output error",)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_a_copy_cut_short_is_refused(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(RANDOM), str(tmp_path / name), name != "a.nii")
    whole = (tmp_path / name).read_bytes()
    for length in (len(whole) - 100, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(EmimError, match="damaged|incomplete|cannot be read"):
            read_image(tmp_path / name)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    write(tmp_path / "a.nii.gz", RANDOM)
    damaged = bytearray((tmp_path / "a.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(damaged)
    with pytest.raises(EmimError, match="damaged"):
        read_label(tmp_path / "a.nii.gz")


def test_labels_may_be_empty_but_must_be_whole_numbers(tmp_path):
    write(tmp_path / "empty.mha", np.zeros((4, 4, 4), np.uint8))
    assert read_label(tmp_path / "empty.mha").GetPixelID() == sitk.sitkInt16
    write(tmp_path / "float.mha", np.full((4, 4, 4), 4, np.float64))
    assert sitk.GetArrayFromImage(read_label(tmp_path / "float.mha")).max() == 4
    scaled = nibabel.Nifti1Image(np.array([0, 1, 2, 1] * 16, np.float64).reshape(4, 4, 4), np.eye(4))
    scaled.set_data_dtype(np.int16)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    back = np.unique(nibabel.load(tmp_path / "scaled.nii").get_fdata())
    assert (back != np.rint(back)).any(), "stored as steps of a scale, as nibabel does of its own"
    assert set(np.unique(sitk.GetArrayFromImage(read_label(tmp_path / "scaled.nii")))) == {0, 1, 2}
    for wrong in (0.5, np.nan, 1e6):
        write(tmp_path / "wrong.mha", np.full((4, 4, 4), wrong, np.float64))
        with pytest.raises(EmimError, match="whole numbers"):
            read_label(tmp_path / "wrong.mha")
