"""How long a training crop takes: EMIM's cache, nnU-Net's Blosc2 files, MONAI's PersistentDataset, MONAI from
files, in turn on the same cases.

Warm: the files are in the page cache. Cold: they were dropped from it just before (EMIM and nnU-Net; the disk
decides then). Without arguments the cohort is two synthetic heads of 240 x 240 x 155 voxels with four
modalities. nnU-Net takes part where it is installed: `pip install nnunetv2` in this environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from measure.cohort import open_cohort
from measure.machine import machine_line
from measure.monai_loading import MonaiLoading

from emim.config import PreprocessConfig
from emim.volumes.cache import CachedCase, build_cache


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", help="folder or datalist with labels")
    p.add_argument("--spacing", type=float, default=1.0, help="mm (default: 1)")
    p.add_argument("--crop", type=int, default=96, help="voxels along each side (default: 96)")
    p.add_argument("--rounds", type=int, default=15)
    o = p.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="emim-data-path-") as folder:
        work = Path(folder)
        cohort = open_cohort(o.cohort, work)
        cases = build_cache(cohort, PreprocessConfig((o.spacing,) * 3), work / "cache")
        nnunet = _nnunet(work, cohort, o.spacing, o.crop)
        monai = MonaiLoading(cohort, o.spacing, o.crop, work / "persistent")
        rng = np.random.default_rng(0)
        times: dict[str, list[float]] = {}
        for turn in range(o.rounds):
            n, where = int(rng.integers(len(cases))), rng.random(3)
            start = [round(w * max(0, s - o.crop)) for w, s in zip(where, cases[n].shape, strict=True)]
            for name, took in _cached(cases[n], start, o.crop, nnunet, where, turn % 2).items():
                times.setdefault(name, []).append(took)
            times.setdefault("MONAI PersistentDataset, warm", []).append(
                seconds(partial(monai.persistent, n))
            )
            if turn < max(3, o.rounds // 3):  # a second each
                times.setdefault("MONAI from files, warm", []).append(seconds(partial(monai.from_files, n)))
    print(
        f"{len(cases)} cases of {cases[0].shape} voxels, {len(cases[0].modalities)} modalities; crop {o.crop}"
    )
    for name in sorted(times, key=lambda name: (name.endswith("cold"), statistics.median(times[name]))):
        ours = times["EMIM, cold" if name.endswith("cold") else "EMIM, warm"]
        ratios = [theirs / mine for mine, theirs in zip(ours, times[name], strict=False)]
        middle, fastest = 1e3 * statistics.median(times[name]), 1e3 * min(times[name])
        text = (
            f"median {middle:8.1f} ms (fastest {fastest:8.1f}), {statistics.median(ratios):6.1f} times EMIM's"
        )
        print(f"{name:30s} {text}")


def _cached(case: CachedCase, start: list[int], crop: int, nnunet, where: np.ndarray, first: int) -> dict:
    """Seconds that a crop takes from EMIM's and nnU-Net's prepared files, cold, then warm."""
    sides: dict[str, tuple[Callable[[], object], list[Path]]] = {
        "EMIM": (partial(case.crop, start, (crop,) * 3), list(case.folder.iterdir()))
    }
    if nnunet:
        sides["nnU-Net Blosc2"] = (partial(nnunet.crop, case.id, where), nnunet.files(case.id))
    order = list(sides.items())[:: 1 if first else -1]
    took = {}
    for name, (read, files) in order:
        drop(files)
        took[f"{name}, cold"] = seconds(read)
    for name, (read, _) in order:
        read()
        took[f"{name}, warm"] = seconds(read)
    return took


def _nnunet(work: Path, cohort, spacing: float, crop: int):
    try:
        from measure.nnunet import NnUNet
    except ImportError as error:
        print(f"nnU-Net is left out ({error}): pip install nnunetv2", file=sys.stderr)
        return None
    nnunet = NnUNet(work / "nnunet", cohort.modalities, spacing, crop)
    for case in cohort.cases:
        nnunet.prepare(case)
    return nnunet


def drop(files: Iterable[Path]) -> None:
    """Take files out of the page cache (Linux)."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
