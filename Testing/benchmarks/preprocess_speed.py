"""How long it takes to prepare a case for training: EMIM's cache against nnU-Net's default preprocessor.

Both read the same compressed files, crop, normalise, resample (nnU-Net: order 3, labels order 1; EMIM:
linear) and write; one case at a time in one process, alternating; wall time and processor time (of all
threads). Then the cohort with as many workers as EMIM takes by itself. Without arguments the cohort is two
synthetic heads of 240 x 240 x 155 voxels with four modalities. nnU-Net takes part where it is installed:
`pip install nnunetv2` in this environment.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure.cohort import open_cohort
from measure.machine import machine_line

from emim.cohort.case import Cohort
from emim.config import PreprocessConfig
from emim.volumes.cache import build_cache, default_workers


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", help="folder or datalist with labels")
    p.add_argument("--spacings", type=float, nargs="+", default=[1.5, 1.0], help="mm (default: 1.5 1)")
    p.add_argument("--pairs", type=int, default=5)
    o = p.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="emim-preprocess-") as folder:
        work = Path(folder)
        cohort = open_cohort(o.cohort, work)
        for spacing in o.spacings:
            compare(cohort, spacing, o.pairs, work)


def compare(cohort: Cohort, spacing: float, pairs: int, work: Path) -> None:
    config = PreprocessConfig((spacing,) * 3)
    theirs = _nnunet(work, cohort, spacing)
    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
    for pair in range(pairs):
        case = cohort.cases[pair % len(cohort.cases)]
        alone = Cohort(cohort.modalities, (case,))
        sides = [(mine, partial(build_cache, alone, config, work / uuid.uuid4().hex, workers=1))]
        sides += [(other, partial(theirs.prepare, case))] if theirs else []
        for times, run in sides if pair % 2 else sides[::-1]:
            times.append(took(run))
    print(f"\nto {spacing:g} mm, {len(cohort.modalities)} modalities, {pairs} pairs")
    for name, times in (("EMIM", mine), ("nnU-Net", other)):
        if times:
            wall, busy = (statistics.median(t[k] for t in times) for k in (0, 1))
            ratios = [[t[k] / m[k] for m, t in zip(mine, times, strict=True)] for k in (0, 1)]
            of_wall, of_busy = (f"{statistics.median(r):.1f} ({min(r):.1f} to {max(r):.1f})" for r in ratios)
            print(f"{name:8s} wall time {wall:6.2f} s, {of_wall} times EMIM's")
            print(f"{'':8s} processor time {busy:6.2f} s, {of_busy} times EMIM's")
    seconds, _ = took(partial(build_cache, cohort, config, work / uuid.uuid4().hex))
    each, workers = seconds / len(cohort.cases), min(default_workers(), len(cohort.cases) - 1)
    print(f"EMIM, {len(cohort.cases)} cases, at most {workers} at a time: {each:.2f} s a case")


def _nnunet(work: Path, cohort: Cohort, spacing: float):
    try:
        from measure.nnunet import NnUNet
    except ImportError as error:
        print(f"nnU-Net is left out ({error}): pip install nnunetv2", file=sys.stderr)
        return None
    return NnUNet(work / f"nnunet-{spacing:g}", cohort.modalities, spacing, 96)


def took(run: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time, s."""
    wall, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - busy


if __name__ == "__main__":
    main()
