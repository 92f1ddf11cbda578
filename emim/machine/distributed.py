"""The processes of a distributed run: ``torchrun … -m emim pretrain …``.

torchrun starts them and gives each a rank in its environment; within :func:`joined` they know each other,
and outside, or without torchrun, a process is alone: rank 0 of 1. The first rank reads and writes all
files of a run and tells what happens; the others compute.

Two process groups: PyTorch's default one moves tensors (NCCL between GPUs, else gloo). A second one (gloo)
passes decisions and lets ranks wait for the first, which may prepare a cohort for hours, without the
time-out that finds a process stuck within a step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from emim.errors import Cancelled, EmimError

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)  # of ranks for the first one; a process that ends is noticed at once
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")

_control: Any = None  # the second group, while joined
_alone = 0


def launched_rank() -> int:
    """The rank that torchrun gave this process, also before :func:`joined`; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched_size() > 1 else 0


def launched_size() -> int:
    """How many processes torchrun started on all nodes together; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if all(v in os.environ for v in _VARIABLES) else 1


def launched_local_rank() -> int:
    """This process among those that torchrun started on its node, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched_size() > 1 else 0


def launched_local_size() -> int:
    """How many processes torchrun started on this node."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched_size() > 1 else 1


def rank() -> int:
    """This process among those that compute together, from 0."""
    return launched_rank() if _together() else 0


def size() -> int:
    """How many processes compute together."""
    return launched_size() if _together() else 1


def node() -> int:
    """The node of this process among those of the job, from 0."""
    return int(os.environ["GROUP_RANK"]) if _together() else 0


def nodes() -> int:
    """How many nodes compute together."""
    return int(os.environ["GROUP_WORLD_SIZE"]) if _together() else 1


def share(count: int) -> range:
    """Which of ``count`` equal pieces of work, a multiple of :func:`size`, are this rank's."""
    each = count // size()
    return range(rank() * each, (rank() + 1) * each)


def on_ranks() -> str:
    """What a status line says of a distributed run; nothing for one process."""
    return f", on {size()} processes" if size() > 1 else ""


@contextmanager
def joined() -> Iterator[None]:
    """Within, the processes that torchrun started work together; nothing happens without torchrun.

    Raises:
        EmimError: when a process of the job is lost.
    """
    global _control
    if launched_size() == 1 or _control is not None:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        own = not dist.is_initialized()  # a Python program may have done so
        if own:
            dist.init_process_group(backend)
        _control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield
        if own:  # after an error the others may be gone, and would be waited for
            dist.destroy_process_group()
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise EmimError(
            "Another process of the job has ended or cannot be reached; the job ends.",
            hint="Its own message says why, above or in its log. Then go on with --resume, "
            "also with another number of processes.",
        ) from error
    finally:
        _control = None


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process computes without the others."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def on_first_rank(work: Callable[[], T]) -> T:
    """What ``work`` returns on the first rank, on every rank; what it raises is raised everywhere.

    Meanwhile the others wait. The result must be picklable.
    """
    if size() == 1:
        return work()
    import torch.distributed as dist

    result, error = _attempt(work) if rank() == 0 else (None, None)
    told = [(result, _portable(error))]
    dist.broadcast_object_list(told, 0, group=_control)
    if rank() > 0:
        result, error = told[0]
    if error is not None:
        error.everywhere = True
        raise error
    return result


def on_every_rank(work: Callable[[], T]) -> T:
    """What ``work`` returns on this rank, once all ranks have done theirs.

    ``work`` runs without the others. What it raises on any rank is raised everywhere.
    """
    if size() == 1:
        return work()
    result, error = _attempt(work)
    first = next((e for e in gather(_portable(error)) if e is not None), None)
    if first is not None:
        error = error or first
        error.everywhere = isinstance(first, (EmimError, Cancelled))
        raise error
    return result


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order, on every rank."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value, group=_control)
    return values


def on_any_rank(yes: bool) -> bool:
    """Whether any rank says yes; every rank gets the same answer."""
    if size() == 1:
        return yes
    import torch
    import torch.distributed as dist

    answer = torch.tensor(int(yes))
    dist.all_reduce(answer, dist.ReduceOp.MAX, group=_control)
    return bool(answer)


def known_everywhere(error: BaseException) -> bool:
    """Whether every rank raises ``error``, so that it suffices that the first tells it."""
    return getattr(error, "everywhere", False)


def _together() -> bool:
    return _control is not None and not _alone


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        with alone():
            return work(), None
    except Exception as error:
        return None, error
    except KeyboardInterrupt:
        return None, Cancelled("Stopped.")


def _portable(error: Exception | None) -> Exception | None:
    """``error`` as other ranks can get it: not every exception can be pickled."""
    if error is None or isinstance(error, (EmimError, Cancelled)):
        return error
    return EmimError(f"Unexpected failure of rank {launched_rank()}: {type(error).__name__}: {error}")


def _is_lost(error: RuntimeError) -> bool:
    import torch.distributed as dist

    names = ("DistNetworkError", "DistBackendError", "DistStoreError")
    kinds = tuple(getattr(dist, name) for name in names if hasattr(dist, name))
    return isinstance(error, kinds) or "gloo" in str(error)
