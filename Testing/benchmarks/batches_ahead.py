"""What a step waits for its batch with a GPU where threads prepare batches (Windows), not processes.

The GPU is a stand-in: a step keeps the interpreter busy for --host milliseconds, as launching kernels does,
and then waits until --step milliseconds are over, as for a result. Batches are prepared when they are wanted
(0 threads), or ahead by 1, 2 or 4 threads, in turn. Without arguments the cohort is two synthetic heads.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from measure.cohort import open_cohort
from measure.machine import machine_line

from emim.config import MaskConfig, PreprocessConfig, TrainConfig
from emim.training.augmentation import for_finetuning, for_pretraining
from emim.training.loading import load
from emim.training.sampling import Batches, FinetuneBatches, PretrainBatches
from emim.volumes.cache import build_cache

THREADS = (0, 1, 2, 4)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", help="folder or datalist with labels")
    p.add_argument("--spacing", type=float, default=1.0, help="mm (default: 1)")
    p.add_argument("--crop", type=int, default=96, help="voxels along each side (default: 96)")
    p.add_argument("--step", type=float, default=150, help="ms of a step (default: 150)")
    p.add_argument("--host", type=float, default=40, help="of these, ms of the interpreter (default: 40)")
    p.add_argument("--steps", type=int, default=16, help="steps a round (default: 16)")
    p.add_argument("--rounds", type=int, default=5)
    o = p.parse_args()
    print(machine_line())
    torch.set_num_threads(1)  # of each thread that prepares batches; in training they are as many as cores
    train = TrainConfig(crop=o.crop, steps=o.steps)
    with tempfile.TemporaryDirectory(prefix="emim-batches-") as folder:
        cohort = open_cohort(o.cohort, Path(folder))
        cases = build_cache(cohort, PreprocessConfig((o.spacing,) * 3), Path(folder) / "cache")
        labelled = [c for c in cases if c.label_values]
        values = [(v,) for v in sorted({v for c in labelled for v in c.label_values})]
        kinds = {
            "pre-training": PretrainBatches(cases, train, for_pretraining(), MaskConfig()),
            "fine-tuning": FinetuneBatches(labelled, train, for_finetuning(), values, 0.66, 0.3),
        }
        for kind, data in kinds.items():
            rounds = [_round(data, train, o.step / 1e3, o.host / 1e3, turn) for turn in range(o.rounds)]
            print(f"{kind}: step of {o.step:.0f} ms, crop {o.crop}, batch {train.batch}, {o.rounds} rounds")
            for threads in THREADS:
                took = [r[threads] for r in rounds]
                ratios = [r[0] / r[threads] for r in rounds]
                spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                middle = 1e3 * statistics.median(took)
                print(f"  {threads} threads: {middle:5.0f} ms a step, {spread} times as fast as none")


def _round(data: Batches, train: TrainConfig, step: float, host: float, turn: int) -> dict[int, float]:
    """Seconds a step with each number of threads, the first batch not counted."""
    took = {}
    for threads in THREADS[:: 1 if turn % 2 else -1]:
        batches = load(data, dataclasses.replace(train, workers=threads), torch.device("cpu"))
        next(batches)
        begun = time.perf_counter()
        for _ in batches:
            since = time.perf_counter()
            while time.perf_counter() - since < host:
                pass
            time.sleep(max(0.0, step - (time.perf_counter() - since)))
        took[threads] = (time.perf_counter() - begun) / (train.steps - 1)
    return took


if __name__ == "__main__":
    main()
