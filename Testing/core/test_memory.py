"""What memory is free decides how many cases are prepared at a time."""

import subprocess
import sys

import numpy as np
import pytest

from emim.cohort.case import Case
from emim.config import PreprocessConfig
from emim.machine import memory
from emim.volumes import cache
from emim.volumes.grid import Grid
from emim.volumes.preprocess import memory_needed

GIB = 2**30


def test_free_memory_is_a_part_of_all_memory():
    free = memory.free_memory()
    assert free is None or 0 < free <= memory.total_memory(_cpu())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows is asked in another way")
def test_a_mac_which_does_not_say_what_is_free_is_taken_to_be_half_full(monkeypatch):
    monkeypatch.setattr(memory, "_cgroup_limits", lambda: [])
    monkeypatch.setattr("sys.platform", "darwin")
    assert memory.free_memory() == memory.total_memory(_cpu()) // 2


def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_started_it():
    held = np.ones(100 << 20, np.uint8)  # 100 MiB
    program = "from emim.machine.memory import peak_memory; from types import SimpleNamespace as N\n"
    program += "print(peak_memory(N(type='cpu')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 100 << 20 <= held.nbytes


def _cpu():
    import torch

    return torch.device("cpu")


def test_the_tightest_control_group_counts_and_files_that_were_read_do_not(tmp_path):
    (tmp_path / "proc").write_text("4:memory:/old\n0::/job/step\n")
    groups = {"": ("max", 9 * GIB, 0), "job": (str(8 * GIB), 5 * GIB, 2 * GIB), "job/step": ("max", GIB, 0)}
    for name, (limit, used, files) in groups.items():
        folder = tmp_path / "root" / name
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")
    assert memory._cgroup_limits(tmp_path / "proc", tmp_path / "root") == [(8 * GIB, 3 * GIB)]
    assert memory._cgroup_limits(tmp_path / "nothing", tmp_path / "root") == []


@pytest.mark.parametrize(("free", "workers"), [(100 * GIB, 8), (4 * GIB, 2), (GIB // 2, 1), (None, 8)])
def test_no_more_workers_than_memory_is_free_for(monkeypatch, free, workers):
    monkeypatch.setattr(cache, "_processors", lambda: 16)
    monkeypatch.setattr(cache, "free_memory", lambda: free)
    assert cache.default_workers(GIB) == workers
    assert cache.default_workers() == 8


def test_a_case_takes_no_more_memory_than_its_headers_told(tmp_path):
    import SimpleITK as sitk

    grid = Grid((160, 160, 160), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    z, y, x = np.indices(grid.shape)
    inside = (z - 80) ** 2 + (y - 80) ** 2 + (x - 80) ** 2 < 75**2
    noise = np.random.default_rng(0).normal(0, 30, grid.shape)
    image = grid.to_image((np.abs(noise) + 500 * inside).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / "t1.nii"))
    case = Case("a", "a", {"T1": str(tmp_path / "t1.nii")})
    expected = memory_needed(case, ("T1",), PreprocessConfig((1.0, 1.0, 1.0)))
    program = (
        "from pathlib import Path\nimport SimpleITK\nfrom emim.cohort.case import Case\n"
        "from emim.config import PreprocessConfig\nfrom emim.volumes.preprocess import prepare_case\n"
        "status = lambda: Path('/proc/self/status').read_text()\n"
        "peak = lambda: 1024 * int(status().split('VmHWM:')[1].split()[0])\n"
        f"before = peak()\nprepare_case({case!r}, ('T1',), PreprocessConfig((1.0, 1.0, 1.0)))\n"
        "print(peak() - before)"
    )
    if sys.platform != "linux":
        pytest.skip("ru_maxrss has another unit")
    used = int(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    )
    assert 0.4 * expected < used < 1.1 * expected
