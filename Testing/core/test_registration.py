"""Rigid alignment: a known motion is found again, and what cannot be aligned is left alone."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import SimpleITK as sitk

from emim.cli import main
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.registration.alignment import LPS_TO_RAS, Alignment
from emim.registration.pyramid import read_pyramid
from emim.registration.register import plan_transforms, register, write_transform
from emim.registration.rigid import align
from emim.volumes.grid import Grid

MOTIONS = {  # rotation axis, degrees; shift in mm
    "small": ((1, 2, -1), 3.0, (2.0, -3.0, 1.0)),
    "nod and slide": ((1, 0, 0), 15.0, (0.0, 5.0, 30.0)),
    "oblique": ((1, -1, 1), 12.0, (-20.0, 15.0, -12.0)),
}


def motion(axis, degrees: float, shift, centre) -> np.ndarray:
    """A rigid motion (4, 4) of LPS mm that turns about ``centre`` and then shifts."""
    versor = sitk.VersorRigid3DTransform()
    versor.SetRotation([float(a) for a in axis], math.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(versor.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.add(centre, shift) - matrix[:3, :3] @ centre
    return matrix


def apart(found: Alignment, applied: np.ndarray, centre) -> tuple[float, float]:
    """mm at ``centre`` and degrees that are left of the motion ``applied`` to the moving image."""
    left = Alignment.of_motion(found.matrix_lps @ applied, centre, 0, 0)
    return left.translation_mm, left.rotation_deg


@pytest.fixture(scope="module")
def head(phantoms):
    return {m: phantoms / "sub-001" / f"sub-001_{m}.nii.gz" for m in ("T1", "T2", "FLAIR")}


@pytest.fixture(scope="module")
def centre(head):
    return read_pyramid(head["T1"]).centre


def write_moved(source, target, applied: np.ndarray):
    """A copy of ``source`` whose header is moved; no voxel changes."""
    image = sitk.ReadImage(str(source))
    grid = Grid.of(image).moved(applied)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    sitk.WriteImage(image, str(target))
    return target


@pytest.mark.parametrize("name", MOTIONS)
def test_a_known_motion_is_found_across_contrasts(head, centre, tmp_path, name):
    applied = motion(*MOTIONS[name], centre)
    moving = {
        "T2": write_moved(head["T2"], tmp_path / "t2.nii.gz", applied),
        "FLAIR": write_moved(head["FLAIR"], tmp_path / "é.nrrd", applied),
    }
    for found in register(head["T1"], moving).values():
        mm, degrees = apart(found, applied, centre)
        assert mm < 1 and degrees < 1
        assert found.warning is None and found.similarity_after > found.similarity_before
        back = Alignment.of_motion(np.linalg.inv(applied), read_pyramid(moving["T2"]).centre, 0, 0)
        assert found.translation_mm == pytest.approx(back.translation_mm, abs=1)
        assert found.rotation_deg == pytest.approx(back.rotation_deg, abs=1)


def test_a_head_that_moved_within_the_same_field_of_view(head, centre, tmp_path):
    """As a scanner sees it: new voxels, and a part of the head leaves the image."""
    applied = motion((0, 1, 1), 10.0, (8.0, 0.0, -15.0), centre)
    image = sitk.ReadImage(str(head["FLAIR"]), sitk.sitkFloat32)
    back = np.linalg.inv(applied)
    transform = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
    sitk.WriteImage(sitk.Resample(image, image, transform), str(tmp_path / "flair.nii.gz"))
    found = register(head["T1"], {"FLAIR": tmp_path / "flair.nii.gz"})["FLAIR"]
    mm, degrees = apart(found, applied, centre)
    assert mm < 1 and degrees < 1


def test_what_lies_in_place_stays(head):
    events = Recorder()
    for found in register(head["T1"], {"T2": head["T2"], "FLAIR": head["FLAIR"]}, events).values():
        assert found.translation_mm < 0.5 and found.rotation_deg < 0.5 and found.warning is None
    assert events.progressed == [(0, 2), (1, 2), (2, 2)] and not events.warnings


def test_the_same_images_give_the_same_alignment(head, centre, tmp_path):
    moved = write_moved(head["T2"], tmp_path / "t2.nii.gz", motion(*MOTIONS["oblique"], centre))
    first, second = (register(head["T1"], {"T2": moved})["T2"] for _ in range(2))
    assert np.array_equal(first.matrix_ras, second.matrix_ras)
    assert first.similarity_after == second.similarity_after


def test_half_a_head_is_found_in_a_whole_one(head, centre, tmp_path):
    applied = motion((1, 0, 0), 10.0, (0.0, 10.0, 20.0), centre)
    image = sitk.ReadImage(str(head["T2"]))
    sitk.WriteImage(image[:, :, image.GetSize()[2] // 2 :], str(tmp_path / "half.nii.gz"))
    half = write_moved(tmp_path / "half.nii.gz", tmp_path / "moved.nii.gz", applied)
    mm, degrees = apart(register(head["T1"], {"T2": half})["T2"], applied, centre)
    assert mm < 2 and degrees < 2


@pytest.mark.parametrize("shift", [120.0, 600.0])
def test_a_motion_no_head_makes_is_refused(head, centre, tmp_path, shift):
    """600 mm: the images do not even touch."""
    moved = write_moved(head["T2"], tmp_path / "t2.nii.gz", motion((1, 0, 0), 0.0, (shift, 0, 0), centre))
    events = Recorder()
    found = register(head["T1"], {"T2": moved}, events)["T2"]
    assert np.array_equal(found.matrix_ras, np.eye(4)) and found.translation_mm == 0
    assert f"{shift:.0f} mm" in found.warning and "not plausible" in found.warning
    assert events.warnings == [str(moved)]


def test_noise_is_not_aligned(head, tmp_path):
    image = sitk.ReadImage(str(head["T1"]))
    noise = np.random.default_rng(0).normal(100, 20, image.GetSize()[::-1]).astype(np.int16)
    sitk.WriteImage(Grid.of(image).to_image(noise), str(tmp_path / "noise.nii.gz"))
    found = register(head["T1"], {"x": tmp_path / "noise.nii.gz"})["x"]
    assert np.array_equal(found.matrix_ras, np.eye(4)) and "nothing in common" in found.warning


def test_unusable_files_and_cancelling(head, tmp_path):
    with pytest.raises(EmimError, match="no such file") as caught:
        register(head["T1"], {"T2": tmp_path / "none.nii.gz"})
    assert "none.nii.gz" in caught.value.where
    with pytest.raises(Cancelled):
        register(head["T1"], {"T2": head["T2"]}, should_stop=lambda: True)
    fixed = read_pyramid(head["T1"])
    asked = iter([False] * 10 + [True])
    with pytest.raises(Cancelled):
        align(fixed, fixed, lambda: next(asked))


def test_directions_of_matrix_grid_and_transform_file_agree(tmp_path):
    """A landmark of the moving image must come to lie where the matrix says, whoever reads it."""
    applied = motion((1, 2, 3), 20.0, (5.0, -7.0, 11.0), (10.0, 20.0, 30.0))
    found = Alignment.of_motion(applied, np.array([10.0, 20.0, 30.0]), 0.1, 0.5)
    assert found.translation_mm == pytest.approx(math.sqrt(25 + 49 + 121))
    assert found.rotation_deg == pytest.approx(20)
    grid = Grid((4, 5, 6), (1.0, 2.0, 3.0), (-3.0, 8.0, 1.0), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    voxel = (3, 1, 2)
    before, after = grid.position(voxel), grid.moved(found.matrix_lps).position(voxel)
    ras = LPS_TO_RAS[:3, :3]
    assert found.matrix_ras[:3, :3] @ (ras @ before) + found.matrix_ras[:3, 3] == pytest.approx(ras @ after)
    write_transform(found, tmp_path / "a.tfm")
    assert sitk.ReadTransform(str(tmp_path / "a.tfm")).TransformPoint(after.tolist()) == pytest.approx(before)


def test_the_command(head, centre, tmp_path, capsys):
    applied = motion(*MOTIONS["small"], centre)
    moved = write_moved(head["FLAIR"], tmp_path / "flair.nii.gz", applied)
    out = tmp_path / "out"
    command = ["register", "--fixed", f"T1={head['T1']}", "--moving", f"FLAIR={moved}", "--moving",
               f"T2={head['T2']}", "--output", str(out), "--json"]  # fmt: skip
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["type"] == "result" and result["fixed"] == "T1"
    assert sorted(p.name for p in out.iterdir()) == ["FLAIR.tfm", "T2.tfm"]
    flair = result["alignments"]["FLAIR"]
    assert set(flair) == {f.name for f in dataclasses.fields(Alignment)}
    matrix = LPS_TO_RAS @ np.array(flair["matrix_ras"]) @ LPS_TO_RAS
    position = centre + [10, 20, 30]
    expected = np.linalg.inv(matrix) @ [*position, 1]
    read = sitk.ReadTransform(result["transforms"]["FLAIR"])
    assert read.TransformPoint(position.tolist()) == pytest.approx(expected[:3], abs=1e-6)
    assert main(command) == 2
    assert "exists already" in json.loads(capsys.readouterr().out.splitlines()[-1])["what"]
    assert main([*command, "--overwrite"]) == 0


def test_names_that_share_a_file_are_refused(tmp_path):
    with pytest.raises(EmimError, match="one file"):
        plan_transforms(tmp_path, ["T1+C", "T1 C"], False)


class Recorder(Events):
    """Keeps progress, and the files warned of."""

    def __init__(self):
        super().__init__()
        self.progressed, self.warnings = [], []

    def progress(self, done, total, unit="step", text=""):
        self.progressed.append((done, total))

    def warning(self, what, where=None, hint=None):
        self.warnings.append(str(where))
