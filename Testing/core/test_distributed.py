"""Runs of several processes under torchrun are those of one process; they survive what one process does."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from monai.losses import DiceLoss
from rank_program import LOSSES, StopAt, rows

from emim.cli import main
from emim.config import to_dict
from emim.errors import Cancelled, EmimError
from emim.machine import distributed
from emim.run import load_tensors
from emim.training import optimisation, start
from emim.training.augmentation import for_pretraining
from emim.training.finetune import finetune
from emim.training.optimisation import Optimisation
from emim.training.pretrain import pretrain
from emim.training.pretrain_model import PretrainModel
from emim.training.sampling import PretrainBatches, sample_generator, step_generator
from emim.training.segmentation_loss import SegmentationLoss
from emim.training.start import check_ranks
from emim.volumes.cache import build_cache

PROGRAM = Path(__file__).with_name("rank_program.py")
# Sums of floats in another order: what is left after a few steps of AdamW.
CLOSE = {"rtol": 2e-3, "atol": 2e-4}


def torchrun(ranks, *program):
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        *program,
    ]


def environment():
    here = Path(__file__).parents[2]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here)}


def run_ranks(ranks, jobs, folder, cohort, cache):
    given = [json.dumps(jobs), *map(str, (folder, cohort, cache))]
    done = subprocess.run(
        torchrun(ranks, str(PROGRAM), *given), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr


def metrics(run):
    found = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "metric":
            found[event["split"], event["step"]] = {
                k: v for k, v in event.items() if isinstance(v, (int, float)) and k != "time"
            }
    return found


def assert_same_run(a, b, apart=()):
    one, other = metrics(a), metrics(b)
    assert one.keys() == other.keys() and sum(k[0] == "train" for k in one) >= 5
    for key, values in one.items():
        assert values.keys() == other[key].keys()
        for name in values.keys() - set(apart):
            assert other[key][name] == pytest.approx(values[name], rel=2e-3, abs=1e-4), (key, name)
    one, other = (load_tensors(run / "checkpoints" / "last.pt")["model"] for run in (a, b))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


def as_json(config):
    return json.loads(json.dumps(to_dict(config)))


# ---- two and four processes against one ---------------------------------------------------------


def test_two_ranks_pretrain_like_one(phantoms, cache, tmp_path, small_pretrain):
    config = small_pretrain(train__batch=4)
    pretrain(phantoms, tmp_path / "one", config, cache=cache)
    contrast = small_pretrain(train__batch=4, objective="contrastive")
    pretrain(phantoms, tmp_path / "contrast one", contrast, cache=cache)
    with pytest.raises(Cancelled):
        events = StopAt(3, tmp_path / "one then two")
        pretrain(phantoms, tmp_path / "one then two", config, cache=cache, events=events)
    stopped = load_tensors(tmp_path / "one then two" / "checkpoints" / "last.pt")["step"]
    jobs = [
        {"do": "decisions"},
        {"do": "losses"},
        {"do": "pretrain", "run": "two", "config": as_json(config)},
        {"do": "pretrain", "run": "contrast two", "config": as_json(contrast)},
        {"do": "pretrain", "run": "two then one", "config": as_json(config), "stop": 4},
        {"do": "pretrain", "run": "one then two", "resume": True},
    ]
    run_ranks(2, jobs, tmp_path, phantoms, cache)
    assert stopped == 3
    assert load_tensors(tmp_path / "two then one" / "checkpoints" / "last.pt")["step"] == 4
    pretrain(None, tmp_path / "two then one", resume=True, cache=cache)
    for name in ("two", "two then one", "one then two"):
        assert_same_run(tmp_path / "one", tmp_path / name)
    assert_same_run(tmp_path / "contrast one", tmp_path / "contrast two")
    check_losses(tmp_path, 2)


def check_losses(folder, ranks):
    """Uneven shares of the rows change neither loss nor gradient."""
    parts = [torch.load(folder / f"losses-{i}.pt", weights_only=True) for i in range(ranks)]
    for name, loss in LOSSES.items():
        a, b = (x.requires_grad_() for x in rows())
        value = loss(a, b)
        value.backward()
        together = torch.cat([part[name][1] for part in sorted(parts, key=lambda p: p["from"])])
        torch.testing.assert_close(together, a.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert all(part[name][0] == pytest.approx(value.item(), rel=1e-5) for part in parts), name


def test_four_ranks_finetune_like_one(phantoms, cache, tmp_path, small_pretrain, small_finetune):
    settings = {"train__batch": 8, "train__steps": 5, "train__validate_every": 5, "regulariser__name": "none"}
    pre = pretrain(phantoms, tmp_path / "pre", small_pretrain(**settings), cache=cache)
    config = small_finetune(train__batch=4, train__steps=5)
    finetune(phantoms, tmp_path / "one", pre, config, cache=cache)
    parts = small_pretrain(**settings, train__micro_batch=1)
    jobs = [
        {"do": "losses"},
        {"do": "finetune", "run": "four", "init": str(pre), "config": as_json(config)},
        {"do": "pretrain", "run": "in parts", "config": as_json(parts)},
    ]
    run_ranks(4, jobs, tmp_path, phantoms, cache)
    assert_same_run(tmp_path / "one", tmp_path / "four")
    # Logged shares of the mask weigh parts by their voxels in the loss.
    shares = ("mask_ratio", "mask_modal", "mask_position", "mask_patch")
    assert_same_run(pre, tmp_path / "in parts", apart=shares)
    assert (tmp_path / "four" / "model").is_dir()
    check_losses(tmp_path, 4)


def test_a_rank_that_is_killed_ends_the_job_and_it_goes_on(phantoms, cache, tmp_path):
    run = tmp_path / "run"
    small = ["--device=cpu", "--set=network.filters=4", "--set=network.blocks=1,1,1", "--set=train.crop=16"]
    steps = ["--steps=400", "--set=train.checkpoint_every=0", "--set=train.validate_every=200"]
    command = ["-m", "emim", "pretrain", str(phantoms), "--out", str(run), "--cache", str(cache)]
    with subprocess.Popen(
        torchrun(2, *command, *small, *steps),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as job:
        wait_for_step(run, 3)
        os.kill(rank_of(job.pid, 1), signal.SIGKILL)
        said = job.communicate(timeout=60)[0]
    assert job.returncode != 0
    assert "Another process of the job has ended" in said and "--resume" in said
    errors = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert any(e["type"] == "error" and "has ended" in e["what"] for e in errors)
    reached = load_tensors(run / "checkpoints" / "last.pt")["step"]
    with pytest.raises(Cancelled):
        pretrain(None, run, resume=True, cache=cache, events=StopAt(reached + 2, run))
    assert load_tensors(run / "checkpoints" / "last.pt")["step"] == reached + 2


def test_a_signal_to_the_job_stops_all_ranks_after_a_checkpoint(phantoms, cache, tmp_path):
    run = tmp_path / "run"
    small = ["--device=cpu", "--set=network.filters=4", "--set=network.blocks=1,1,1", "--set=train.crop=16"]
    steps = ["--steps=400", "--set=train.checkpoint_every=1000", "--set=train.validate_every=200"]
    command = ["-m", "emim", "pretrain", str(phantoms), "--out", str(run), "--cache", str(cache)]
    with subprocess.Popen(
        torchrun(2, *command, *small, *steps), stderr=subprocess.PIPE, text=True, env=environment()
    ) as job:
        wait_for_step(run, 3)
        job.terminate()
        said = job.communicate(timeout=60)[1]
    step = load_tensors(run / "checkpoints" / "last.pt")["step"]
    assert 3 <= step < 400 and f"Stopped at step {step} of 400" in said
    assert "rank 1" not in said, "nothing went wrong there"


def wait_for_step(run, step):
    for _ in range(600):
        events = run / "events.jsonl"
        if events.exists() and f'"done": {step}, "total": 400' in events.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the run did not begin")


def rank_of(launcher, rank):
    """The process that torchrun, itself process ``launcher``, started as ``rank``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(launcher) and f"\0RANK={rank}\0" in (folder / "environ").read_text():
                return int(folder.name)
        except OSError:  # it has ended meanwhile
            continue
    raise AssertionError("no such rank")


def test_ranks_share_the_cases_of_a_cohort(phantoms, cache, tmp_path, small_finetune):
    model = finetune(phantoms, tmp_path / "fine", None, small_finetune(train__steps=1), cache=cache)
    ask = ["segment", "--model", str(model), "--cohort", str(phantoms), "--device=cpu", "--quality=fast"]
    ask += ["--cases=sub-001,sub-002,sub-003"]
    assert main([*ask, "--output", str(tmp_path / "one")]) == 0
    command = torchrun(2, "-m", "emim", *ask, "--output", str(tmp_path / "two"))
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Segmented 3 cases") == 1, "only the first rank speaks"
    names = {p.name for p in (tmp_path / "one").glob("[!.]*")}
    assert names == {p.name for p in (tmp_path / "two").glob("[!.]*")} and "sub-003.nii.gz" in names
    for name in names - {"summary.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    told = [json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "two")]
    assert [c["volumes_ml"] for c in told[0]["cases"]] == [c["volumes_ml"] for c in told[1]["cases"]]
    refused = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert refused.returncode != 0 and refused.stderr.count("error: ") == 1, refused.stderr


# ---- in one process -----------------------------------------------------------------------------


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be a rank of a job, without the others."""

    def become(rank, size):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "size", lambda: size)

    return become


def prepared(phantoms, cache):
    from emim.cohort.scan import scan
    from emim.config import PreprocessConfig

    return build_cache(scan(phantoms).cohort, PreprocessConfig(spacing=(5.0, 5.0, 5.0)), cache)


def test_a_batch_is_its_shares_one_after_the_other(phantoms, cache, small_pretrain, as_rank):
    config = small_pretrain(train__batch=4)
    cases = prepared(phantoms, cache)

    def batches():
        return PretrainBatches(cases, config.train, for_pretraining(), config.mask)

    whole = batches()[3]
    shares = []
    for rank in range(2):
        as_rank(rank, 2)
        shares.append(batches()[3])
        assert all(torch.equal(v, whole[k]) for k, v in batches().samples(3, range(4)).items())
    for name, values in whole.items():
        assert torch.equal(torch.cat([s[name] for s in shares]), values), name
    assert not torch.equal(whole["input"][0], whole["input"][1])


def test_no_sample_shares_its_randomness_with_validation():
    validation = [tuple(step_generator(0, 2**32 + i).integers(0, 2**62, 2)) for i in range(4)]
    samples = [tuple(sample_generator(0, s, i).integers(0, 2**62, 2)) for s in range(8) for i in range(8)]
    steps = [tuple(step_generator(0, s).integers(0, 2**62, 2)) for s in range(8)]
    assert len({*validation, *samples, *steps}) == 4 + 64 + 8


def test_a_batch_that_cannot_be_shared_is_refused(small_pretrain, monkeypatch):
    monkeypatch.setattr(start, "size", lambda: 4)
    check_ranks(small_pretrain(train__batch=8).train)
    with pytest.raises(EmimError, match="train.batch cannot be 6"):
        check_ranks(small_pretrain(train__batch=6).train)
    with pytest.raises(EmimError, match="train.micro_batch"):
        check_ranks(small_pretrain(train__batch=8, train__micro_batch=0).train)


def gradients(config, batch, **settings):
    train = dataclasses.replace(config.train, **settings)
    torch.manual_seed(0)
    model = PretrainModel(4, config)
    steps = Optimisation(model, train, torch.device("cpu"), lambda m, b, s: m(b, s), weigh=model.count_scored)
    values = steps.advance(batch, 50)
    return values, {n: p.grad for n, p in model.named_parameters()}


def test_accumulated_gradients_are_those_of_the_whole_batch(phantoms, cache, small_pretrain):
    config = small_pretrain(train__batch=4, regulariser__name="none", train__steps=100)
    batch = PretrainBatches(prepared(phantoms, cache), config.train, None, config.mask)[0]
    batch["foreground"][0] &= torch.rand(batch["foreground"][0].shape) > 0.9  # unequal weights
    values, whole = gradients(config, batch)
    for micro in (1, 2, 3):
        part_values, parts = gradients(config, batch, micro_batch=micro)
        assert float(part_values["loss"]) == pytest.approx(float(values["loss"]), rel=1e-5)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_gpu_that_is_too_small_gets_smaller_micro_batches(small_pretrain, monkeypatch, told):
    config = small_pretrain(train__batch=8).train
    network = torch.nn.Linear(1, 1)
    computed, room = [], {}

    def compute_loss(model, batch, step):
        computed.append(len(batch["x"]))
        if len(batch["x"]) > room["samples"]:
            raise torch.cuda.OutOfMemoryError
        return model(batch["x"]).mean(), {}

    monkeypatch.setattr(optimisation, "has_own_memory", lambda device: True)
    for samples, wanted in ((8, 8), (3, 2), (1, 1)):
        room["samples"] = samples
        steps = Optimisation(network, config, torch.device("cpu"), compute_loss)
        before = network.weight.clone()
        steps.fit({"x": torch.ones(8, 1)}, 0, told)
        assert steps.micro_batch == wanted and torch.equal(network.weight, before)
        assert network.weight.grad is None
    assert [t.split(" holds ")[1][:6] for t in told.told] == ["2 of 8", "1 of 8"]
    room["samples"] = 0
    with pytest.raises(EmimError, match="does not suffice"):
        Optimisation(network, config, torch.device("cpu"), compute_loss).fit({"x": torch.ones(8, 1)}, 0, told)
    computed.clear()
    room["samples"] = 8
    given = dataclasses.replace(config, micro_batch=4)
    steps = Optimisation(network, given, torch.device("cpu"), compute_loss)
    steps.fit({"x": torch.ones(8, 1)}, 0, told)
    steps.advance({"x": torch.ones(8, 1)}, 0)
    assert computed == [4, 4], "what was asked for is not tried"


def test_a_divergence_is_found_late_but_never_saved(small_pretrain):
    """On a GPU nothing is read in a step; what is wrong shows at the next look."""
    config = small_pretrain().train
    network = torch.nn.Linear(1, 1)
    steps = Optimisation(network, config, torch.device("cpu"), lambda m, b, s: (m(b["x"]).mean(), {}))
    steps.advance({"x": torch.ones(2, 1)}, 0)
    steps.device = torch.device("cuda")  # so that nothing is read
    steps._accumulate = lambda model, batch, step: (torch.tensor(float("nan")), {})
    for step in (7, 8):
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        steps.optimiser.zero_grad = lambda set_to_none: None
        steps.advance({"x": torch.ones(2, 1)}, step)
    with pytest.raises(EmimError, match="at step 7"):
        steps.check()


@pytest.mark.parametrize("overlapping", [True, False])
def test_the_segmentation_loss_is_monais(overlapping):
    torch.manual_seed(0)
    label = torch.rand(3, 2, 6, 6, 6) > 0.7
    if not overlapping:
        label[:, 1] &= ~label[:, 0]
    logits = torch.randn(3, 2 if overlapping else 3, 6, 6, 6)
    target = label.float()
    if overlapping:
        expected = DiceLoss(sigmoid=True, batch=True)(logits, target)
        expected += torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    else:
        target = torch.cat([~label.any(1, keepdim=True), label], 1).float()
        expected = DiceLoss(softmax=True, include_background=False, batch=True)(logits, target)
        expected += torch.nn.functional.cross_entropy(logits, target.argmax(1))
    assert float(SegmentationLoss(overlapping)(logits, label)) == pytest.approx(float(expected), rel=1e-5)


def test_fused_adamw_computes_the_same(small_pretrain):
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        network = torch.nn.Linear(7, 5)
        optimiser = optimisation.make_optimiser(network, small_pretrain().train, {}, fused)
        for step in range(10):
            torch.manual_seed(step)
            optimiser.zero_grad()
            network(torch.randn(3, 7)).square().mean().backward()
            optimiser.step()
        weights.append(network.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
