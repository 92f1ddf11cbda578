"""How much faster a training step of the Swin encoder is than that of MONAI's SwinUNETR encoder.

A step is a forward pass and the gradients of all weights. Every arm is a process of its own; the arms take
turns, and ratios are taken round by round. MONAI's arm is what a MONAI user runs: windows of 7 tokens and the
default memory allocator. Others tell apart what the difference is due to: the heap setting alone (ours
without, MONAI's with it).

Processor time is given beside wall time because other work on the machine does not enter it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from measure.machine import machine_line

from emim.machine.heap import keep_large_blocks
from emim.networks.swin import HEAD, PATCH, WINDOW, SwinEncoder

MODALITIES = 4
STAGES = (2, 2, 2, 2)
ARMS = {
    "ours": "EMIM",
    "ours-default-allocator": "EMIM, default allocator",
    "monai": f"MONAI, windows of {WINDOW}",
    "monai-heap": "MONAI, large blocks kept in the heap",
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--crop", type=int, default=64)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--filters", type=int, default=48)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument(
        "--steps", type=int, default=2, help="measured steps of each process, after one not measured"
    )
    p.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.arm:
        print(json.dumps(measure(o)))
        return
    print(machine_line())
    print(f"crop {o.crop}³, batch {o.batch}, filters {o.filters}, {MODALITIES} modalities")
    size = ["--crop", str(o.crop), "--batch", str(o.batch), "--filters", str(o.filters)]
    rounds = []
    for number in range(o.rounds):
        order = list(ARMS)
        rounds.append({})
        for arm in order if number % 2 else order[::-1]:
            command = [sys.executable, __file__, "--arm", arm, "--steps", str(o.steps), *size]
            rounds[-1][arm] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"round {number + 1}, {arm}: {rounds[-1][arm]['wall']:.2f} s", file=sys.stderr)
    print("| arm | step, wall | step, processor | peak memory | wall: MONAI ÷ arm | processor: MONAI ÷ arm |")
    print("| --- | --- | --- | --- | --- | --- |")
    for arm, what in ARMS.items():
        wall, cpu, memory = (statistics.median(r[arm][k] for r in rounds) for k in ("wall", "cpu", "memory"))
        ratios = " | ".join(spread([r["monai"][k] / r[arm][k] for r in rounds]) for k in ("wall", "cpu"))
        print(f"| {what} | {wall:.2f} s | {cpu:.2f} s | {memory / 2**30:.1f} GiB | {ratios} |")


def measure(o: argparse.Namespace) -> dict[str, float]:
    if o.arm in ("ours", "monai-heap"):
        keep_large_blocks()
    torch.manual_seed(0)
    if o.arm.startswith("ours"):
        network = SwinEncoder(MODALITIES, o.filters, STAGES)
    else:
        network = monai_encoder(o.filters)
    x = torch.randn(o.batch, MODALITIES, o.crop, o.crop, o.crop)
    wall, cpu = [], []
    for _ in range(1 + o.steps):
        start = time.perf_counter(), time.process_time()
        sum(level.square().mean() for level in network(x)).backward()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
        network.zero_grad()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"wall": statistics.median(wall[1:]), "cpu": statistics.median(cpu[1:]), "memory": memory}


def monai_encoder(filters: int) -> torch.nn.Module:
    from monai.networks.nets import swin_unetr

    # MONAI moves the channels with einops, which may be missing here.
    swin_unetr.rearrange = lambda x, pattern: x.movedim(1, -1) if pattern.endswith("c") else x.movedim(-1, 1)
    heads = [filters // HEAD * 2**i for i in range(len(STAGES))]
    return swin_unetr.SwinTransformer(
        MODALITIES, filters, (WINDOW,) * 3, (PATCH,) * 3, STAGES, heads, downsample="mergingv2"
    )


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


if __name__ == "__main__":
    main()
