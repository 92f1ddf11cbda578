"""Choosing the processor that networks run on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from emim.errors import EmimError
from emim.events import Events
from emim.machine.distributed import launched_local_rank, launched_local_size, launched_size

if TYPE_CHECKING:
    import torch


# Versions of cuDNN, 9.8 to before 9.15, that may convolve wrongly in three dimensions; since 2.9 torch does
# without them there, in half precision (PyTorch pull requests 166480 and 167024).
BROKEN_CUDNN = range(90800, 91500)
SPARED = 0.03  # of a GPU's memory on Windows, for what is not torch's


def open_device(name: str = "auto", events: Events | None = None) -> torch.device:
    """The device of :func:`choose_device`, set up and tried, to compute on.

    A GPU may be there and yet not compute: others hold all of it, or the installed torch has no code for it.
    Where none was asked for the CPU takes its place, and a warning tells. A GPU that is named by its number
    stays the current one of the process.

    Raises:
        EmimError: as :func:`choose_device`; when a GPU that was asked for cannot compute.
    """
    import torch

    device = choose_device(name)
    if device.type == "cpu":
        return device
    try:
        if device.type == "cuda":
            _set_up_cuda(device, events)
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        hint = "Close what else uses it, update its driver, or install a torch build that supports it"
        if name != "auto" or launched_size() > 1:
            what = f"The device {str(device)!r} cannot compute: {reason}."
            raise EmimError(what, hint=f"{hint}; or choose the device cpu.") from error
        if events is not None:
            events.warning(f"The GPU cannot compute: {reason}. The CPU does.", hint=f"{hint}.")
        return torch.device("cpu")
    return device


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``: auto, cpu, cuda, cuda:1, mps …; auto takes a CUDA GPU, else
    the CPU: Apple's mps lacks operations that training needs, so it is used only when asked for.

    In a distributed run auto and cuda mean a GPU of its own for each process of a node. A GPU is not touched:
    see :func:`open_device`.

    Raises:
        EmimError: when this machine, or the installed torch, has no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if launched_local_size() > 1 and name.startswith("cuda"):
        name = _own_gpu(name, torch.cuda.device_count())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        hint = "Choose auto, cpu, cuda, cuda:0, cuda:1 … or mps."
        raise EmimError(f"There is no kind of device called {name!r}.", hint=hint) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        hint = "Choose auto or cpu; for a GPU install its driver and a torch build for CUDA."
        raise EmimError(f"The device {name!r} was asked for, but torch finds no NVIDIA GPU.", hint=hint)
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        hint = f"This machine has {torch.cuda.device_count()}: cuda:0 is the first."
        raise EmimError(f"There is no GPU {name!r}.", hint=hint)
    if device.type == "mps" and not torch.backends.mps.is_available():
        hint = "Choose auto or cpu; mps needs a Mac with Apple silicon and macOS 12.3 or later."
        raise EmimError("The device 'mps' was asked for, but is not available.", hint=hint)
    if device.type == "mps" and torch.__version__ < (2, 8):
        hint = "Update torch, or choose auto or cpu."
        raise EmimError(f"The device 'mps' needs torch 2.8 or later, not {torch.__version__}.", hint=hint)
    if device.type not in ("cpu", "cuda", "mps"):
        raise EmimError(f"The device {name!r} is not supported.", hint="Choose auto, cpu, cuda or mps.")
    return device


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """What a network computes in under autocast on ``device``; None where that is float32."""
    import torch

    if device.type != "cuda":
        return None
    # Before compute capability 8, bfloat16 is emulated and slow, though torch calls it supported.
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _set_up_cuda(device: torch.device, events: Events | None) -> None:
    import torch

    if device.index is not None:
        torch.cuda.set_device(device)  # for what asks no tensor where it is, such as pinned memory and NCCL
    if torch.backends.cudnn.version() in BROKEN_CUDNN:
        torch.backends.cudnn.allow_tf32 = False
        if torch.__version__ >= (2, 9) and events is not None:
            what = f"torch {torch.__version__} convolves without cuDNN here, several times slower."
            events.warning(what, hint="Install torch 2.11 or later, or cuDNN 9.15 or later.")
    if sys.platform == "win32":  # its driver lends memory of the machine, far slower, before it says "full"
        free, total = torch.cuda.mem_get_info(device)
        mine = free + torch.cuda.memory_reserved(device)
        torch.cuda.set_per_process_memory_fraction(max(0.1, mine / total - SPARED))


def _own_gpu(name: str, count: int) -> str:
    """The GPU of this process among those of its node."""
    if name != "cuda":
        hint = "Give --device cuda, or start one process."
        raise EmimError(f"{launched_local_size()} processes cannot share the device {name!r}.", hint=hint)
    if count < launched_local_size():
        hint = f"Start as many processes as there are GPUs: --nproc-per-node={count}."
        raise EmimError(
            f"{launched_local_size()} processes were started on a node of {count} GPUs.", hint=hint
        )
    return f"cuda:{launched_local_rank()}"
