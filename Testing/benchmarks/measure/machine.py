"""What this machine can do at best, measured now, so that a benchmark's numbers can be read elsewhere."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable

import torch


def machine_line() -> str:
    """One line: cores, memory, versions, and the peaks measured at this moment."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}{gpu}, torch {torch.__version__}; "
        f"float32 matrix product {matrix_peak() / 1e9:.0f} GFLOP/s, "
        f"channels-last 3-D convolution {convolution_peak() / 1e9:.0f} GFLOP/s"
    )


def matrix_peak(device: torch.device | str = "cpu") -> float:
    """FLOP/s of a large matrix product: float32, on a GPU bfloat16."""
    gpu = torch.device(device).type == "cuda"
    side, kind = (8192, torch.bfloat16) if gpu else (3072, torch.float32)
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))

    def multiply() -> None:
        a @ b
        if gpu:
            torch.cuda.synchronize(device)

    return 2 * side**3 / _median_time(multiply)


def convolution_peak(channels: int = 64, side: int = 48) -> float:
    """FLOP/s of a large 3 x 3 x 3 float32 convolution on channels-last data."""
    layer = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    layer = layer.to(memory_format=torch.channels_last_3d)
    x = torch.randn(1, channels, side, side, side).to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        return 2 * 27 * channels**2 * side**3 / _median_time(lambda: layer(x))


def _median_time(run: Callable[[], object], repetitions: int = 7) -> float:
    run()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    print(machine_line())
