"""Batches are the same whoever prepares them, come in order, and no further ahead than said."""

import threading
import time

import numpy as np
import pytest
import torch

from emim.config import MaskConfig, PreprocessConfig, TrainConfig
from emim.errors import EmimError
from emim.events import Events
from emim.training.augmentation import for_finetuning, for_pretraining
from emim.training.loading import load
from emim.training.sampling import FinetuneBatches, PretrainBatches

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cases(phantoms, cache):
    from emim.cohort.scan import scan
    from emim.volumes.cache import build_cache

    cohort = scan(phantoms).cohort
    return build_cache(cohort, PreprocessConfig(spacing=(5.0, 5.0, 5.0)), cache, Events())


class Recorded:
    """Batches that take a moment and say who prepared which, and what was begun."""

    def __init__(self, fails_at=None):
        self.begun, self.threads, self.fails_at, self.copies = [], set(), fails_at, 0

    def for_another_thread(self):
        self.copies += 1
        return self

    def __getitem__(self, step):
        self.begun.append(step)
        self.threads.add(threading.current_thread())
        time.sleep(0.005 * (step % 3))
        if step == self.fails_at:
            raise OSError(f"no file for step {step}")
        return {"input": torch.tensor(step)}


@pytest.mark.parametrize("kind", ["pre-training", "fine-tuning"])
def test_threads_prepare_the_same_batches(cases, kind):
    train = TrainConfig(steps=12, crop=16, batch=2)
    if kind == "pre-training":
        data = PretrainBatches(cases, train, for_pretraining(), MaskConfig(unit=8))
    else:
        labelled = [c for c in cases if c.label_values]
        data = FinetuneBatches(labelled, train, for_finetuning(), [(1, 2, 3)], 0.5, 0.3)
    wanted = [data[step] for step in range(12)]
    for workers in (0, 1, 3):
        batches = list(load(data, TrainConfig(steps=12, crop=16, batch=2, workers=workers), CPU))
        assert len(batches) == 12
        for batch, expected in zip(batches, wanted, strict=True):
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[k], expected[k]) for k in batch)
    assert not np.array_equal(wanted[0]["input"], wanted[1]["input"])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_in_order_from_any_step(workers):
    data = Recorded()
    batches = load(data, TrainConfig(steps=20, workers=workers), CPU, start=4)
    assert [int(b["input"]) for b in batches] == list(range(4, 20))
    assert sorted(data.begun) == list(range(4, 20))
    assert data.copies == (len(data.threads) if workers else 0)
    assert (threading.main_thread() in data.threads) == (workers == 0)


def test_a_resumed_run_that_was_finished_loads_nothing():
    data = Recorded()
    assert list(load(data, TrainConfig(steps=20), CPU, start=20)) == []
    assert data.begun == []


def test_each_thread_is_one_batch_ahead_and_ends_with_the_loop():
    data = Recorded()
    batches = load(data, TrainConfig(steps=100, workers=2), CPU)
    next(batches)
    while len(data.begun) < 3:
        time.sleep(0.01)
    time.sleep(0.1)
    assert sorted(data.begun) == [0, 1, 2]
    batches.close()
    assert not any(t.is_alive() for t in data.threads)
    assert len(data.begun) == 3


def test_a_batch_that_cannot_be_made_ends_the_loop_at_its_step():
    data = Recorded(fails_at=3)
    seen = []
    with pytest.raises(OSError, match="step 3"):
        for batch in load(data, TrainConfig(steps=10, workers=2), CPU):
            seen.append(int(batch["input"]))
    assert seen == [0, 1, 2]
    assert not any(t.is_alive() for t in data.threads)


@pytest.mark.parametrize("as_cause", [False, True])
def test_too_little_shared_memory_is_told_as_such(monkeypatch, as_cause):
    def batches(*arguments, **settings):
        yield {"input": torch.tensor(0)}
        why = RuntimeError("DataLoader worker is killed by signal: Bus error. … out of shared memory. …")
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly") from why if as_cause else why

    monkeypatch.setattr("emim.training.loading.DataLoader", batches)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(EmimError, match="shared memory") as caught:
        list(load(Recorded(), TrainConfig(steps=4, workers=2), torch.device("cuda", 0)))
    assert "--shm-size" in caught.value.hint and "train.workers=0" in caught.value.hint
