"""Validation of pre-training: loss per mask kind, gauges of collapse, a preview to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from emim.config import PretrainConfig
from emim.errors import Cancelled
from emim.events import Events
from emim.machine.memory import is_out_of_memory
from emim.masking.patterns import KINDS, draw_mask
from emim.masking.units import to_voxels
from emim.objectives.collapse_lines import collapse_lines
from emim.objectives.gauges import output_variance
from emim.objectives.reconstruction import masked_mean, measured, normalise_units, voxel_error
from emim.training.feature_gauges import feature_gauges, foreground_rows, one_of_each_subject
from emim.training.pretrain_model import PretrainModel
from emim.training.preview import Reconstruction
from emim.training.sampling import collate, pretrain_sample, random_start, step_generator
from emim.volumes.cache import CachedCase

# Seeds of their own, so that validation never shares masks with a training step.
VALIDATION, GAUGE, LINES, PREVIEW = (2**32 + i for i in range(4))
CROPS_PER_CASE = 2
MAX_CROPS = 24
LINES_CASES = 64
MASKS_PER_SUBJECT = 4
AT_ONCE = 2  # crops: the batch of a training may be that of many GPUs


class PretrainWatch:
    """Measures a :class:`PretrainModel` on fixed crops under fixed masks.

    Args:
        config: settings of the run.
        training, validation: cases.
    """

    def __init__(
        self,
        config: PretrainConfig,
        training: Sequence[CachedCase],
        validation: Sequence[CachedCase],
    ) -> None:
        self.config = config
        self.modalities = tuple(training[0].modalities)
        self.preview_case = (list(validation) or list(training))[0]
        rng = step_generator(config.train.seed, VALIDATION)
        crop = config.train.crop
        self.samples = [
            pretrain_sample(case, random_start(rng, case.shape, crop), crop, config.mask, rng)
            for case in spread_evenly(validation, MAX_CROPS // CROPS_PER_CASE)
            for _ in range(CROPS_PER_CASE)
        ]
        self.gauge_samples = [
            pretrain_sample(
                case,
                [(s - crop) // 2 for s in case.shape],
                crop,
                config.mask,
                step_generator(config.train.seed, GAUGE),
            )
            for case in one_of_each_subject(validation, training)
        ]
        grid = crop // config.mask.unit
        common = draw_mask(
            config.mask,
            np.ones(len(self.modalities), bool),
            grid**3,
            step_generator(config.train.seed, GAUGE),
        )
        for sample in self.gauge_samples:
            sample["kinds"] = torch.from_numpy(common).view(-1, grid, grid, grid)

    @property
    def units(self) -> int:
        """How often :meth:`measure` asks whether to stop."""
        return math.ceil(len(self.samples) / AT_ONCE) + 2 * math.ceil(len(self.gauge_samples) / AT_ONCE)

    def measure(
        self, model: PretrainModel, device: torch.device, should_stop: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """The values of a validation metric event.

        Raises:
            Cancelled: when ``should_stop``, asked before each pass through the network, said so.
        """

        def check() -> None:
            if should_stop is not None and should_stop():
                raise Cancelled

        def batches(samples: list[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
            for i in range(0, len(samples), AT_ONCE):
                check()
                yield {k: v.to(device) for k, v in collate(samples[i : i + AT_ONCE]).items()}

        return {
            **_losses(model, batches(self.samples)),
            **_gauges(model, batches(self.gauge_samples), check),
        }

    def reconstruct(self, model: PretrainModel, device: torch.device) -> Reconstruction:
        """Original and reconstruction of a validation case.

        The case is whole, not a training crop, up to 160 voxels a side; but a training crop for a
        transformer, which has learnt no other distances, and where the GPU holds no more.
        """
        crop = self.config.train.crop
        try:
            return self._reconstruct(
                model, device, 160 if self.config.network.backbone == "resunet" else crop
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        return self._reconstruct(model, device, crop)  # not above: the exception holds tensors

    def _reconstruct(self, model: PretrainModel, device: torch.device, most: int) -> Reconstruction:
        """As :meth:`reconstruct`, of up to ``most`` voxels a side."""
        case, unit = self.preview_case, self.config.mask.unit
        side = int(np.lcm(unit, self.config.network.divisor))
        shape = [max(side, min(s, most) // side * side) for s in case.shape]
        start = [(s - n) // 2 for s, n in zip(case.shape, shape, strict=True)]
        read = case.crop(start, shape)
        grid = [n // unit for n in shape]
        present = np.asarray(case.present)
        rng = step_generator(self.config.train.seed, PREVIEW)
        kinds = draw_mask(self.config.mask, present, int(np.prod(grid)), rng)
        sample = {
            "input": torch.from_numpy(read.image),
            "target": torch.from_numpy(read.image),
            "foreground": torch.from_numpy(read.foreground)[None],
            "present": torch.as_tensor(present),
            "kinds": torch.from_numpy(kinds).view(-1, *grid),
        }
        batch = {k: v.to(device)[None] for k, v in sample.items()}
        result = model.reconstruct(batch)
        hidden = (result["kinds"] > 0)[0] | ~batch["present"][0][:, None, None, None]
        return Reconstruction(
            case.id,
            case.grid.cropped(start, [a + n for a, n in zip(start, shape, strict=True)]),
            self.modalities,
            present,
            original=result["target"][0].float().cpu().numpy(),
            reconstructed=result["prediction"][0].float().cpu().numpy(),
            hidden=hidden.cpu().numpy(),
            foreground=read.foreground,
        )


def cohort_collapse_lines(
    config: PretrainConfig,
    cases: Sequence[CachedCase],
    events: Events,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Collapse lines of the training cases, centred on each other, under masks as in training.

    Each voxel weighs as often as it enters the loss: how often a random crop includes it, times how
    often the masks hide it. One case of each subject is taken, of large cohorts
    :data:`LINES_CASES` in all.

    Raises:
        Cancelled: when ``should_stop``, asked before each case, said so.
    """
    unit = config.mask.unit
    middle = np.median([c.shape for c in cases], axis=0)
    shape = [max(unit, int(np.ceil(s / unit)) * unit) for s in middle]
    # The lines are about people: several examinations of one would tell too low a spread.
    subjects = list({c.subject: c for c in reversed(cases)}.values())[::-1]
    cases = spread_evenly(subjects, LINES_CASES)

    def samples():
        rng = step_generator(config.train.seed, LINES)
        for i, case in enumerate(cases):
            if should_stop is not None and should_stop():
                raise Cancelled("Stopped while computing the collapse lines.")
            events.progress(i, len(cases), "case", "collapse lines")
            start = [(s - n) // 2 for s, n in zip(case.shape, shape, strict=True)]
            read = case.crop(start, shape)
            target = torch.from_numpy(read.image)
            there = measured(target, torch.from_numpy(read.foreground)[None])
            if config.normalise_targets:
                target = normalise_units(target[None], there[None], unit)[0]
            weight = _loss_weight(config, np.asarray(case.present), shape, rng)
            yield target, weight * _inclusion(shape, config.train.crop) * there

    lines = collapse_lines(samples(), unit)
    events.progress(len(cases), len(cases), "case", "collapse lines")
    return lines


def _inclusion(shape: Sequence[int], crop: int) -> torch.Tensor:
    """Chance (Z, Y, X) that a crop placed at random inside ``shape`` includes a voxel."""
    axes = []
    for n in shape:
        at = np.arange(n)
        starts = max(1, n - crop + 1)
        first, last = np.maximum(0, at - crop + 1), np.minimum(at, starts - 1)
        axes.append(torch.from_numpy((last - first + 1) / starts).float())
    return axes[0][:, None, None] * axes[1][:, None] * axes[2]


def _loss_weight(config, present, shape, rng) -> torch.Tensor:
    """How often each voxel (M, Z, Y, X) is hidden over a few masks."""
    grid = [n // config.mask.unit for n in shape]
    if config.mask.pattern == "none":
        return torch.from_numpy(present).float()[:, None, None, None].expand(-1, *shape)
    masks = [draw_mask(config.mask, present, int(np.prod(grid)), rng) > 0 for _ in range(MASKS_PER_SUBJECT)]
    share = torch.from_numpy(np.mean(masks, axis=0)).float().view(-1, *grid)
    return to_voxels(share, config.mask.unit)


def spread_evenly(cases: Sequence[CachedCase], most: int) -> list[CachedCase]:
    """At most so many of the cases, evenly over the list, which is often in the order of sites."""
    if len(cases) <= most:
        return list(cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, most).round().astype(int)]


def _losses(model: PretrainModel, batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float | None]:
    sums = dict.fromkeys(["reconstruction", *KINDS], 0.0)
    counts = dict.fromkeys(sums, 0)
    for batch in batches:
        result = model.reconstruct(batch)
        # Always squared, whatever the loss, because the collapse lines are.
        error = voxel_error(result["prediction"], result["target"], "l2")
        for name in sums:
            where = result["scored"]
            if name in KINDS:
                where = where & (result["kinds"] == KINDS[name])
            if n := int(where.sum()):
                sums[name] += float(masked_mean(error, where)) * n
                counts[name] += n
    return {name: sums[name] / counts[name] if counts[name] else None for name in sums}


def _gauges(
    model: PretrainModel, batches: Iterable[dict[str, torch.Tensor]], check: Callable[[], None]
) -> dict[str, Any]:
    parts: dict[str, list[torch.Tensor]] = {"prediction": [], "target": [], "scored": []}
    levels: list[list[torch.Tensor]] = []
    for batch in batches:
        result = model.reconstruct(batch)
        for name, values in parts.items():
            values.append(result[name].float().cpu() if name != "scored" else result[name].cpu())
        check()
        pyramid = model.network.encode(batch["input"], ~batch["present"])
        levels = levels or [[] for _ in pyramid]
        for rows, features in zip(levels, pyramid, strict=True):
            rows.append(foreground_rows(features.float(), batch["foreground"]).cpu())
    return {
        "output_variance": output_variance(*(torch.cat(parts[k]) for k in parts)),
        **feature_gauges(levels),
    }
