"""What a pre-training step of the vision transformer costs: tokens left out or kept, with and without Barlow.

A step is the loss of a batch and the gradients of all weights. The arms are models in one process that take
turns; ratios are taken round by round. Processor time is given beside wall time because other work on the
machine does not enter it.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time

import numpy as np
import torch
from measure.machine import machine_line

from emim.config import MaskConfig, NetworkConfig, PretrainConfig, RegulariserConfig, TrainConfig
from emim.machine.heap import keep_large_blocks
from emim.masking.patterns import draw_mask
from emim.training.pretrain_model import PretrainModel

MODALITIES = 4


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--crop", type=int, default=48)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--patch", type=int, default=8)
    p.add_argument("--width", type=int, default=192, help="channels; 64 a head")
    p.add_argument("--depth", type=int, default=6)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    o = p.parse_args()
    keep_large_blocks()
    network = NetworkConfig(
        backbone="vit", patch=o.patch, width=o.width, depth=o.depth, heads=max(1, o.width // 64)
    )
    base = PretrainConfig(
        network=network,
        mask=MaskConfig(unit=o.patch),
        train=TrainConfig(crop=o.crop, batch=o.batch),
    )
    print(machine_line())
    models = {arm: PretrainModel(MODALITIES, dataclasses.replace(base, **ARMS[arm])) for arm in o.arms}
    encoder = sum(p.numel() for p in next(iter(models.values())).network.encoder.parameters())
    print(
        f"crop {o.crop}³, batch {o.batch}, {MODALITIES} modalities, patch {o.patch}, width {o.width}, "
        f"{o.depth} blocks; encoder {encoder / 1e6:.1f} M parameters; {torch.get_num_threads()} threads"
    )
    data = batch(base)
    rounds = []
    for number in range(o.rounds + 1):
        rounds.append({})
        for arm in o.arms if number % 2 else o.arms[::-1]:
            rounds[-1][arm] = step(models[arm], data, number)
        print(
            f"round {number}: {', '.join(f'{a} {w:.2f}' for a, (w, _) in rounds[-1].items())}",
            file=sys.stderr,
        )
    del rounds[0]  # warm-up
    first = o.arms[0]
    print(
        f"| step | wall | processor | wall ÷ {first} | processor ÷ {first} |\n| --- | --- | --- | --- | --- |"
    )
    for arm in o.arms:
        wall, cpu = (statistics.median(r[arm][k] for r in rounds) for k in (0, 1))
        ratios = " | ".join(spread([r[arm][k] / r[first][k] for r in rounds]) for k in (0, 1))
        print(f"| {arm} | {wall:.2f} s | {cpu:.2f} s | {ratios} |")


NONE = RegulariserConfig(name="none")
ARMS = {
    "mae": {"objective": "mae", "regulariser": NONE},
    "mae-deep": {"objective": "mae", "decoder": "deep", "regulariser": NONE},
    "mae-barlow": {"objective": "mae", "regulariser": RegulariserConfig()},
    "mae-barlow-whole": {"objective": "mae", "regulariser": RegulariserConfig(view="whole")},
    "mim": {"objective": "mim", "decoder": "linear", "regulariser": NONE},
    "mim-barlow": {"objective": "mim", "decoder": "linear", "regulariser": RegulariserConfig()},
}


def batch(config: PretrainConfig) -> dict[str, torch.Tensor]:
    """Noise in the shape of a training batch, masked as configured."""
    rng = np.random.default_rng(0)
    side, samples = config.train.crop, config.train.batch
    grid = side // config.mask.unit
    kinds = [draw_mask(config.mask, np.ones(MODALITIES, bool), grid**3, rng) for _ in range(samples)]
    image = torch.randn(samples, MODALITIES, side, side, side)
    return {
        "input": image,
        "target": image,
        "foreground": torch.ones(samples, 1, side, side, side, dtype=torch.bool),
        "present": torch.ones(samples, MODALITIES, dtype=torch.bool),
        "kinds": torch.from_numpy(np.stack(kinds)).view(samples, MODALITIES, grid, grid, grid),
    }


def step(model: PretrainModel, data: dict[str, torch.Tensor], number: int) -> tuple[float, float]:
    """Wall and processor seconds."""
    model.zero_grad(set_to_none=True)
    wall, cpu = time.perf_counter(), time.process_time()
    model(data, number)[0].backward()
    return time.perf_counter() - wall, time.process_time() - cpu


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
