"""How much faster `emim segment` is than the same network applied as a MONAI or nnU-Net user would apply it.

Both sides are whole processes, from files to a file, alternating. Without arguments the case is a
synthetic head at 1 mm in a field of 240 x 240 x 155 voxels with four modalities, and the model a small one
trained on synthetic heads first; with --model and --case (a folder with one file per modality) it is yours.
--network base times the default network instead, whose weights are then random: its labels mean nothing.
nnU-Net takes part where it is installed (pip install nnunetv2).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from measure.machine import machine_line, matrix_peak
from measure.pairs import alternate, ratio
from torch.utils.flop_counter import FlopCounterMode

from emim.cohort.case import Case
from emim.cohort.patterns import match_modality
from emim.config import FinetuneConfig, PreprocessConfig, Structure, with_preset
from emim.inference.quality import QUALITIES
from emim.inference.sliding import count_tiles
from emim.networks.build import build_segmenter
from emim.package.bundle import read_package, write_package
from emim.package.model import ModelCard
from emim.package.network import build_network
from emim.volumes.preprocess import prepare_case

FIELD = (240, 240, 155)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="model package or fine-tuning run")
    p.add_argument("--case", help="folder with one image per modality of the model")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--quality", default="balanced", choices=("fast", "balanced", "best"))
    p.add_argument("--against", default="monai", choices=("monai", "nnunet"))
    p.add_argument("--tiles", type=int, default=1, help="tiles at once on MONAI's side (sw_batch_size)")
    p.add_argument("--network", choices=("base", "large"), help="time this preset with random weights")
    o = p.parse_args()
    if o.against == "nnunet" and not find_spec("nnunetv2"):
        raise SystemExit("nnU-Net is not installed: pip install nnunetv2")
    with tempfile.TemporaryDirectory(prefix="emim-speed-") as folder:
        work = Path(folder)
        if o.network:
            model = random_model(work, o.network)
        elif o.model:
            model = Path(o.model)
        else:
            model = train(work)
        model = model / "model" if (model / "model").is_dir() else model
        card = read_package(model).card
        files = images(Path(o.case) if o.case else head(work), card)
        inputs = [f"{m}={f}" for m, f in files.items()]
        mine, other = str(work / "ours.nii.gz"), str(work / "theirs.nii.gz")
        ours = [sys.executable, "-m", "emim", "segment", "--model", str(model), "--output", mine]
        ours += ["--overwrite", "--quality", o.quality, "--device", "cpu"]
        ours += [a for i in inputs for a in ("--input", i)]
        theirs = [sys.executable, "-m", f"measure.segment_{o.against}", str(model), other, "0.5"]
        theirs += [str(o.tiles)] * (o.against == "monai") + inputs
        print(machine_line())
        a, b = alternate(ours, theirs, o.pairs, cwd=Path(__file__).parent)
        middle, low, high = ratio(a, b)
        print(f"network: {card.network.essence}, tile {card.crop}, spacing {card.preprocess.spacing}")
        print(f"emim segment --quality {o.quality}: median {a.median_seconds:.1f} s, {gib(a.median_memory)}")
        print(f"{o.against}:  median {b.median_seconds:.1f} s, {gib(b.median_memory)}")
        print(f"faster by {middle:.1f} times ({low:.1f} to {high:.1f}) over {o.pairs} pairs")
        print(f"memory: {a.median_memory / b.median_memory:.2f} of theirs")
        print(f"equal labels inside the body: {100 * agreement(mine, other, files):.3f} %")
        tiles, each = arithmetic(card, files, o.quality)
        rate = tiles * each / a.median_seconds
        print(
            f"{tiles} tiles of {each / 1e9:.0f} GFLOP: {rate / 1e9:.0f} GFLOP/s over the whole process, "
            f"{100 * rate / matrix_peak():.0f} % of the matrix product just now"
        )


def random_model(work: Path, preset: str) -> Path:
    """A package of a preset's network with fresh weights: its time is that of a trained one."""
    plan = with_preset(FinetuneConfig(), preset)
    card = ModelCard(
        name=preset,
        modalities=("T1", "T1ce", "T2", "FLAIR"),
        structures=tuple(Structure(n, (i,), i, (255, 0, 0)) for i, n in enumerate(("A", "B", "C"), 1)),
        overlapping=False,
        preprocess=PreprocessConfig(spacing=(1, 1, 1)),
        network=plan.network,
        crop=plan.train.crop,
    )
    torch.manual_seed(0)
    state = build_segmenter(len(card.modalities), card.outputs, card.network).state_dict()
    return write_package(work / "model", card, state)


def train(work: Path, spacing: float = 1, crop: int = 96, steps: int = 150) -> Path:
    """A small model of synthetic heads, with this voxel in mm: enough for labels that mean something."""
    emim = [sys.executable, "-m", "emim"]
    heads, run = str(work / "heads"), str(work / "run")
    subprocess.run(
        [*emim, "phantom", "--out", heads, "--subjects", "12", "--labelled", "12", "--spacing", "2"],
        check=True,
    )
    command = [*emim, "finetune", heads, "--init", "none", "--out", run, "--preset", "tiny"]
    command += ["--steps", str(steps), "--set", f"train.validate_every={steps}"]
    command += ["--set", f"train.crop={crop}", "--set", "train.batch=1"]
    command += ["--spacing", f"{spacing},{spacing},{spacing}"]
    command += ["--structure", "WT=1,2,3", "--structure", "TC=1,3", "--structure", "ET=3"]
    subprocess.run([*command, "--cache", str(work / "cache")], check=True)
    return Path(run) / "model"


def head(work: Path) -> Path:
    """A synthetic head at 1 mm in the field of view of the BraTS data."""
    folder = work / "case"
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(folder), "--subjects", "1"]
    subprocess.run([*command, "--labelled", "1", "--spacing", "1", "--seed", "3"], check=True)
    for file in (folder / "sub-001").glob("*.nii.gz"):
        image = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
        missing = np.array(FIELD) - image.GetSize()
        image = sitk.ConstantPad(
            image, *([int(n) for n in np.maximum(m, 0)] for m in (missing // 2, -(-missing // 2)))
        )
        surplus = np.array(image.GetSize()) - FIELD
        image = sitk.Crop(image, [int(n) for n in surplus // 2], [int(n) for n in surplus - surplus // 2])
        sitk.WriteImage(image, str(file), useCompression=True)
    return folder / "sub-001"


def images(case: Path, card) -> dict[str, str]:
    found = {match_modality(f.name): str(f) for f in sorted(case.iterdir()) if "seg" not in f.name}
    return {m: found[m] for m in card.modalities}


def arithmetic(card: ModelCard, files: dict[str, str], quality: str) -> tuple[int, float]:
    """Tiles of a case, and the operations of the network's layers for each."""
    effort = QUALITIES[quality]
    prepared = prepare_case(Case("case", "case", files, None), card.modalities, card.preprocess)
    side = card.crop
    with torch.device("meta"):
        network, tile = build_network(card).eval(), torch.zeros(1, len(card.modalities), side, side, side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(tile)
    times = 2 if effort.mirror and card.mirrored else 1
    return count_tiles(prepared.foreground, side, effort.overlap), times * counter.get_total_flops()


def agreement(first: str, second: str, files: dict[str, str]) -> float:
    """Share of the body's voxels (not 0 in any modality) that both label maps give the same label."""
    a, b = (sitk.GetArrayFromImage(sitk.ReadImage(f)) for f in (first, second))
    body = np.any([sitk.GetArrayFromImage(sitk.ReadImage(f)) > 0 for f in files.values()], axis=0)
    return float((a == b)[body].mean())


def gib(memory: float) -> str:
    return f"{memory / 2**30:.2f} GiB at most"


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
