"""A missing modality made up: what it is, where it lies, how near it comes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from recorder import Recorder
from torch import nn

from emim.cli import main
from emim.errors import Cancelled, EmimError
from emim.imputation.impute import impute
from emim.imputation.reconstructor import Reconstructor
from emim.imputation.similarity import similarity
from emim.training.pretrain import pretrain
from emim.volumes.foreground import find_foreground
from emim.volumes.preprocess import robust_statistics

SHAPE = (22, 24, 26)  # (Z, Y, X)
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


class MinusT2(nn.Module):
    """Says that FLAIR is minus T2, as long as exactly what is missing is hidden."""

    def __init__(self, hidden):
        super().__init__()
        self.hidden = torch.tensor(hidden)

    def forward(self, x, hidden):
        assert (hidden == self.hidden).all() and (x[:, self.hidden] == 0).all()
        out = torch.full_like(x, 77.0)
        out[:, 3] = -x[:, 2]
        return out, []


@pytest.fixture(scope="module")
def run(phantoms, cache, tmp_path_factory):
    """A run of two steps with the hybrid mask, one modality dropped at a time."""
    from emim.config import PretrainConfig, override, with_preset

    settings = {
        "network.filters": 4,
        "network.blocks": (1, 1, 1),
        "train.crop": 16,
        "train.steps": 2,
        "train.device": "cpu",
        "regulariser.name": "none",
        "preprocess.spacing": (5.0, 5.0, 5.0),
    }
    config = override(with_preset(PretrainConfig(), "tiny"), settings)
    return pretrain(phantoms, tmp_path_factory.mktemp("run") / "run", config, cache=cache)


@pytest.fixture
def scans(tmp_path):
    """Stripped T1 and T2 with contrast on an oblique grid of 5 mm; FLAIR is 1000 minus twice T2."""
    rng = np.random.default_rng(0)
    head = np.zeros(SHAPE, bool)
    head[2:-2, 3:-3, 3:-3] = True
    images = {m: np.where(head, rng.normal(300, 60, SHAPE), 0).clip(0) for m in ("T1", "T2")}
    images["FLAIR"] = np.where(head, 1000 - 2 * images["T2"], 0)
    return {m: save(tmp_path / f"{m}.nii.gz", a) for m, a in images.items()}


def save(path, array, spacing=5.0, angle=0.0):
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing((spacing,) * 3)
    c, s = np.cos(angle), np.sin(angle)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetOrigin((-40, 10, 5))
    sitk.WriteImage(image, str(path))
    return str(path)


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def scores_of(path):
    """z-scores of a stripped image, and its foreground."""
    values = read(path)
    mask = find_foreground(values).mask
    mean, deviation = robust_statistics(values[mask].copy())
    return ((values - mean) / deviation).clip(-5, 5), mask


@pytest.fixture
def known(monkeypatch):
    """The network is :class:`MinusT2`, T1 and T2 are given."""
    monkeypatch.setattr(Reconstructor, "load", lambda self, device: MinusT2([False, True, False, True]))


def test_the_volume_is_what_the_network_says_where_the_reference_lies(run, scans, known, tmp_path):
    given = {"t2": scans["T2"], "T1": scans["T1"]}
    events = Recorder()
    result = impute(
        run, given, "flair", tmp_path / "o/flair.nii.gz", truth=scans["FLAIR"], device="cpu", events=events
    )
    expected, mask = scores_of(scans["T2"])
    volume = read(result["output"])
    assert np.abs(volume[mask] + expected[mask]).max() < 1e-4
    assert (volume[~mask] == volume[mask].min()).all()
    image, reference = (sitk.ReadImage(str(p)) for p in (result["output"], scans["T2"]))
    for of in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(image, of)(), getattr(reference, of)(), atol=1e-5)
    assert (result["modality"], result["reference"], result["scale"]) == ("FLAIR", "T2", "z-score")
    # The truth is minus T2 up to scale, so its z-scores are those of the volume, but for the tails.
    near = result["similarity"]
    assert near["mse"] < 1e-3 and near["ssim"] > 0.999 and near["psnr"] > 30
    assert abs(near["voxels"] - mask.sum()) < 5
    assert any("never hides more than 1" in w for w in events.warnings)
    with pytest.raises(EmimError, match="exists already"):
        impute(run, given, "FLAIR", tmp_path / "o/flair.nii.gz", device="cpu")


def test_intensities_of_an_example(run, scans, known, tmp_path):
    given = {m: scans[m] for m in ("T1", "T2")}
    # Air is not the darkest: tissue reaches below it.
    example = np.where(read(scans["T2"]) > 0, read(scans["T2"]) * 3 - 600, 7)
    like = save(tmp_path / "like.nii.gz", example)
    result = impute(run, given, "FLAIR", tmp_path / "flair.nii.gz", like=like, device="cpu")
    scores, mask = scores_of(scans["T2"])
    example = example.astype(np.float32)
    mean, deviation = robust_statistics(example[find_foreground(example).mask])
    expected = np.maximum(mean - deviation * scores[mask], example.min())  # never darker than the example
    volume = read(result["output"])
    assert np.abs(volume[mask] - expected).max() < 0.05
    assert (volume[~mask] == 7).all() and result["scale"] == like and result["similarity"] is None


def test_a_reference_on_another_grid(run, scans, known, tmp_path):
    """The edge of a finer, turned reference is not mixed with the air."""
    array = sitk.GetArrayFromImage(
        sitk.Resample(sitk.ReadImage(scans["T1"]), (60, 60, 50), sitk.Transform(), sitk.sitkLinear,
                      (-40, 10, 5), (2.4, 2.4, 2.4), (1, 0, 0, 0, 1, 0, 0, 0, 1), 0.0)
    )  # fmt: skip
    fine = save(tmp_path / "fine.nii.gz", array, 2.4, angle=0.05)
    result = impute(run, {"T1": fine, "T2": scans["T2"]}, "FLAIR", tmp_path / "flair.nii.gz",
                    reference="T1", device="cpu")  # fmt: skip
    volume = read(result["output"])
    assert volume.shape == (50, 60, 60)
    low = volume.min()
    inside = volume != low
    assert 0.5 < inside.sum() / (find_foreground(array).mask.sum()) < 1.2
    assert low > -4.5 and abs(volume[inside].mean()) < 0.3  # air of z = 0 or of -5 would pull it


def test_similarity_by_the_definitions():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(24, 25, 26))
    mask = np.zeros(truth.shape, bool)
    mask[2:22, 2:22, 3:23] = True
    volume = truth + 0.5
    near = similarity(np.where(mask, volume, 99), truth, mask)
    span = np.ptp(truth[mask])
    assert near.mse == pytest.approx(0.25, rel=1e-5) and near.voxels == 8000
    assert near.psnr == pytest.approx(10 * np.log10(span**2 / 0.25), rel=1e-5)
    same = similarity(truth, truth, mask)
    assert (same.mse, same.psnr) == (0, np.inf) and same.ssim == pytest.approx(1, abs=1e-6)
    noise = similarity(rng.permutation(truth.ravel()).reshape(truth.shape), truth, mask)
    assert noise.ssim < 0.5 < near.ssim < 1 and noise.mse > 1


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("resunet", {"decoder": "deep"}),
        ("vit", {"objective": "mae"}),
        ("vit", {"objective": "mim"}),
        ("swin", {"network.filters": 16}),
    ],
)
def test_every_backbone(backbone, settings, phantoms, cache, tmp_path, small_pretrain):
    vit = {"network.patch": 8, "network.width": 24, "network.depth": 3, "network.heads": 2}
    swin = {"network.stages": (1, 1)}
    small = {"network.backbone": backbone, "train.steps": 2, "regulariser.name": "none", **vit, **swin}
    config = small_pretrain(**{**small, **settings})
    run = pretrain(phantoms, tmp_path / "run", config, cache=cache)
    case = phantoms / "sub-001" / "sub-001"
    given = {m: f"{case}_{m}.nii.gz" for m in ("T1", "T1ce", "T2")}
    result = impute(run, given, "FLAIR", tmp_path / "a.nii.gz", truth=f"{case}_FLAIR.nii.gz", device="cpu")
    volume = read(result["output"])
    assert volume.shape == read(given["T1"]).shape and np.isfinite(volume).all() and volume.std() > 0
    assert -1 <= result["similarity"]["ssim"] <= 1 and 0 < result["similarity"]["mse"] < 20
    # What it says depends on what it sees.
    other = impute(run, {"T1": given["T1"]}, "FLAIR", tmp_path / "b.nii.gz", device="cpu")
    assert not np.allclose(read(other["output"]), volume, atol=1e-4)


def test_a_run_that_never_hid_a_modality_is_doubted(run):
    known = Reconstructor.read(run)
    assert known.most_hidden() == 1 and known.doubt(1) is None and known.doubt(2) is not None
    settings = json.loads((run / "config.json").read_text(encoding="utf-8"))
    for pattern, dropped, most in (("random", 1, 0), ("none", 1, 0), ("patch", 1, 0), ("modal", 3, 3)):
        settings["mask"] |= {"pattern": pattern, "max_dropped": dropped}
        (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        assert Reconstructor.read(run).most_hidden() == most
    settings["mask"] |= {"pattern": "random"}
    (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert "never hides a whole modality" in Reconstructor.read(run).doubt(1)[0]
    settings["normalise_targets"] = True
    (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(EmimError, match="not intensities"):
        Reconstructor.read(run)
    settings["normalise_targets"], settings["mask"]["pattern"] = False, "hybrid"
    settings["mask"]["max_dropped"] = 1
    (run / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def test_bad_input(run, scans, tmp_path):
    given = {m: scans[m] for m in ("T1", "T2")}
    out = tmp_path / "x.nii.gz"
    for arguments, said in (
        ((run, given, "PD", out), "does not know the modality 'PD'"),
        ((run, given, "T1", out), "among the inputs"),
        ((run, {**given, "PD": scans["FLAIR"]}, "FLAIR", out), "no input called 'PD'"),
        ((run, given, "FLAIR", tmp_path / "x.png"), "cannot be written"),
        ((run, given, "FLAIR", tmp_path / "x.seg.nrrd"), "cannot be written"),
        ((run, given, "FLAIR", tmp_path / "x.MHA"), "cannot be written"),
        ((run, given, "FLAIR", scans["T1"]), "overwrite an input"),
        ((tmp_path, given, "FLAIR", out), "not a run folder"),
    ):
        with pytest.raises(EmimError, match=said):
            impute(*arguments, device="cpu", overwrite=True)
    for name in ("truth", "like"):
        with pytest.raises(EmimError, match="no such image"):
            impute(run, given, "FLAIR", out, device="cpu", **{name: tmp_path / "gone.nii.gz"})
    with pytest.raises(EmimError, match="copy of"):
        copy = save(tmp_path / "copy.nii.gz", read(scans["T2"]))
        impute(run, given, "FLAIR", out, device="cpu", truth=copy)
    with pytest.raises(Cancelled):
        impute(run, given, "FLAIR", out, device="cpu", should_stop=lambda: True)
    assert not out.exists()


def test_command_line(run, scans, tmp_path, capsys):
    command = ["impute", "--run", str(run), "--input", f"T1={scans['T1']}", "--input", f"T2={scans['T2']}"]
    out = str(tmp_path / "flair.nii.gz")
    arguments = ["--modality", "FLAIR", "--output", out, "--truth", scans["FLAIR"], "--device", "cpu"]
    assert main([*command, *arguments]) == 0
    said = capsys.readouterr()
    assert "PSNR" in said.out and "never hides more than 1" in said.err
    assert main([*command, *arguments]) == 2 and "exists already" in capsys.readouterr().err
