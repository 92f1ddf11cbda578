"""How much faster a pre-training step is than in plain MONAI and PyTorch, and than in nnssl's recipe.

Every side is a process of its own, since the settings of the heap are those of a process; it makes a step
when told. In every round each side makes one, in changing order, so that what else the machine does falls on
all alike. What is compared is the ratio within a round; the first round warms up and does not count.

Without arguments: the preset tiny on synthetic heads. ``--preset base --cohort FOLDER`` for the default
network on your own data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measure.machine import machine_line, matrix_peak

from emim.phantom.generate import generate

SIDES = ("emim", "monai", "nnssl", "emim-pbt", "emim-pbt-whole")
VARIANTS = ("emim-compiled", "emim-channels-last")
COMPARED = (
    ("monai", "emim", "MONAI and PyTorch, the same network, / EMIM, hybrid masks"),
    ("nnssl", "emim", "nnssl's recipe / EMIM, hybrid masks"),
    ("emim-pbt", "emim", "EMIM, hybrid masks and Barlow pyramid on half a view / hybrid masks alone"),
    ("emim-pbt-whole", "emim", "EMIM, hybrid masks and Barlow pyramid on a whole view / hybrid masks alone"),
    ("emim", "emim-compiled", "EMIM / EMIM with torch.compile"),
    ("emim", "emim-channels-last", "EMIM / EMIM with weights channels-last"),
)


class Side:
    """A process that makes a step at a time."""

    def __init__(self, name: str, settings: Path) -> None:
        script = Path(__file__).with_name("measure") / "pretrain_side.py"
        command = [sys.executable, str(script), name, str(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} failed")
        return json.loads(line)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", default="tiny")
    p.add_argument("--cohort", help="folder of complete cases")
    p.add_argument("--spacing", type=float, help="mm; of the cohort's files, so that none is resampled")
    p.add_argument("--crop", type=int, help="side of the crop; else the preset's")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--sides", nargs="+", default=SIDES, choices=(*SIDES, *VARIANTS))
    p.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    p.add_argument("--steps", type=int, help="steps of a round; default: 1, on a GPU 20")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    with tempfile.TemporaryDirectory(prefix="emim-pretrain-") as folder:
        work = Path(folder)
        cohort = o.cohort or str(generate(work / "heads", 4, seed=3, labelled=4, spacing=2.5))
        settings = {"preset": o.preset, "cohort": cohort, "cache": str(work / "cache"), "threads": o.threads}
        settings["spacing"] = o.spacing or (1.5 if o.cohort else 2.5)
        settings |= {"crop": o.crop, "device": o.device}
        settings["steps"] = o.steps or (20 if o.device.startswith("cuda") else 1)
        file = work / "settings.json"
        file.write_text(json.dumps(settings))
        print(machine_line(), flush=True)
        measured, peaks = measure([Side(name, file) for name in o.sides], o)
    tell(measured, peaks, o)


def measure(sides: list[Side], o) -> tuple[dict[str, list[dict]], list[float]]:
    names = list(o.sides)
    measured, peaks = {name: [] for name in names}, []
    for turn in range(o.rounds + 1):
        order = [(turn + i) % len(names) for i in range(len(names))]
        for i in order:
            answer = sides[i].step()
            measured[names[i]].append(answer)
            print(f"round {turn} {names[i]}: {answer['seconds']:.3g} s", file=sys.stderr, flush=True)
        peaks.append(matrix_peak(o.device))
    for side in sides:
        side.end()
    return measured, peaks


def tell(measured: dict[str, list[dict]], peaks: list[float], o) -> None:
    crop = f"crop {o.crop}, " if o.crop else ""
    print(f"preset {o.preset}, {crop}{o.threads} threads, {o.rounds} rounds after one to warm up")
    for name, steps in measured.items():
        seconds = statistics.median(s["seconds"] for s in steps[1:])
        processor = statistics.median(s["processor"] for s in steps[1:])
        waited = 100 * statistics.median(s["waited"] / s["seconds"] for s in steps[1:])
        told = f"{seconds:.3g} s a step, {processor:.3g} processor s, {waited:.2f} % waiting for data"
        if "memory" in steps[-1]:
            told += f", {steps[-1]['memory'] / 2**30:.1f} GiB of the GPU"
        print(f"{name}: {told}")
    for theirs, ours, text in COMPARED:
        if theirs in measured and ours in measured:
            wall, used = (ratios(measured[theirs], measured[ours], k) for k in ("seconds", "processor"))
            print(f"{text}: {wall} in time, {used} in processor time")
    if {"monai", "emim"} <= set(measured):
        operations = measured["monai"][0]["operations"]  # of the plain layers: what must be computed
        rate = [operations / s["seconds"] / p for s, p in zip(measured["emim"], peaks, strict=True)][1:]
        share = 100 * statistics.median(rate)
        print(f"{operations / 1e9:.0f} GFLOP a step; EMIM reaches {share:.0f} % of the matrix peak")


def ratios(theirs: list[dict], ours: list[dict], key: str) -> str:
    values = [t[key] / o[key] for t, o in zip(theirs, ours, strict=True)][1:]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
