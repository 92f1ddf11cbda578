"""One side of the comparison of pre-training steps: a process that makes steps whenever a line comes in.

    python pretrain_side.py SIDE SETTINGS     SETTINGS: a JSON file, see pretrain_speed.py

emim, emim-pbt, emim-pbt-whole: the product's own step: its cache, loader, network, optimiser, heap settings.
emim-compiled, emim-channels-last: emim with torch.compile on the network, or with weights channels-last.
monai: the network of ``emim`` as MONAI and PyTorch give it, crops cut from NIfTI files at every step,
    the default allocator, masks and loss of ``emim``.
nnssl: the recipe of nnssl: the same encoder with the whole U-Net decoder, blocks hidden at random in all
    modalities alike, crops from an uncompressed cache (EMIM's), plain PyTorch, the default allocator.

On a GPU all sides use bfloat16 where EMIM does, and EMIM's batches are loaded by processes, as in training.

Each line read from standard input is answered by a line of JSON: the seconds of a step (the mean of
``settings["steps"]``), those spent waiting for its batch, the processor seconds of both, the loss, the peak
of the GPU's memory; the first also has the operations of a step, unless it is compiled.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from emim.cohort.scan import scan
from emim.config import PretrainConfig, override, with_preset
from emim.masking.patterns import draw_mask
from emim.masking.units import to_voxels
from emim.networks.pretrainer import MaskedAutoencoder
from emim.objectives.reconstruction import masked_mean, voxel_error

Step = Callable[[dict[str, torch.Tensor]], float]
NORM = ("instance", {"affine": True})


def main(side: str, settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    device = torch.device(settings["device"])
    config = override(
        with_preset(PretrainConfig(), settings["preset"]), {"preprocess.spacing": (settings["spacing"],) * 3}
    )
    if settings["crop"]:
        config = override(config, {"train.crop": settings["crop"]})
    cohort = scan(settings["cohort"]).cohort
    config = override(config, {"modalities": cohort.modalities})
    make = {"monai": monai, "nnssl": nnssl}.get(side, emim)
    step, batches = make(side, config, cohort, settings, device)
    # Under the counter nothing is compiled, then or later.
    first, count = side != "emim-compiled", settings["steps"]
    for _ in sys.stdin:
        answer, waited = {}, 0.0
        clock, used = time.perf_counter(), time.process_time()
        for _ in range(count):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            if first:
                with FlopCounterMode(display=False) as counter:
                    loss = step(batch)
                answer["operations"] = counter.get_total_flops()
            else:
                loss = step(batch)
            first = False
        loss = float(loss)  # waits for the GPU
        answer["seconds"] = (time.perf_counter() - clock) / count
        answer |= {"processor": (time.process_time() - used) / count, "waited": waited / count, "loss": loss}
        if device.type == "cuda":
            answer["memory"] = torch.cuda.max_memory_allocated(device)
        print(json.dumps(answer), flush=True)


def emim(side, config, cohort, settings, device) -> tuple[Step, Iterator]:
    from emim.machine.heap import keep_large_blocks
    from emim.training.loading import load
    from emim.training.tasks import Pretraining

    keep_large_blocks()
    views = {"emim-pbt": {}, "emim-pbt-whole": {"regulariser.view": "whole"}}
    config = override(config, views.get(side, {"regulariser.name": "none"}))
    task = Pretraining(config, cached(cohort, config, settings), [], device)
    if side == "emim-compiled":
        task.model.network.compile()
    if side == "emim-channels-last":
        task.model.to(memory_format=torch.channels_last_3d)
    optimisation = task.optimisation()
    steps = iter(range(config.train.steps))
    batches = load(task.data, config.train, device)
    return lambda batch: optimisation.advance(batch, next(steps))["loss"], batches


def cached(cohort, config, settings):
    from emim.events import Events
    from emim.volumes.cache import build_cache

    return build_cache(cohort, config.preprocess, Path(settings["cache"]), Events())


def monai(side, config, cohort, settings, device) -> tuple[Step, Iterator]:
    network = PlainNetwork(len(cohort.modalities), config).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.train.learning_rate)

    def step(batch):
        batch = {k: v.to(device) for k, v in batch.items()}
        hidden = to_voxels(batch["kinds"], config.mask.unit) > 0
        with half_precision(device):
            prediction = network(batch["input"], hidden)
        loss = masked_mean(voxel_error(prediction, batch["target"]), hidden & batch["foreground"])
        return descend(optimiser, network, loss)

    return step, monai_batches(config, cohort)


def nnssl(side, config, cohort, settings, device) -> tuple[Step, Iterator]:
    from emim.training.loading import load
    from emim.training.sampling import PretrainBatches

    config = override(config, {"decoder": "deep", "mask.pattern": "random"})
    network = PlainUNet(len(cohort.modalities), config).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.train.learning_rate)
    data = PretrainBatches(cached(cohort, config, settings), config.train, None, config.mask)

    def step(batch):
        batch = {k: v.to(device) for k, v in batch.items()}
        hidden = to_voxels(batch["kinds"], config.mask.unit) > 0
        with half_precision(device):
            prediction = network(torch.where(hidden, 0, batch["input"]))
        return descend(optimiser, network, masked_mean(voxel_error(prediction, batch["target"]), hidden))

    return step, load(data, config.train, device)


def half_precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def descend(optimiser, network: nn.Module, loss: torch.Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return loss.item()


class PlainNetwork(nn.Module):
    """The network of ``emim`` of MONAI's and PyTorch's layers; the same weights give the same result."""

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        torch.manual_seed(config.train.seed)
        ours = MaskedAutoencoder(modalities, config)
        unet = monai_unet(modalities, config)
        self.tokens, self.encoder = ours.tokens, unet.encoder
        self.up_layers = unet.up_layers[: len(ours.up_layers)]
        self.head, self.fine_head = plain(ours.head), nn.ModuleList(plain(h) for h in ours.fine_head)
        self.load_state_dict(ours.state_dict())

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        pyramid = self.encoder(self.tokens(x, hidden))
        y = pyramid[-1]
        for level, skip in zip(self.up_layers, pyramid[-2::-1], strict=False):
            y = level["blocks"](level["upsample"](y) + skip)
        return self.head(y) + self.fine_head[0](pyramid[0])


def plain(readout: nn.Module) -> nn.Module:
    """The readout with PyTorch's own normalisation."""
    readout[0] = nn.InstanceNorm3d(readout[0].num_features, affine=True)
    return readout


class PlainUNet(nn.Module):
    """The segmentation network with one output per modality."""

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        self.unet = monai_unet(modalities, config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unet(x)


def monai_unet(modalities: int, config: PretrainConfig) -> nn.Module:
    from monai.networks.nets.segresnet_ds import SegResNetDS

    n = config.network
    return SegResNetDS(
        3,
        init_filters=n.filters,
        in_channels=modalities,
        out_channels=modalities,
        norm=NORM,
        blocks_down=n.blocks,
    )


def monai_batches(config: PretrainConfig, cohort) -> Iterator:
    """Crops as a MONAI bundle cuts them, file by file at every step; masks are drawn as ``emim`` does."""
    import monai.transforms as mt
    import nibabel as nib
    from monai.data import DataLoader, Dataset

    crop, unit = config.train.crop, config.mask.unit
    transform = mt.Compose(
        [
            mt.LoadImaged("input"),
            mt.EnsureChannelFirstd("input"),
            mt.Orientationd("input", axcodes="RAS", labels=None),
            mt.Spacingd("input", pixdim=config.preprocess.spacing, mode="bilinear"),
            mt.NormalizeIntensityd("input", nonzero=True, channel_wise=True),
            mt.SpatialPadd("input", (crop,) * 3),
            mt.RandSpatialCropd("input", (crop,) * 3, random_size=False),
            mt.RandFlipd("input", prob=0.5, spatial_axis=0),
            mt.CopyItemsd("input", names="target"),
            mt.RandScaleIntensityd("input", 0.1, prob=0.5),
            mt.RandShiftIntensityd("input", 0.1, prob=0.5),
            mt.EnsureTyped(("input", "target"), dtype=torch.float32, track_meta=False),
        ]
    )
    complete = [list(c.images.values()) for c in cohort.cases if len(c.images) == len(cohort.modalities)]
    on_one_grid = [files for files in complete if len({nib.load(f).shape for f in files}) == 1]
    items = [{"input": files} for files in on_one_grid] * config.train.batch  # one batch an epoch, or more
    rng = np.random.default_rng(0)
    grid = (crop // unit,) * 3
    while True:
        for batch in DataLoader(
            Dataset(items, transform), batch_size=config.train.batch, shuffle=True, drop_last=True
        ):
            present = np.ones(len(cohort.modalities), bool)
            kinds = [draw_mask(config.mask, present, grid[0] ** 3, rng) for _ in batch["input"]]
            yield {
                "input": batch["input"],
                "target": batch["target"],
                "foreground": (batch["target"] != 0).any(1, keepdim=True),
                "kinds": torch.from_numpy(np.stack(kinds)).view(len(kinds), -1, *grid),
            }


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
