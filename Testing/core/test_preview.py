"""Previews that runs write as volumes: complete, in the right place, with the right content."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from emim.training.finetune import finetune
from emim.training.pretrain import pretrain
from emim.training.preview import write_volume
from emim.volumes.cache import build_cache
from emim.volumes.grid import Grid

OBLIQUE = Grid((5, 6, 7), (1.0, 2.0, 3.5), (-10.0, 20.0, 5.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))


def previews(run, kind):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e for e in events if e["type"] == "preview" and e["kind"] == kind]


def voxels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_volume_lies_where_it_was_measured(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.normal(size=OBLIQUE.shape).astype(np.float32)
    write_volume(tmp_path / "a.nii.gz", array, OBLIQUE)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert Grid.of(image).is_same(OBLIQUE)
    assert np.abs(sitk.GetArrayFromImage(image) - array).max() < 1e-3
    ras = nibabel.load(tmp_path / "a.nii.gz").affine @ [4, 5, 6, 1]
    assert np.allclose(ras[:3] * [-1, -1, 1], OBLIQUE.position(np.array([4, 5, 6])), atol=1e-4)
    label = rng.integers(0, 4, OBLIQUE.shape).astype(np.int16)
    write_volume(tmp_path / "label.nii.gz", label, OBLIQUE)
    stored = nibabel.load(tmp_path / "label.nii.gz")
    assert stored.get_data_dtype() == np.int16 and np.array_equal(np.asarray(stored.dataobj).T, label)
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith("part")] == []


def test_an_empty_volume_can_be_written(tmp_path):
    write_volume(tmp_path / "a.nii.gz", np.zeros(OBLIQUE.shape, np.float32), OBLIQUE)
    assert not voxels(tmp_path / "a.nii.gz").any()


@pytest.fixture
def pretrained(phantoms, cache, tmp_path, small_pretrain):
    return pretrain(phantoms, tmp_path / "pre", small_pretrain(), cache=cache)


def test_pretraining_shows_original_masked_and_reconstructed(pretrained):
    told = previews(pretrained, "reconstruction_volumes")
    assert [e["step"] for e in told] == [0, 3, 6]
    files, modalities = told[-1]["files"], ["T1", "T1ce", "T2", "FLAIR"]
    assert list(files) == ["original", "masked", "reconstructed"]
    assert told[-1]["path"] == str(pretrained / "preview")
    assert all(set(f) <= set(modalities) and f for f in files.values())
    assert files["original"]["T1"] == str(pretrained / "preview" / "original_T1.nii.gz")
    hidden_share = []
    for modality in files["original"]:
        original, masked, reconstructed = (voxels(files[k][modality]) for k in files)
        assert original.shape == masked.shape == reconstructed.shape and original.std() > 0.5
        dark = original.min() + 2e-3
        seen = masked > dark
        assert np.abs(masked - original)[seen].max(initial=0) < 2e-3
        assert np.abs(reconstructed - original)[seen].max(initial=0) < 2e-3, "what was seen stays"
        assert (reconstructed > dark)[(original > dark) & ~seen].any(), "what was hidden is filled"
        hidden_share.append(1 - seen.sum() / (original > dark).sum())
    assert 0.1 < np.mean(hidden_share) < 0.9


def test_the_preview_lies_where_the_case_lies(pretrained, cache):
    from emim.cohort.scan import scan
    from emim.config import PreprocessConfig

    told = previews(pretrained, "reconstruction_volumes")[-1]
    found = scan(pretrained / "cohort.json")
    config = json.loads((pretrained / "config.json").read_text())
    case = build_cache(
        found.cohort.select([told["case"]]),
        PreprocessConfig(spacing=tuple(config["preprocess"]["spacing"])),
        cache,
    )[0]
    image = sitk.ReadImage(told["files"]["original"]["T1"])
    start = case.grid.index(np.array(image.GetOrigin()))
    assert np.allclose(start, np.rint(start), atol=1e-3), "on the working grid"
    start = [int(v) for v in np.rint(start)][::-1]
    read = case.crop(start, image.GetSize()[::-1])
    channel = case.modalities.index("T1")
    shown = sitk.GetArrayFromImage(image)
    assert np.abs(shown - read.image[channel])[read.foreground].max() < 2e-3


def test_only_the_reconstruction_is_written_again(phantoms, cache, tmp_path, small_pretrain, monkeypatch):
    from emim.training import preview

    written = []
    real = preview.write_volume
    monkeypatch.setattr(preview, "write_volume", lambda f, *a: written.append(f.name) or real(f, *a))
    pretrain(phantoms, tmp_path / "pre", small_pretrain(), cache=cache)
    assert written.count("original_T1.nii.gz") == 1 and written.count("reconstructed_T1.nii.gz") == 3


def test_finetuning_shows_image_prediction_and_reference(phantoms, cache, tmp_path, small_finetune):
    run = finetune(phantoms, tmp_path / "fine", None, small_finetune(), cache=cache).parent
    told = previews(run, "segmentation_volumes")
    assert [e["step"] for e in told] == [3, 6]
    files = told[-1]["files"]
    assert files["image"] == str(run / "preview" / "image_T1.nii.gz")
    image, prediction, reference = (sitk.ReadImage(files[k]) for k in ("image", "prediction", "reference"))
    assert Grid.of(image).is_same(Grid.of(prediction)) and Grid.of(image).is_same(Grid.of(reference))
    values = set(np.unique(sitk.GetArrayFromImage(reference)))
    assert values <= {0, 1, 2, 3} and len(values) > 1
    assert set(np.unique(sitk.GetArrayFromImage(prediction))) <= {0, 1, 2, 3}
    original = next(phantoms.glob(f"{told[-1]['case']}/*_seg.nii.gz"))
    label = sitk.ReadImage(str(original))
    moved = sitk.Resample(label, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
    same = sitk.GetArrayFromImage(moved) == sitk.GetArrayFromImage(reference)
    assert same.mean() > 0.99, "the reference lies on the patient's label"
