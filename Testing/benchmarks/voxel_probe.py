"""What frozen features of pre-trained encoders tell of each voxel, beside random weights and intensities.

A logistic regression for each structure reads the pyramid, raised to the voxels of the crop, in cases with
labels; its Dice is over the voxels of all test cases together. It asks what is in the features, not how fast
a network learns from them. Without arguments: synthetic heads and a short pre-training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measure.machine import machine_line

from emim.cohort.scan import scan
from emim.networks.build import build_segmenter
from emim.networks.transfer import transfer
from emim.training.source import Source, read_source
from emim.training.split import read_split
from emim.training.structures import parse_structures
from emim.volumes.cache import build_cache
from emim.volumes.cached_case import CachedCase

REGIONS = ["WT=1,2,3", "TC=1,3", "ET=3"]
CROPS = 8  # of each case
VOXELS = 1000  # of each crop
SIDES = (3, 7, 15)  # of the boxes whose means stand beside a voxel's intensities

Features = Callable[[torch.Tensor], list[torch.Tensor]]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--runs", nargs="+", help="pre-training runs of one residual U-Net; name=folder joins seeds"
    )
    p.add_argument("--cohort", help="labelled cases")
    p.add_argument("--split", help="split file that names the test cases")
    p.add_argument(
        "--structure", action="append", help=f"as in emim finetune; {' '.join(REGIONS)} if left out"
    )
    p.add_argument("--cases", type=int, default=8, help="labelled cases to learn from")
    o = p.parse_args()
    if len({bool(o.runs), bool(o.cohort), bool(o.split)}) > 1:
        p.error("--runs, --cohort and --split go together")
    with tempfile.TemporaryDirectory(prefix="emim-probe-") as folder:
        work = Path(folder)
        runs, cohort, split = (o.runs, o.cohort, o.split) if o.runs else phantoms(work)
        print(machine_line())
        probe(runs, cohort, split, o.structure or REGIONS, o.cases, work / "cache")


def probe(
    runs: Sequence[str], cohort: str, split: str, regions: Sequence[str], count: int, cache: Path
) -> None:
    named: dict[str, list[Source]] = {}
    for run in runs:
        name, _, folder = run.rpartition("=")
        named.setdefault(name or Path(folder).name, []).append(read_source(folder))
    plan = next(iter(named.values()))[0]
    values = [s.values for s in parse_structures(list(regions))[0]]
    found = scan(cohort).cohort.with_modalities(plan.modalities)
    labelled = [c.id for c in found.labelled()]
    test = [i for i in labelled if i in read_split(split).get("exclude", ())]
    training = [i for i in labelled if i not in test][:count]
    if not training or not test:
        raise SystemExit("Labelled cases are needed in the test set of the split and outside of it.")
    rng = np.random.default_rng(0)
    parts = []
    for ids in (training, test):
        cases = build_cache(found.select(ids), plan.preprocess, cache)
        parts.append([sample(case, plan.crop, values, rng) for case in cases for _ in range(CROPS)])

    def score(features: Features) -> list[float]:
        read = [torch.cat([at_voxels(features, x, at) for x, at, _ in part]) for part in parts]
        return dice(*read, *(torch.cat([y for *_, y in part]) for part in parts))

    print(f"{len(training)} cases to learn from, {len(test)} to test; mean Dice of {', '.join(regions)}\n")
    print("| features | all levels | level by level, finest first | all levels, by seed |")
    print("| --- | --- | --- | --- |")
    print(f"| intensities | {statistics.mean(score(lambda x: [x])):.3f} | | |")
    print(f"| intensities and means around | {statistics.mean(score(with_means)):.3f} | | |", flush=True)
    seeds = max(len(sources) for sources in named.values())
    for name, sources in {"random weights": [None] * seeds, **named}.items():
        rows = []
        for seed, source in enumerate(sources):
            pyramid, levels = encoder(plan, source, seed), len(plan.network.widths)
            choices = [slice(None), *(slice(i, i + 1) for i in range(levels))]
            rows.append([statistics.mean(score(lambda x, c=c, p=pyramid: p(x)[c])) for c in choices])
        means = [f"{statistics.mean(column):.3f}" for column in zip(*rows, strict=True)]
        by_seed = ", ".join(f"{row[0]:.3f}" for row in rows)
        print(f"| {name} | **{means[0]}** | {', '.join(means[1:])} | {by_seed} |", flush=True)


def phantoms(work: Path) -> tuple[list[str], str, str]:
    """A short pre-training on synthetic heads, eight of them with labels, four of which are for testing."""
    emim, heads, split = [sys.executable, "-m", "emim"], str(work / "heads"), work / "split.json"
    command = [*emim, "phantom", "--out", heads, "--subjects", "16", "--labelled", "8", "--spacing", "5"]
    subprocess.run(command, check=True)
    split.write_text(json.dumps({"test": [c.id for c in scan(heads).cohort.labelled()][:4]}))
    command = [*emim, "pretrain", heads, "--out", str(work / "run"), "--preset", "tiny", "--steps", "100"]
    command += ["--set", "train.crop=32", "--set", "network.filters=8", "--set", "mask.unit=8"]
    command += ["--spacing", "5,5,5", "--split", str(split), "--cache", str(work / "cache")]
    subprocess.run(command, check=True)
    return [f"pre-trained={work / 'run'}"], heads, str(split)


def sample(
    case: CachedCase, side: int, structures: Sequence[Sequence[int]], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A crop (1, M, side, side, side), indices of some of its foreground voxels (n,), their labels (n, K)."""
    while True:
        crop = case.crop([int(rng.integers(0, max(1, s - side + 1))) for s in case.shape], (side,) * 3)
        inside = np.flatnonzero(crop.foreground)
        if inside.size:
            break
    at = rng.permutation(inside)[:VOXELS]
    labels = np.stack([np.isin(crop.label.reshape(-1)[at], values) for values in structures], 1)
    return torch.from_numpy(crop.image)[None], torch.from_numpy(at), torch.from_numpy(labels)


def encoder(plan: Source, source: Source | None, seed: int) -> Features:
    """The pyramid of a crop; of fresh weights where there is no ``source``."""
    torch.manual_seed(seed)
    network = build_segmenter(len(plan.modalities), 1, plan.network).eval()
    if source is not None:
        if source.network.essence != plan.network.essence:
            raise SystemExit(f"{source.name} has another network than {plan.name}.")
        transfer(source.load_state(), network, source.modalities, plan.modalities, source.name)
    present = torch.ones(1, len(plan.modalities), dtype=torch.bool)
    return lambda x: network.pyramid(x, present)


def with_means(x: torch.Tensor) -> list[torch.Tensor]:
    return [x, *(F.avg_pool3d(x, n, 1, n // 2, count_include_pad=False) for n in SIDES)]


@torch.no_grad()
def at_voxels(features: Features, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Features (n, C) of the voxels ``at``, all levels raised to the crop's voxels."""
    levels = [F.interpolate(f, size=x.shape[2:], mode="trilinear") for f in features(x)]
    return torch.cat([f.flatten(2)[0, :, at] for f in levels]).T


def dice(x: torch.Tensor, x_test: torch.Tensor, y: torch.Tensor, y_test: torch.Tensor) -> list[float]:
    """Dice of each column of boolean ``y_test``; regression and thresholds are fitted to ``x`` and ``y``."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_test = ((F.pad((part - mean) / std, (0, 1), value=1.0)) for part in (x, x_test))
    weights = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = (
            F.binary_cross_entropy_with_logits(x @ weights, y.float()) + 5e-4 * weights[:-1].square().sum()
        )
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        known, asked = x @ weights, x_test @ weights
    found = []
    for k in range(y.shape[1]):
        thresholds = np.quantile(known[:, k].numpy(), np.linspace(0.5, 0.998, 80))
        best = max(thresholds, key=lambda t, k=k: overlap(known[:, k] > t, y[:, k]))
        found.append(overlap(asked[:, k] > best, y_test[:, k]))
    return found


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp(min=1))


if __name__ == "__main__":
    main()
