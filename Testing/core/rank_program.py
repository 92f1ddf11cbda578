"""What the ranks of test_distributed.py do: ``torchrun … rank_program.py JOBS FOLDER COHORT CACHE``."""

import json
import sys
from pathlib import Path

import torch

from emim.config import FinetuneConfig, PretrainConfig, from_dict
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.machine.distributed import joined, on_any_rank, on_every_rank, on_first_rank, rank, size
from emim.machine.reduce import max_over_ranks, mean_over_ranks, sum_over_ranks
from emim.objectives.barlow import barlow_loss
from emim.objectives.regulariser import PooledBatchNorm, uniformity_loss, vicreg_loss
from emim.training.finetune import finetune
from emim.training.pretrain import pretrain

ROWS, WIDTH = 23, 5
LOSSES = {
    "barlow": barlow_loss,
    "vicreg": vicreg_loss,
    "uniformity": lambda a, b: uniformity_loss(a),
    "norm": lambda a, b: sum_over_ranks((norm()(a) ** 3 * b).sum()),
}


def norm():
    return PooledBatchNorm(WIDTH)


def rows():
    torch.manual_seed(0)
    return torch.randn(2, ROWS, WIDTH)


class StopAt(Events):
    """Asks the first rank's run to stop at a step."""

    def __init__(self, step, run):
        super().__init__()
        self.step, self.run = step, run

    def progress(self, done, total, unit="step", text=""):
        super().progress(done, total, unit, text)
        if unit == "step" and done == self.step:
            (self.run / "cancel").touch()


def train(job, folder, cohort, cache):
    """Pre-train or fine-tune as ``job`` says; a run that is to stop at a step does."""
    run = folder / job["run"]
    events = StopAt(job["stop"], run) if "stop" in job else None
    kind, work = {
        "pretrain": (PretrainConfig, lambda c, **k: pretrain(None if k["resume"] else cohort, run, c, **k)),
        "finetune": (FinetuneConfig, lambda c, **k: finetune(cohort, run, job.get("init"), c, **k)),
    }[job["do"]]
    config = from_dict(kind, job["config"]) if "config" in job else None
    try:
        work(config, cache=cache, events=events, resume=job.get("resume", False))
    except Cancelled as stop:
        assert f"step {job['stop']} of" in str(stop)


def losses(folder):
    """Gradients by rows of losses whose rows the ranks share unequally: the mean over ranks, as DDP's."""
    cut = [0, 16, *range(17, 17 + size() - 2), ROWS][: size()] + [ROWS]
    mine = slice(cut[rank()], cut[rank() + 1])
    found = {}
    for name, loss in LOSSES.items():
        a, b = (x[mine].clone().requires_grad_() for x in rows())
        value = loss(a, b)
        value.backward()
        found[name] = value.item(), a.grad / size()
    torch.save({"from": cut[rank()], **found}, folder / f"losses-{rank()}.pt")


def decisions():
    """Ranks agree, wait for the first, and share errors."""
    assert on_any_rank(rank() == size() - 1) and not on_any_rank(False)
    assert on_first_rank(lambda: (rank(), size())) == (0, 1), "the first rank works alone"
    assert float(max_over_ranks(torch.tensor(float(rank())))) == size() - 1
    assert float(mean_over_ranks(torch.tensor(2.0 * rank()))) == size() - 1
    for work in (on_first_rank, on_every_rank):
        try:
            work(fail_last if work is on_every_rank else fail)
        except EmimError as error:
            assert (error.what, error.where) == ("It failed.", "there")
        else:
            raise AssertionError("every rank raises")


def fail():
    raise EmimError("It failed.", "there", "Do better.")


def fail_last():
    from emim.machine.distributed import launched_rank, launched_size

    if launched_rank() == launched_size() - 1:
        fail()


if __name__ == "__main__":
    jobs, (folder, cohort, cache) = json.loads(sys.argv[1]), map(Path, sys.argv[2:])
    with joined():
        for job in jobs:
            if job["do"] == "losses":
                losses(folder)
            elif job["do"] == "decisions":
                decisions()
            else:
                train(job, folder, cohort, cache)
