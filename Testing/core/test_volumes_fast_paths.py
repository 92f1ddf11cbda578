"""What was made fast gives what the slow way gives: ITK's reader and ITK's interpolation."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from emim.errors import EmimError
from emim.volumes.grid import Grid
from emim.volumes.io import read_volume
from emim.volumes.nifti import DamagedFile, read_nifti
from emim.volumes.resample import _interpolate, _linear, resample_label

RNG = np.random.default_rng(3)
SOURCE = Grid((21, 24, 18), (1.0, 1.2, 2.0), (5.0, -3.0, 2.0))
REVERSED = (0.0, 0, -1, -1, 0, 0, 0, 1, 0)  # axes swapped and reversed
TARGETS = {
    "coarser": Grid((14, 19, 24), (1.5, 1.5, 1.5), (5.25, -2.9, 2.0)),
    "finer": Grid((50, 50, 50), (0.4, 0.6, 0.7), (5.0, -3.0, 2.0)),
    "reaching beyond": Grid((40, 40, 40), (1.1, 1.1, 1.1), (-3.0, -9.0, -2.0)),
    "turned": Grid((20, 18, 22), (0.9, 1.3, 1.1), (24.0, 20.0, 3.0), REVERSED),
    "one plane": Grid((21, 24, 1), (1.0, 1.2, 2.0), (5.3, -3.0, 7.1)),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_interpolation_along_axes_is_that_of_itk(target, monkeypatch):
    array = RNG.normal(0, 1, SOURCE.shape).astype(np.float32)
    expected = _interpolate(array, SOURCE, target, -7.0)
    with monkeypatch.context() as patch:
        patch.setattr("emim.volumes.resample._interpolate", None)  # must not be used
        found = _linear(array, SOURCE, target, -7.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.flags.c_contiguous and found.dtype == np.float32
    np.testing.assert_array_equal(found == -7, expected == -7)


def test_oblique_grids_are_left_to_itk():
    tilted = Grid((20, 20, 20), (1.0, 1.0, 1.0), (6.0, 0.0, 3.0), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1.0))
    array = RNG.normal(0, 1, SOURCE.shape).astype(np.float32)
    np.testing.assert_array_equal(_linear(array, SOURCE, tilted, 0), _interpolate(array, SOURCE, tilted, 0))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_labels_are_those_of_greatest_weight_as_in_itk(target):
    label = np.zeros(SOURCE.shape, np.int16)
    label[4:12, 5:15, 6:16], label[6:10, 8:13, 9:14], label[0:2, 0:4, 0:5] = 1, 4, -3
    image = SOURCE.to_image(label)
    nothing = sitk.Transform(3, sitk.sitkIdentity)
    place = (target.origin, target.spacing, target.direction)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, target.size, nothing, sitk.sitkLabelLinear, *place, 0)
    )
    found = resample_label(label, SOURCE, target)
    # Where two labels weigh the same, rounding decides; few voxels lie exactly between.
    assert (found != expected).mean() < 0.002
    assert set(np.unique(found)) == set(np.unique(expected)) and found.dtype == np.int16


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", ">i2"])
@pytest.mark.parametrize("scaling", [None, (0.013, -7.5)])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_voxels_are_those_other_readers_find(tmp_path, kind, scaling, extension):
    header = nibabel.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    stored = RNG.integers(0, 100, (5, 6, 7)).astype(kind)
    image = nibabel.Nifti1Image(stored, np.eye(4), header)
    image.header.set_data_dtype(np.dtype(kind))
    path = tmp_path / f"a{extension}"
    nibabel.save(image, path)
    if scaling:
        _write_scaling(path, kind, scaling)
    found = read_nifti(path)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def _write_scaling(path, kind, scaling):
    """Into the header; nibabel would choose its own."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    order = ">" if kind.startswith(">") else "<"
    values = np.array(scaling, order + "f4").tobytes()
    content[112 : 112 + len(values)] = values
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))


def test_colours_are_left_to_itk_and_its_words(tmp_path):
    colours = np.zeros((5, 6, 7), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz") is None
    with pytest.raises(EmimError, match="3 numbers"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_file_that_ends_within_its_header_is_damaged(tmp_path):
    (tmp_path / "a.nii").write_bytes((348).to_bytes(4, "little") + bytes(60))
    with pytest.raises(DamagedFile, match="header"):
        read_nifti(tmp_path / "a.nii")
