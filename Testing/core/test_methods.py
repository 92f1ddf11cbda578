"""Every legal combination of backbone, objective, decoder and regulariser, from images to a segmentation."""

import dataclasses
import itertools
import json

import pytest
import SimpleITK as sitk
import torch

from emim.config import PreprocessConfig
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.inference.segment import segment
from emim.machine.device import choose_device
from emim.networks.build import BACKBONES, DECODERS, OBJECTIVES
from emim.objectives.regulariser import PENALTIES
from emim.training.finetune import finetune
from emim.training.preflight import check_pretraining, open_cohort
from emim.training.pretrain import pretrain
from emim.training.tasks import pretraining_task
from emim.volumes.cache import build_cache

NETWORKS = {
    "resunet": {},
    "vit": {"network__patch": 8, "network__width": 24, "network__depth": 3, "network__heads": 2},
    "swin": {"network__filters": 16, "network__stages": (2, 1)},
}
LEVELS = {"resunet": 3, "vit": 1, "swin": 3}
METHODS = list(itertools.product(BACKBONES, OBJECTIVES, DECODERS))
ILLEGAL = [m for m in METHODS if m[1] == "mae" and (m[0] != "vit" or m[2] == "linear")]
# The contrastive objective has no decoder, whatever it is called.
LEGAL = [m for m in METHODS if m not in ILLEGAL and (m[1] != "contrastive" or m[2] == "light")]


def of_method(backbone, objective, decoder):
    return {
        "network__backbone": backbone,
        **NETWORKS[backbone],
        "objective": objective,
        "decoder": decoder,
        "train__steps": 2,
        "train__validate_every": 2,
    }


@pytest.mark.parametrize("method", METHODS, ids="-".join)
def test_what_does_not_go_together_is_refused_and_the_rest_is_not(method, small_pretrain):
    config = small_pretrain(**of_method(*method))
    if method in ILLEGAL:
        with pytest.raises(EmimError, match=r"decoder|objective") as refused:
            check_pretraining(config)
        assert refused.value.hint
    else:
        check_pretraining(config)


class StopAfterOne(Events):
    """Asks a run to stop after its first step."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def progress(self, done, total, unit="step", text=""):
        if unit == "step" and done == 1:
            (self.run / "cancel").touch()


@pytest.mark.parametrize("method", LEGAL, ids="-".join)
def test_trains_saves_resumes_finetunes_and_segments(
    method, phantoms, cache, tmp_path, small_pretrain, small_finetune, monkeypatch
):
    settings = of_method(*method)
    config = small_pretrain(**settings)
    whole = pretrain(phantoms, tmp_path / "whole", config, cache=cache)
    state = torch.load(whole / "checkpoints" / "last.pt", weights_only=True)
    assert state["step"] == 2
    events = [json.loads(line) for line in (whole / "events.jsonl").read_text().splitlines()]
    measured = [e for e in events if e["type"] == "metric" and e["split"] == "validation"]
    assert [e["step"] for e in measured] == [0, 2]
    assert all(len(e["effective_rank"]) == LEVELS[method[0]] for e in measured)
    assert (whole / "report" / "report.html").is_file()
    assert not [e for e in events if e["type"] == "warning" and "report" in e["what"]]

    for command in ("pretrain", "finetune"):  # one report is enough, and they take long to draw
        monkeypatch.setattr(f"emim.training.{command}.update_report", lambda run: None)
    with pytest.raises(Cancelled):
        pretrain(phantoms, tmp_path / "part", config, cache=cache, events=StopAfterOne(tmp_path / "part"))
    part = pretrain(None, tmp_path / "part", resume=True, cache=cache)
    resumed = torch.load(part / "checkpoints" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(state["model"][k], resumed[k]) for k in resumed), "bit by bit the same"

    for name in ("objective", "decoder"):
        del settings[name]
    model = finetune(phantoms, tmp_path / "fine", whole, small_finetune(**settings), cache=cache)
    report = json.loads((tmp_path / "fine" / "transfer.json").read_text())
    shared = ["network.encoder.", "network.tokens."]
    if method[0] == "swin":  # its pre-training decoder is the beginning of that for segmentation
        shared.append("network.decoder.")
    assert len(report["loaded"]) == sum(k.startswith(tuple(shared)) for k in resumed)
    case = phantoms / "sub-001"
    images = {m: next(case.glob(f"*_{m}.nii.gz")) for m in ("T1", "FLAIR")}
    result = segment(model, images, tmp_path / "seg.nii.gz", device="cpu", quality="fast", overlay=False)
    label, reference = sitk.ReadImage(str(tmp_path / "seg.nii.gz")), sitk.ReadImage(str(images["T1"]))
    assert label.GetSize() == reference.GetSize() and set(result["missing"]) == {"T1ce", "T2"}


# ---- regularisers -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(phantoms, cache):
    cohort = open_cohort(phantoms, "", False, Events()).cohort
    return build_cache(cohort, PreprocessConfig(spacing=(5.0, 5.0, 5.0)), cache)


REGULARISED = [(name, levels) for name in (*PENALTIES, "none") for levels in (None, (0,))]


@pytest.mark.parametrize("backbone", NETWORKS)
@pytest.mark.parametrize(("name", "levels"), REGULARISED)
def test_every_regulariser_trains_every_backbone(backbone, name, levels, cases, small_pretrain):
    """All levels but the finest, as is the default, or a single level; a vision transformer has but one."""
    settings = {"regulariser__name": name, "regulariser__levels": levels, "regulariser__weight": 1.0}
    config = small_pretrain(**of_method(backbone, "mim", "light"), **settings)
    states = []
    for weight in (1.0, 0.0):
        regulariser = dataclasses.replace(config.regulariser, weight=weight)
        task = pretraining_task(
            dataclasses.replace(config, modalities=cases[0].modalities, regulariser=regulariser),
            cases[2:],
            cases[:2],
            choose_device("cpu"),
        )
        optimisation = task.optimisation()
        values = [optimisation.advance(task.data[step], step) for step in range(2)]
        states.append({k: v.clone() for k, v in task.model.network.state_dict().items()})
        assert all(torch.isfinite(v["loss"]) for v in values)
    acts = any(not torch.equal(states[0][k], states[1][k]) for k in states[0] if k.startswith("encoder."))
    assert acts == (name != "none")
    assert all((v["regulariser"] > 0) == (name != "none") for v in values)
