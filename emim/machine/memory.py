"""How much memory there is, how much of it is free, and how much this process has needed at most."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory of a GPU, or of the machine for any other device; None where it cannot be told.

    In a container or a job that may have less than the machine, what it may have.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[1]
    if sys.platform == "win32":
        status = _memory_status()
        return status.ullTotalPhys if status else None
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return min([physical, *(limit for limit, _ in _cgroup_limits())])


def free_memory(device: torch.device | None = None) -> int | None:
    """Bytes that can still be taken, on a GPU or, for any other device, without the machine swapping.

    In a container or a job no more than its limit leaves. None where it cannot be told.
    """
    if device is not None and device.type == "cuda":
        import torch

        # What torch holds of it and does not use, it gives out again.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if sys.platform == "win32":
        status = _memory_status()
        return status.ullAvailPhys if status else None
    if sys.platform == "darwin":  # does not say what is free; half of all, as a guess
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # no Linux
        return None
    return min([available, *(max(0, limit - used) for limit, used in _cgroup_limits())])


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that the memory of a GPU does not suffice; Apple's has no error of its own."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held so far, on a GPU by torch, else by the process; None where it cannot be told."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "win32":
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        process = ctypes.c_void_p(ctypes.windll.kernel32.GetCurrentProcess())
        found = ctypes.windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
        return counters.PeakWorkingSetSize if found else None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:  # ru_maxrss of Linux includes what the process that started this one held, such as Slicer
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def _cgroup_limits(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list:
    """(limit, used), bytes, of the control group of this process and those around it that have a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html; files that were read are counted there, but can be
    dropped, so they do not count here.
    """
    try:
        own = next(line[3:] for line in proc.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    found = []
    group = root / own.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            found.append((int(limit), used - int(stat.get("inactive_file", 0))))
    return found


def _memory_status() -> _MemoryStatus | None:
    status = _MemoryStatus(dwLength=ctypes.sizeof(_MemoryStatus))
    return status if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = [
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        ("ullTotalPhys", ctypes.c_uint64),
        ("ullAvailPhys", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    ]


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of Windows."""

    _fields_ = [
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    ]
