"""What several tests of the core share: a small phantom cohort, and small settings."""

import dataclasses

import pytest

from emim.config import FinetuneConfig, PretrainConfig, override, with_preset
from emim.errors import Cancelled
from emim.events import Events
from emim.training.structures import parse_structures

SMALL = {
    "network.filters": 4,
    "network.blocks": (1, 1, 1),
    "train.crop": 16,
    "train.steps": 6,
    "train.validate_every": 3,
    "train.device": "cpu",
    "train.learning_rate": 3e-3,
}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Seven subjects at 5 mm, four labelled."""
    from emim.phantom.generate import generate

    return generate(tmp_path_factory.mktemp("cohort") / "phantoms", subjects=7, labelled=4, spacing=5.0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "cache"


class Told(Events):
    """Keeps the warnings in ``told``."""

    def __init__(self):
        super().__init__()
        self.told = []

    def warning(self, what, where=None, hint=None):
        self.told.append(what)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def small_pretrain():
    """Settings for a pre-training run of seconds; call with what differs."""

    def make(**settings):
        settings = {k.replace("__", "."): v for k, v in settings.items()}
        small = {"regulariser.width": 16, "mask.unit": 8, **SMALL, **settings}
        return override(with_preset(PretrainConfig(), "tiny"), small)

    return make


@pytest.fixture
def small_finetune():
    """Settings for a fine-tuning run of seconds on WT, TC and ET; call with what differs."""

    def make(**settings):
        settings = {k.replace("__", "."): v for k, v in settings.items()}
        structures, overlapping = parse_structures(["WT=1,2,3", "TC=1,3", "ET=3"])
        config = dataclasses.replace(FinetuneConfig(), structures=structures, overlapping=overlapping)
        return override(config, {**SMALL, **settings})

    return make


@pytest.fixture
def seen_rates(monkeypatch):
    """Call it: from then on trainings are cancelled at their first step, and the list that it returns gets
    the learning rates of all tensors of each, as shares."""
    seen = []

    def look(run, optimisation, *rest):
        scale = {id(p): g["scale"] for g in optimisation.optimiser.param_groups for p in g["params"]}
        seen.append({n: scale[id(p)] for n, p in optimisation.model.named_parameters()})
        raise Cancelled("seen")

    def watch():
        monkeypatch.setattr("emim.training.loop.train", look)
        return seen

    return watch


@pytest.fixture
def computed(monkeypatch):
    """The cases that the network of a batch was asked for, as they come."""
    from emim.inference.batch import Worker

    cases, run = [], Worker.run

    def counted(self, job, ready):
        cases.append(job.case)
        return run(self, job, ready)

    monkeypatch.setattr(Worker, "run", counted)
    return cases
