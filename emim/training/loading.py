"""Batches prepared ahead of the step that wants them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader

from emim.config import TrainConfig
from emim.errors import EmimError
from emim.machine.distributed import launched_local_size
from emim.training.sampling import Batches

Batch = dict[str, torch.Tensor]


def load(data: Batches, config: TrainConfig, device: torch.device, start: int = 0) -> Iterator[Batch]:
    """The batches of ``data`` from step ``start`` on, in order; for a GPU in pinned memory.

    For a GPU processes prepare them ahead where fork is cheap, which is on Linux, and threads elsewhere. For
    a CPU each batch is prepared when it is wanted, as a thread would only take from the step what it saves
    (measured). ``config.workers`` overrides how many.

    Raises:
        EmimError: when the processes have too little shared memory.
    """
    steps = range(start, config.steps)
    workers = config.workers if config.workers is not None else _workers(device)
    if device.type == "cuda" and sys.platform == "linux":
        batches = DataLoader(
            data,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=True,
            worker_init_fn=_ignore_signals,
        )
        try:
            yield from batches
        except RuntimeError as error:  # torch tells of a process that ended, and of why as the cause
            if "shared memory" not in f"{error} {error.__cause__}":
                raise
            what = "The shared memory (/dev/shm) does not suffice for the processes that prepare batches."
            hint = "Give a container more, such as --shm-size=8g of Docker, or set train.workers=0."
            raise EmimError(what, hint=hint) from error
    elif workers:
        yield from _by_threads(data, steps, workers, device)
    else:
        yield from (data[step] for step in steps)


def _workers(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    share = (os.cpu_count() or 2) // 2 // launched_local_size()
    # Threads share one interpreter with the one that drives the GPU.
    return min(8 if sys.platform == "linux" else 4, max(1, share))


def _by_threads(data: Batches, steps: range, workers: int, device: torch.device) -> Iterator[Batch]:
    """The batches by threads, each of which is at most one batch ahead."""
    mine = threading.local()

    def begin() -> None:
        mine.data = data.for_another_thread()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # pinned memory belongs to the device of its thread

    def prepare(step: int) -> Batch:
        batch = mine.data[step]
        return {k: v.pin_memory() for k, v in batch.items()} if device.type == "cuda" else batch

    pool = ThreadPoolExecutor(workers, "batches", initializer=begin)
    try:
        ahead = deque(pool.submit(prepare, step) for step in steps[:workers])
        for step in steps:
            batch = ahead.popleft().result()
            if step + workers < steps.stop:
                ahead.append(pool.submit(prepare, step + workers))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_signals(worker: int) -> None:
    """A signal to the whole process group must not end the loaders before the checkpoint is written."""
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, signal.SIG_IGN)
