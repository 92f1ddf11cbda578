"""Volume, largest diameter and mean intensities of structures, against known truths."""

from __future__ import annotations

import csv
import io
import itertools
import time

import numpy as np
import pytest
import SimpleITK as sitk

from emim.config import Structure
from emim.inference.labelling import Labelling
from emim.inference.measure import largest_diameter, measure
from emim.inference.table import cohort_csv, measurements_csv
from emim.volumes.grid import Grid

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
PLAIN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid_of(shape, spacing=(1.0, 1.0, 1.0), direction=PLAIN, origin=(0.0, 0.0, 0.0)) -> Grid:
    return Grid(tuple(shape[::-1]), spacing, origin, direction)


def mask_of(shape, *voxels) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def slow_diameter(mask: np.ndarray, grid: Grid) -> float:
    """Every pair of the centres of outer faces."""
    faces = []
    for voxel in np.argwhere(mask):
        for axis, side in itertools.product(range(3), (-1, 1)):
            beyond = voxel.copy()
            beyond[axis] += side
            inside = all(0 <= b < n for b, n in zip(beyond, mask.shape, strict=True))
            if not (inside and mask[tuple(beyond)]):
                faces.append((voxel + beyond)[::-1] / 2)
    points = grid.position(np.array(faces))
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


@pytest.mark.parametrize("direction", [PLAIN, OBLIQUE])
def test_diameters_that_can_be_told_without_computing(direction):
    grid = grid_of((5, 6, 9), (1.0, 2.0, 5.0), direction, (7.0, -3.0, 2.0))
    assert largest_diameter(mask_of((5, 6, 9), (2, 2, 2)), grid) == pytest.approx(5)
    line = mask_of((5, 6, 9), (2, 2, slice(1, 8)))
    assert largest_diameter(line, grid) == pytest.approx(np.hypot(6, 5)), "from its top to its bottom side"
    assert largest_diameter(mask_of((5, 6, 9), (slice(None), 2, 2)), grid) == pytest.approx(25)
    two = mask_of((5, 6, 9), (2, 0, 0), (2, 0, 8))  # two parts: the whole is measured
    assert largest_diameter(two, grid) == pytest.approx(np.hypot(8, 5))


@pytest.mark.parametrize("seed", range(4))
def test_diameter_is_that_of_all_pairs_of_faces(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7, 8)) < (0.03, 0.1, 0.4, 0.9)[seed]
    grid = grid_of(mask.shape, tuple(rng.uniform(0.5, 5, 3)), OBLIQUE, tuple(rng.normal(size=3)))
    assert largest_diameter(mask, grid) == pytest.approx(slow_diameter(mask, grid))


def test_a_ball_of_a_million_voxels_is_as_wide_as_it_is_and_done_at_once():
    z, y, x = np.ogrid[:130, :130, :130]
    ball = (z - 64.3) ** 2 + (y - 64.5) ** 2 + (x - 64.1) ** 2 < 62.5**2
    assert ball.sum() > 1_000_000
    started = time.process_time()
    assert largest_diameter(ball, grid_of(ball.shape, (0.5, 0.5, 0.5))) == pytest.approx(62.5, abs=0.5)
    assert time.process_time() - started < 5


def write_ramp(path, grid: Grid, slope=(1.0, 2.0, 3.0)) -> str:
    """An image whose intensity is a linear function of the position in LPS mm."""
    k, j, i = np.indices(grid.shape)
    values = grid.position(np.stack([i, j, k], -1)) @ slope + 100
    sitk.WriteImage(grid.to_image(values.astype(np.float32)), str(path))
    return str(path)


@pytest.fixture
def measured(tmp_path):
    """Two structures that overlap, and an empty one, on a grid that none of the images has but one."""
    grid = grid_of((20, 20, 20), (1.0, 1.5, 2.0), origin=(-10.0, -12.0, -18.0))
    structures = [Structure("A", (1, 2), 2, (0, 0, 0)), Structure("B", (1,), 1, (0, 0, 0)),
                  Structure("Nothing", (3,), 3, (0, 0, 0))]  # fmt: skip
    whole, part = mask_of(grid.shape, np.s_[5:15, 4:12, 6:10]), mask_of(grid.shape, np.s_[5:9, 4:12, 6:10])
    layers = np.stack([whole * np.uint8(2), part * np.uint8(1), np.zeros(grid.shape, np.uint8)])
    label = np.where(part, 1, layers[0]).astype(np.uint8)
    volumes = {"A": 320 * 0.003, "B": 128 * 0.003, "Nothing": 0.0}
    other = grid_of((60, 40, 40), (1.3, 1.1, 0.9), OBLIQUE, (-7.4, -32.4, -26.5))
    far = grid_of((4, 4, 4), origin=(300.0, 0.0, 0.0))
    images = {
        "T1": write_ramp(tmp_path / "t1.nii.gz", grid),
        "T2": write_ramp(tmp_path / "t2.nii.gz", other),
        "far": write_ramp(tmp_path / "far.nii.gz", far),
    }

    def run(moves=None):
        return measure(
            structures,
            Labelling(label, layers, volumes),
            grid,
            ["T1", "T2", "far", "missing"],
            images,
            moves or {},
        )

    run.centres = {n: grid.position(np.argwhere(m)[:, ::-1]).mean(0) for n, m in (("A", whole), ("B", part))}
    return run


def test_means_are_of_the_whole_structure_in_the_images_own_intensities(measured):
    results = {m.structure: m for m in measured()}
    for name in ("A", "B"):
        expected = results[name].mean["T1"]
        assert expected == pytest.approx(measured.centres[name] @ (1, 2, 3) + 100, abs=1e-3)
        assert results[name].mean["T2"] == pytest.approx(expected, abs=0.01), "another grid, the same place"
        assert results[name].mean["far"] is None and results[name].mean["missing"] is None
    assert results["A"].volume_ml == pytest.approx(0.96) and results["A"].value == 2
    nothing = results["Nothing"]
    assert nothing.largest_diameter_mm is None and set(nothing.mean.values()) == {None}


def test_an_aligned_image_is_measured_where_it_was_aligned_to(measured):
    moved = np.eye(4)
    moved[:3, 3] = (2.0, 0.0, -1.0)  # its intensities come from 2 mm and -1 mm farther back
    before, after = measured()[0].mean, measured({"T2": moved})[0].mean
    assert after["T1"] == before["T1"]
    assert after["T2"] == pytest.approx(before["T2"] - 2 * 1 + 1 * 3, abs=0.01)


def test_the_tables_have_a_column_for_each_modality_and_empty_cells(measured):
    rows = [m.to_dict() for m in measured()]
    modalities = ["T1", "T2", "far", "missing"]
    table = list(csv.DictReader(io.StringIO(measurements_csv(rows, modalities))))
    assert list(table[0]) == ["structure", "value", "volume_ml", "largest_diameter_mm", "mean_T1", "mean_T2",
                              "mean_far", "mean_missing"]  # fmt: skip
    assert float(table[0]["volume_ml"]) == 0.96 and float(table[0]["mean_T1"]) == rows[0]["mean"]["T1"]
    assert table[2]["largest_diameter_mm"] == table[2]["mean_T1"] == table[0]["mean_missing"] == ""
    results = [{"case": "a", "measurements": rows}, {"case": "b,c", "measurements": rows[:1]}]
    whole = list(csv.DictReader(io.StringIO(cohort_csv(results, modalities))))
    assert [(r["case"], r["structure"]) for r in whole] == [
        ("a", "A"), ("a", "B"), ("a", "Nothing"), ("b,c", "A"),
    ]  # fmt: skip
