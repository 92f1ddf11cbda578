"""Segmentation end to end with a network that is known to threshold one modality."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from recorder import Recorder

from emim.cohort.case import Case, Cohort
from emim.cohort.scan import CaseRow, Scan
from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.errors import Cancelled, EmimError
from emim.evaluation.masks import prediction_values
from emim.events import Events
from emim.inference import predict
from emim.inference.image_file import write_like
from emim.inference.inputs import choose_reference, describe_grids, match_inputs, modality_called
from emim.inference.labelling import label_on_grid
from emim.inference.seg_nrrd import read_seg_nrrd
from emim.inference.segment import segment
from emim.networks.segmenter import Segmenter
from emim.package.bundle import read_package, write_package
from emim.package.model import ModelCard
from emim.package.network import build_network
from emim.training.structures import parse_structures
from emim.volumes.grid import Grid
from emim.volumes.io import read_header

HEAD, LESION, CORE = 26.0, 9.0, 5.0  # radii in mm
CENTRE = np.array([6.0, -5.0, 4.0])  # of the lesion, RAS mm

CARD = ModelCard(
    name="threshold",
    modalities=("FLAIR", "T1ce"),
    optional=("T1ce",),
    structures=(
        Structure("Lesion", (1, 2), 2, (255, 200, 0)),
        Structure("Core/é", (1,), 1, (255, 0, 0), "Category~SCT^1^a~SCT^2^b~^^~Anatomy~^^~^^"),
    ),
    overlapping=True,
    preprocess=PreprocessConfig(spacing=(2.0, 2.0, 2.0)),
    network=NetworkConfig(filters=2, blocks=(1, 1)),
    crop=24,
    mirrored=True,
)


def threshold_state(card: ModelCard, source: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Weights with which output c says whether modality ``source[c]`` is above z = 1.5.

    The first convolution copies the modalities, residual branches and the way up add nothing, and
    the last convolution is 20 (z - 1.5).
    """
    state = {k: torch.zeros_like(v) for k, v in Segmenter(2, card.outputs, card.network).state_dict().items()}
    first, last = "unet.encoder.conv_init.weight", "unet.up_layers.0.head"
    state[first][0, 0, 1, 1, 1] = state[first][1, 1, 1, 1, 1] = 1
    background = card.outputs - len(source)
    for channel, modality in enumerate(source):
        state[f"{last}.weight"][channel + background, modality] = 20
        state[f"{last}.bias"][channel + background] = -30
    return state


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Overlapping: the lesion is what is bright in FLAIR, the core what is bright in T1ce."""
    return write_package(tmp_path_factory.mktemp("m") / "model", CARD, threshold_state(CARD, (0, 1)))


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory) -> Path:
    card = dataclasses.replace(
        CARD, overlapping=False, structures=(Structure("Core", (1,), 300, (255, 0, 0)),)
    )
    return write_package(tmp_path_factory.mktemp("m") / "model.zip", card, threshold_state(card, (1,)))


def affine_of(spacing, angle: float, flip: bool = False, shift=(0.0, 0.0, 0.0), shape=(40, 40, 40)):
    """RAS affine of a rotated grid centred on ``shift``; ``flip`` makes it left-handed."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = rotation @ np.diag([-spacing[0] if flip else spacing[0], *spacing[1:]])
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = np.array(shift) - matrix @ ((np.array(shape) - 1) / 2)
    return affine


def distances(affine: np.ndarray, shape, centre) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1)


def write_scan(path: Path, affine: np.ndarray, radius: float, shape=(40, 40, 40), kind=np.int16) -> Path:
    """A stripped head with a bright ball of ``radius`` at CENTRE."""
    noise = np.random.default_rng(0).normal(0, 10, shape)
    data = np.where(distances(affine, shape, 0) < HEAD, 200 + noise, 0)
    data = np.where(distances(affine, shape, CENTRE) < radius, 600 + noise, data)
    image = nibabel.Nifti1Image(data.astype(kind), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 2)
    nibabel.save(image, path)
    return path


@pytest.fixture
def scans(tmp_path) -> dict[str, Path]:
    """FLAIR oblique, T1ce left-handed on another grid with another field of view."""
    flair = affine_of((1.5, 1.6, 2.2), 0.3)
    t1ce = affine_of((1.9, 1.7, 1.8), -0.2, flip=True, shift=(2, 3, -1), shape=(36, 40, 38))
    return {
        "FLAIR": write_scan(tmp_path / "flair é.nii.gz", flair, LESION),
        "t1CE": write_scan(tmp_path / "t1ce.nii", t1ce, CORE, (36, 40, 38)),
    }


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def read_csv(path: str | Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_grid(result: Path, reference: Path) -> None:
    a, b = nibabel.load(result), nibabel.load(reference)
    assert a.shape == b.shape
    assert a.affine.tobytes() == b.affine.tobytes()
    for field in ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "quatern_b", "quatern_c",
                  "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "dim"):  # fmt: skip
        assert a.header[field].tobytes() == b.header[field].tobytes(), field


@pytest.mark.parametrize("reference", ["FLAIR", "T1CE"])
def test_finds_the_ball_on_the_grid_of_the_reference(model, scans, tmp_path, reference):
    output = tmp_path / "out" / "seg.nii.gz"
    result = segment(model, scans, output, device="cpu", reference=reference, probabilities=True)
    source = scans["FLAIR" if reference == "FLAIR" else "t1CE"]
    assert_same_grid(output, source)
    image = nibabel.load(output)
    label = np.asarray(image.dataobj)
    assert label.dtype == np.uint8 and set(np.unique(label)) == {0, 1, 2}
    lesion = distances(image.affine, label.shape, CENTRE) < LESION
    core = distances(image.affine, label.shape, CENTRE) < CORE
    assert dice(label > 0, lesion) > 0.9
    assert dice(label == 1, core) > 0.85
    centroid = nibabel.affines.apply_affine(image.affine, np.argwhere(label > 0).mean(0))
    assert np.abs(centroid - CENTRE).max() < 0.5 * min(image.header.get_zooms())

    # The volume of the lesion is that of the whole region, the painted core included.
    voxel = np.prod(image.header.get_zooms()) / 1000
    rows = read_csv(result["table"])
    assert [r["structure"] for r in rows] == ["Lesion", "Core/é"]
    assert float(rows[0]["volume_ml"]) == pytest.approx(np.count_nonzero(label > 0) * voxel, rel=1e-3)
    assert result["volumes_ml"]["Lesion"] == pytest.approx(4 / 3 * np.pi * LESION**3 / 1000, rel=0.12)
    assert Path(result["overlay"]).read_bytes().startswith(b"\x89PNG")

    assert set(result["probabilities"]) == {"Lesion", "Core/é"}
    assert Path(result["probabilities"]["Core/é"]).name == "seg_probability_Core_é.nii.gz"
    for name, expected in (("Lesion", label > 0), ("Core/é", label == 1)):
        assert_same_grid(result["probabilities"][name], source)
        probability = nibabel.load(result["probabilities"][name]).get_fdata()
        assert probability.min() >= 0 and probability.max() <= 1
        assert np.array_equal(probability >= 0.5, expected)
    assert not [p for p in output.parent.iterdir() if p.name.startswith(".")]


def test_exclusive_structures_large_values_and_one_volume_series(exclusive, scans, tmp_path):
    t1ce = nibabel.load(scans["t1CE"])
    series = tmp_path / "series.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(t1ce.dataobj)[..., None], t1ce.affine), series)
    output = tmp_path / "seg.nii"
    segment(exclusive, {"flair": scans["FLAIR"], "t1ce": series}, output, reference="t1ce", device="cpu")
    assert_same_grid(output, series)
    label = np.asarray(nibabel.load(output).dataobj)
    assert label.dtype == np.int16 and set(np.unique(label)) == {0, 300}
    assert dice(label[..., 0] == 300, distances(t1ce.affine, t1ce.shape, CENTRE) < CORE) > 0.85


def test_scaled_floating_and_unsigned_references(model, tmp_path):
    """The scaling of the reference's intensities must not reach the labels."""
    affine = affine_of((2, 2, 2), 0.1)
    flair = write_scan(tmp_path / "flair.nii.gz", affine, LESION, kind=np.float32)
    image = nibabel.load(flair)
    scaled = nibabel.Nifti1Image(np.asarray(image.dataobj) / 1000 - 3, affine)
    scaled.header.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    first = segment(model, {"FLAIR": flair}, tmp_path / "a.nii.gz", device="cpu", overlay=False)
    segment(model, {"FLAIR": tmp_path / "scaled.nii.gz"}, tmp_path / "b.nii.gz", device="cpu", overlay=False)
    a, b = (np.asarray(nibabel.load(tmp_path / n).dataobj) for n in ("a.nii.gz", "b.nii.gz"))
    assert set(np.unique(b)) == {0, 2}
    assert dice(a > 0, b > 0) > 0.98
    assert first["missing"] == ["T1ce"] and first["overlay"] is None


@pytest.mark.parametrize("codes", [(0, 1), (4, 0), (0, 0)])
def test_every_kind_of_header(tmp_path, codes):
    """sform only, qform only, neither; and nothing personal is carried over."""
    affine = affine_of((1.5, 1.6, 2.2), 0.3, flip=True)
    image = nibabel.Nifti1Image(np.ones((6, 7, 8), np.int16), affine if any(codes) else np.diag([2, 2, 3, 1]))
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine if codes[1] else None, codes[1])
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe, born 1970"))
    nibabel.save(image, tmp_path / "reference.nii")
    label = np.zeros((8, 7, 6), np.uint8)
    label[4, 3, 2] = 5
    grid = read_header(tmp_path / "reference.nii").grid
    write_like(tmp_path / "reference.nii", grid, label, tmp_path / "label.nii")
    assert_same_grid(tmp_path / "label.nii", tmp_path / "reference.nii")
    assert nibabel.load(tmp_path / "label.nii").dataobj[2, 3, 4] == 5
    assert read_header(tmp_path / "label.nii").grid == grid
    assert b"Jane" not in (tmp_path / "label.nii").read_bytes()


@pytest.mark.parametrize("name", ["Label.NII.GZ", "label.Nrrd", "L.SEG.NRRD"])
def test_capitals_in_the_ending_do_not_matter(model, scans, tmp_path, name):
    result = segment(model, scans, tmp_path / name, device="cpu", overlay=False)
    assert sitk.ReadImage(result["output"]).GetSize() == sitk.ReadImage(scans["FLAIR"]).GetSize()
    with pytest.raises(EmimError, match="cannot be written"):  # which ITK itself could not read
        segment(model, scans, tmp_path / "label.MHA", device="cpu")
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def test_a_reference_that_is_not_packed_as_its_name_says(tmp_path):
    grid = Grid((4, 5, 6), (1.0, 2.0, 3.0), (7.0, 8.0, 9.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    plain = tmp_path / "plain.nii"
    sitk.WriteImage(grid.to_image(np.zeros(grid.shape, np.float32)), str(plain))
    plain.rename(tmp_path / "plain.nii.gz")
    write_like(tmp_path / "plain.nii.gz", grid, np.ones(grid.shape, np.uint8), tmp_path / "label.nii.gz")
    assert read_header(tmp_path / "label.nii.gz").grid.is_same(grid, 1e-4)


@pytest.mark.parametrize("extension", [".nrrd", ".mha"])
def test_other_formats_keep_their_grid(model, scans, tmp_path, extension):
    image = sitk.ReadImage(str(scans["FLAIR"]))
    reference = tmp_path / f"flair{extension}"
    sitk.WriteImage(image, str(reference))
    output = tmp_path / f"seg{extension}"
    segment(model, {"FLAIR": reference}, output, device="cpu", overlay=False)
    assert read_header(output).grid == read_header(reference).grid
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(output))).max() == 2


def test_slicer_segmentation_with_layers(model, scans, tmp_path):
    output = tmp_path / "seg.seg.nrrd"
    segment(model, scans, output, device="cpu", overlay=False)
    header = output.read_bytes().split(b"\n\n")[0].decode("utf-8").splitlines()
    assert "kinds: list domain domain domain" in header and "sizes: 2 40 40 40" in header
    assert "space: left-posterior-superior" in header
    for line in (
        "Segment0_ID:=Segment_2",
        "Segment0_Name:=Lesion",
        "Segment0_Color:=1 0.784314 0",
        "Segment0_LabelValue:=2",
        "Segment0_Layer:=0",
        "Segment0_Extent:=0 39 0 39 0 39",
        "Segment1_Name:=Core/é",
        "Segment1_LabelValue:=1",
        "Segment1_Layer:=1",
        "Segment1_Tags:=TerminologyEntry:Category~SCT^1^a~SCT^2^b~^^~Anatomy~^^~^^|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ):
        assert line in header
    assert any(line.startswith("Segment0_Tags:=TerminologyEntry:") and "Tissue" in line for line in header)

    masks, grid = read_seg_nrrd(output)
    assert grid.is_same(read_header(scans["FLAIR"]).grid, 1e-6)
    affine = nibabel.load(scans["FLAIR"]).affine
    lesion = distances(affine, (40, 40, 40), CENTRE) < LESION
    assert dice(masks["Lesion"].transpose(2, 1, 0), lesion) > 0.9  # whole: the core included
    assert (masks["Lesion"] & masks["Core/é"]).sum() == masks["Core/é"].sum() > 0


def test_slicer_segmentation_of_exclusive_structures(exclusive, scans, tmp_path):
    output = tmp_path / "seg.seg.nrrd"
    segment(exclusive, scans, output, device="cpu", reference="t1ce", overlay=False)
    header = output.read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert {"dimension: 3", "type: int16", "endian: little", "Segment0_LabelValue:=300"} <= set(header)
    image = sitk.ReadImage(str(output))
    assert sitk.GetArrayFromImage(image).max() == 300
    assert read_seg_nrrd(output)[0]["Core"].sum() == (sitk.GetArrayFromImage(image) == 300).sum()


def test_a_missing_modality_is_the_token_not_zero(tmp_path, scans):
    """With a token above the threshold the whole head is found where T1ce is missing."""
    state = threshold_state(CARD, (0, 1))
    state["tokens.value"][1] = 3.0
    model = write_package(tmp_path / "model", CARD, state)
    output = tmp_path / "seg.nii.gz"
    result = segment(model, {"FLAIR": scans["FLAIR"]}, output, device="cpu", overlay=False)
    assert result["missing"] == ["T1ce"]
    assert result["volumes_ml"]["Core/é"] > 4 / 3 * np.pi * HEAD**3 / 1000


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig(filters=4, blocks=(1, 1)),
        NetworkConfig(backbone="vit", patch=4, width=24, depth=2, heads=2),
        NetworkConfig(backbone="swin", filters=16, stages=(2, 1)),
    ],
    ids=lambda network: network.backbone,
)
def test_a_network_is_loaded_whole_and_in_single_precision(tmp_path, network):
    card = dataclasses.replace(CARD, network=network)
    fresh = build_network(card).eval()
    state = {k: v.double() if v.is_floating_point() else v for k, v in fresh.state_dict().items()}
    device = torch.device("cpu")
    loaded = predict.load_network(read_package(write_package(tmp_path / "model", card, state)), device)
    assert {t.dtype for t in loaded.state_dict().values()} == {t.dtype for t in fresh.state_dict().values()}
    x, present = torch.randn(1, 2, 32, 32, 32), torch.tensor([[True, False]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x, present), fresh(x, present), rtol=1e-4, atol=1e-5)


def test_mirroring_averages_left_and_right_of_models_trained_on_both(scans):
    """A network that answers by position along x: its mean with the mirror image is the same everywhere."""
    from emim.inference.predict import predict_case
    from emim.inference.quality import Effort
    from emim.volumes.preprocess import PreparedCase

    class Ramp(torch.nn.Module):
        def forward(self, x, present):
            ramp = torch.linspace(-4, 4, x.shape[4])
            return ramp.expand(len(x), 2, *x.shape[2:])

    image = np.zeros((2, 24, 24, 24), np.float32)
    prepared = PreparedCase(
        image, np.ones(2, bool), image[0] == 0, None, read_header(scans["FLAIR"]).grid, ""
    )
    plain = predict_case(Ramp(), prepared, CARD, torch.device("cpu"))
    mirrored = predict_case(Ramp(), prepared, CARD, torch.device("cpu"), Effort(mirror=True))
    assert plain.std() > 0.3
    assert mirrored == pytest.approx(0.5, abs=1e-6)
    sided = dataclasses.replace(CARD, mirrored=False)
    assert np.array_equal(
        predict_case(Ramp(), prepared, sided, torch.device("cpu"), Effort(mirror=True)), plain
    )


def test_tiles_are_counted_and_cancelled(model, scans, tmp_path):
    class Recorder(Events):
        def __init__(self):
            super().__init__()
            self.seen = []

        def progress(self, done, total, unit="step", text=""):
            self.seen.append((done, total))

    events = Recorder()
    segment(model, scans, tmp_path / "a.nii.gz", device="cpu", events=events, overlay=False)
    total = events.seen[0][1]
    assert total == 8 and events.seen == [(i + 1, total) for i in range(total)]

    events = Recorder()
    with pytest.raises(Cancelled):
        segment(model, scans, tmp_path / "b.nii.gz", device="cpu", events=events,
                should_stop=lambda: len(events.seen) >= 3)  # fmt: skip
    assert 3 <= len(events.seen) < total
    assert not list(tmp_path.glob("b*"))


class Listener(Events):
    """Keeps what is said and warned of, and how many tiles there were."""

    def __init__(self):
        super().__init__()
        self.texts, self.warnings, self.tiles = [], [], 0

    def status(self, text):
        self.texts.append(text)

    def warning(self, what, where=None, hint=None):
        self.warnings.append((what, where, hint))

    def progress(self, done, total, unit="step", text=""):
        self.tiles = max(self.tiles, total) if unit == "tile" else self.tiles


def test_quality_says_how_much_work_and_explicit_options_win(model, scans, tmp_path, monkeypatch):
    mirrored = []
    real = predict._probabilities
    monkeypatch.setattr(predict, "_probabilities", lambda *a: mirrored.append(a[-1]) or real(*a))

    def tiles(**options) -> int:
        events = Listener()
        segment(model, scans, tmp_path / "a.nii.gz", device="cpu", overlay=False, overwrite=True,
                events=events, **options)  # fmt: skip
        return events.tiles

    assert tiles(overlap=0.9) > tiles() == tiles(quality="best", mirror=False)
    assert tiles(quality="fast", overlap=0.9) == tiles(overlap=0.9) and set(mirrored) == {False}
    mirrored.clear()
    tiles(quality="best")
    assert set(mirrored) == {True}
    sided = write_package(
        tmp_path / "sided", dataclasses.replace(CARD, mirrored=False), threshold_state(CARD, (0, 1))
    )
    events = Listener()
    segment(sided, scans, tmp_path / "a.nii.gz", device="cpu", overlay=False, overwrite=True, quality="best",
            events=events)  # fmt: skip
    assert any("No mirror images" in what for what, *_ in events.warnings) and False in mirrored
    with pytest.raises(EmimError, match="no quality 'good'"):
        tiles(quality="good")


def test_images_on_different_grids_are_named(model, scans, tmp_path):
    events = Listener()
    result = segment(model, scans, tmp_path / "a.nii.gz", device="cpu", overlay=False, events=events)
    assert result["input_grids"] in events.texts
    assert result["input_grids"] == (
        "The inputs lie on 2 different grids (FLAIR; T1ce); the result has that of FLAIR."
    )
    # The same voxels in another order are the same grid.
    image = sitk.ReadImage(str(scans["FLAIR"]))
    sitk.WriteImage(sitk.Flip(image, (True, False, True)) + 1, str(tmp_path / "flipped.nii.gz"))
    same = {"FLAIR": str(scans["FLAIR"]), "T1ce": str(tmp_path / "flipped.nii.gz")}
    assert describe_grids(same, "FLAIR") is None


def test_one_image_as_two_modalities_is_refused(model, scans, tmp_path):
    copy = tmp_path / "copy.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(scans["FLAIR"])), str(copy))
    with pytest.raises(EmimError, match="T1ce is a copy of FLAIR") as caught:
        segment(model, {"FLAIR": scans["FLAIR"], "T1ce": copy}, tmp_path / "o.nii.gz", device="cpu")
    assert caught.value.where == str(copy)


def test_a_label_map_is_no_image(model, scans, tmp_path):
    image = sitk.ReadImage(str(scans["FLAIR"]), sitk.sitkFloat32)
    sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkFloat32) * 4, str(tmp_path / "label.nii.gz"))
    with pytest.raises(EmimError, match="only 2 different whole numbers") as caught:
        segment(model, {"FLAIR": tmp_path / "label.nii.gz"}, tmp_path / "o.nii.gz", device="cpu")
    assert "label.nii.gz" in caught.value.where
    sitk.WriteImage(sitk.ShiftScale(image, 0, 1e-3), str(tmp_path / "x.nii.gz"))
    segment(model, {"FLAIR": tmp_path / "x.nii.gz"}, tmp_path / "o.nii.gz", device="cpu", overlay=False)


def test_a_patient_who_moved_is_noticed_and_aligned(model, tmp_path):
    """The core was scanned 20 mm away from where the FLAIR shows it."""
    affine, moved = affine_of((1.8, 1.8, 1.8), 0.1), affine_of((1.8, 1.8, 1.8), 0.1, shift=(14, -10, 10))
    flair = write_scan(tmp_path / "flair.nii.gz", affine, LESION)
    write_scan(tmp_path / "t1ce.nii.gz", affine, CORE)
    t1ce = tmp_path / "moved.nii.gz"
    nibabel.save(nibabel.Nifti1Image(nibabel.load(tmp_path / "t1ce.nii.gz").get_fdata(), moved), t1ce)
    core = distances(affine, (40, 40, 40), CENTRE) < CORE

    def run(name: str, align: bool) -> tuple[dict, float, list]:
        events = Listener()
        inputs = {"FLAIR": flair, "T1ce": t1ce}
        result = segment(
            model, inputs, tmp_path / name, device="cpu", overlay=False, align=align, events=events
        )
        return result, dice(np.asarray(nibabel.load(tmp_path / name).dataobj) == 1, core), events.warnings

    result, found, warnings = run("a.nii.gz", False)
    assert found < 0.1 and result["alignments"] == {}
    ((what, where, hint),) = warnings
    assert "T1ce 6" in what and where == str(flair) and "aligned" in hint
    result, found, warnings = run("b.nii.gz", True)
    assert found > 0.85 and not warnings
    assert result["alignments"]["T1ce"]["translation_mm"] == pytest.approx(19.9, abs=1)
    assert set(result["alignments"]) == {"T1ce"} and result["reference"] == "FLAIR"
    means = {m["structure"]: m["mean"]["T1ce"] for m in result["measurements"]}
    assert means["Core/é"] > 500, "measured where the image was moved to"


@pytest.mark.parametrize(
    ("give", "message", "hint"),
    [
        ({"FLAIR": "FLAIR", "T2": "t1CE"}, "no input called 'T2'", "FLAIR, T1ce"),
        ({"T1ce": "t1CE"}, "needs FLAIR", "do without: T1ce"),
        ({"FLAIR": "FLAIR", "T1ce": "FLAIR"}, "same file", "own file"),
        ({"FLAIR": "FLAIR", "flair ": "t1CE"}, "Two files", "one file"),
        ({}, "needs FLAIR", "FLAIR"),
    ],
)
def test_wrong_inputs(model, scans, tmp_path, give, message, hint):
    with pytest.raises(EmimError, match=message) as caught:
        segment(model, {k: scans[v] for k, v in give.items()}, tmp_path / "o.nii.gz", device="cpu")
    assert hint in caught.value.hint
    assert not list(tmp_path.glob("o*"))


def test_inputs_of_different_places(model, scans, tmp_path):
    far = affine_of((1.5, 1.5, 1.5), 0.2, shift=(500, 0, 0))
    image = nibabel.load(scans["FLAIR"])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), far), tmp_path / "far.nii.gz")
    with pytest.raises(EmimError, match="T1ce does not overlap") as caught:
        give = {"FLAIR": scans["FLAIR"], "T1ce": tmp_path / "far.nii.gz"}
        segment(model, give, tmp_path / "o.nii.gz", device="cpu")
    assert "far.nii.gz" in caught.value.where


def test_values_that_are_not_finite(model, scans, tmp_path):
    image = nibabel.load(scans["FLAIR"])
    data = image.get_fdata(dtype=np.float32)
    data[20, 20, 20] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, image.affine), tmp_path / "nan.nii.gz")
    with pytest.raises(EmimError, match="NaN") as caught:
        segment(model, {"FLAIR": tmp_path / "nan.nii.gz"}, tmp_path / "o.nii.gz", device="cpu")
    assert "nan.nii.gz" in caught.value.where


def test_outputs_are_protected(model, scans, tmp_path):
    (tmp_path / "o_measurements.csv").write_text("mine")
    with pytest.raises(EmimError, match="exists already"):
        segment(model, scans, tmp_path / "o.nii.gz", device="cpu")
    assert (tmp_path / "o_measurements.csv").read_text() == "mine"
    with pytest.raises(EmimError, match="overwrite an input"):
        segment(model, scans, scans["t1CE"], device="cpu", overwrite=True)
    with pytest.raises(EmimError, match="format"):
        segment(model, scans, tmp_path / "o.jpg", device="cpu")
    with pytest.raises(EmimError, match="no kind of device"):
        segment(model, scans, tmp_path / "p.nii.gz", device="abacus")
    segment(model, scans, tmp_path / "o.nii.gz", device="cpu", overwrite=True, overlay=False)
    assert (tmp_path / "o_measurements.csv").read_text().startswith("structure,")


def test_cohort_with_a_broken_case(model, scans, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scans["FLAIR"].read_bytes()[:-1000])
    flair, t1ce = str(scans["FLAIR"]), str(scans["t1CE"])
    cohort = Cohort(
        ("FLAIR", "T1ce", "T2"),
        (
            Case("a", "a", {"FLAIR": flair, "T1ce": t1ce, "T2": "/not/needed.nii.gz"}),
            Case("b", "b", {"FLAIR": str(broken)}),
            Case("c", "c", {"T1ce": t1ce}),
            Case("d", "d", {"FLAIR": flair}),
        ),
    )
    out = tmp_path / "out"
    rows = [CaseRow("e", "e", {}, None, problems=["label of another grid"])]
    events = Recorder()
    scan = Scan("somewhere", cohort, rows)
    results = segment(model, None, out, cohort=scan, device="cpu", overlay=False, events=events)
    assert sorted(events.cases, key=lambda r: r["case"]) == results
    assert [r["inputs"] for r in results[1:]] == [*(c.images for c in cohort.cases[1:]), {}]
    assert [r["case"] for r in results] == ["a", "b", "c", "d", "e"]
    assert ["error" in r for r in results] == [False, True, True, False, True]
    assert "label of another grid" in results[4]["error"]["what"]
    assert results[1]["error"]["where"] == str(broken)
    assert "needs FLAIR" in results[2]["error"]["what"]
    written = {f"{case}{end}" for case in "ad" for end in (".nii.gz", "_measurements.csv")}
    assert {p.name for p in out.glob("[!.]*")} == written | {"measurements.csv", "summary.json"}
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["segmented"], summary["failed"]) == (2, 3)
    rows = read_csv(out / "measurements.csv")
    assert [(r["case"], r["structure"]) for r in rows] == [
        ("a", "Lesion"), ("a", "Core/é"), ("d", "Lesion"), ("d", "Core/é"),
    ]  # fmt: skip
    with pytest.raises(EmimError, match="exists already"):
        segment(model, None, out, cohort=cohort, device="cpu")


def test_cohort_ids_stay_in_the_folder(model, scans, tmp_path):
    cohort = Cohort(("FLAIR",), (Case("../x", "x", {"FLAIR": str(scans["FLAIR"])}),))
    with pytest.raises(EmimError, match="cannot name a file"):
        segment(model, None, tmp_path / "out", cohort=cohort, device="cpu")


def test_nested_regions_are_nested_and_measured_alike_everywhere():
    structures, _ = parse_structures(["WT=1,2", "TC=1"])
    card = ModelCard(
        name="nested", modalities=("T1",), structures=structures, overlapping=True,
        preprocess=PreprocessConfig(spacing=(1, 1, 1)), network=NetworkConfig(), crop=16,
    )  # fmt: skip
    probabilities = np.zeros((2, 8, 8, 8), np.float32)
    probabilities[0, :, :, :4] = 0.9  # the whole tumour misses a part of its core
    probabilities[1, :, :, 2:6] = 0.9
    grid = Grid((8, 8, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    result = label_on_grid(card, probabilities, grid, grid)
    assert result.volumes == {"WT": 8 * 8 * 6 / 1000, "TC": 8 * 8 * 4 / 1000}
    painted = prediction_values(structures)
    for i, s in enumerate(structures):
        in_map = np.isin(result.label, list(painted[s.name]))
        assert np.array_equal(in_map, result.layers[i] == s.output)
        assert in_map.sum() / 1000 == result.volumes[s.name]


def test_the_first_input_given_is_the_reference():
    card = ModelCard(
        name="order", modalities=("T1", "T2"), structures=parse_structures(["a=1"])[0], overlapping=False,
        preprocess=PreprocessConfig(spacing=(1, 1, 1)), network=NetworkConfig(), crop=16,
    )  # fmt: skip
    images = match_inputs(card, {"t2": "/b.nii", "T1": "/a.nii"})
    assert choose_reference(card, images) == "T2"
    assert choose_reference(card, images, "t1w") == "T1" and choose_reference(card, images, " t2 ") == "T2"
    with pytest.raises(EmimError, match="no input 'FLAIR'"):
        choose_reference(card, images, "FLAIR")


def test_a_modality_goes_by_its_own_name_first():
    card = ModelCard(
        name="names", modalities=("T1C", "t1ce", "ADC map"), structures=parse_structures(["a=1"])[0],
        overlapping=False, preprocess=PreprocessConfig(spacing=(1, 1, 1)), network=NetworkConfig(), crop=16,
    )  # fmt: skip
    names = ("t1c", " T1CE ", "adc MAP", "t1gd", "FLAIR", "")
    assert [modality_called(card, name) for name in names] == ["T1C", "t1ce", "ADC map", "t1ce", None, None]
