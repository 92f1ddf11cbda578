"""Weights from a pre-training run or a model package into another network, with a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from emim.errors import EmimError

# The decoder, where pre-training has one, starts anew: the residual U-Net's, carried over, was worse on
# synthetic heads and no better on real ones (Testing/benchmarks/STUDIES.md, section 13).
FOR_PRETRAINING = ("head.", "fine_head.", "up_layers.")


@dataclass
class TransferReport:
    """What became of every tensor.

    Attributes:
        source: where the weights came from.
        loaded: names of tensors taken as they were.
        adapted: (name, how) of tensors that were rearranged by modality.
        new: names of tensors of the target that start at random.
        left_out: (name, why) of tensors of the source that were not used.
        rates: learning rate of tensors that are smaller than fresh ones, as a share of that of the others.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    adapted: list[tuple[str, str]] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A few lines for a person."""
        lines = [f"Weights from {self.source}:", f"  loaded unchanged: {len(self.loaded)} tensors"]
        lines += [f"  adapted: {name}: {how}" for name, how in self.adapted]
        if self.rates:
            least = min(self.rates.values())
            lines.append(
                f"  smaller than fresh ones, and learning in proportion: {len(self.rates)} tensors, "
                f"at 1/{1 / least:.0f} of the rate or more"
            )
        lines += [f"  new, at random: {', '.join(_groups(self.new))}"] if self.new else []
        reasons: dict[str, list[str]] = {}
        for name, why in self.left_out:
            reasons.setdefault(why, []).append(name)
        lines += [f"  left out: {', '.join(_groups(names))} ({why})" for why, names in reasons.items()]
        return "\n".join(lines)


def transfer(
    source: dict[str, torch.Tensor],
    target: nn.Module,
    source_modalities: Sequence[str],
    target_modalities: Sequence[str],
    name: str,
    same_structures: bool = False,
) -> TransferReport:
    """Load ``source`` into ``target``, a segmentation or classification network, in place.

    Modalities are matched by name: what belongs to a modality (the network's ``modality_axes``: tensor to
    axis) is reordered, that of a modality the source did not know becomes the mean of the others.

    Args:
        source: state of any network with the backbone of ``target``.
        name: of the source, for the report.
        same_structures: the output layer means the same in both, so it is taken too.

    Raises:
        EmimError: when a tensor that must fit has another shape, when no modality is shared, or when
            the source lacks a part of the encoder; nothing is loaded then.
    """
    report = TransferReport(name)
    state = target.state_dict()
    result = dict(state)
    axes = target.modality_axes
    for key, value in source.items():
        if key.startswith(FOR_PRETRAINING):
            report.left_out.append((key, "made for pre-training only"))
            continue
        if key not in state and "unet." + key in state:
            key = "unet." + key
        elif key.startswith("unet.") and key.removeprefix("unet.") in state:
            key = key.removeprefix("unet.")
        if key not in state:
            report.left_out.append((key, "the network has no such part"))
        elif key in axes and list(source_modalities) != list(target_modalities):
            result[key] = _by_modality(value, state[key], source_modalities, target_modalities, axes[key])
            report.adapted.append(
                (key, f"modalities {list(source_modalities)} arranged as {list(target_modalities)}")
            )
        elif ".head." in key and not same_structures:
            report.left_out.append((key, "made for other outputs"))
        elif value.shape != state[key].shape:
            raise EmimError(
                f"The weights do not fit: {key} is {tuple(value.shape)}, "
                f"the network has {tuple(state[key].shape)}.",
                name,
                "Use the network settings of the run the weights come from.",
            )
        else:
            result[key] = value
            report.loaded.append(key)
    taken = set(report.loaded) | {k for k, _ in report.adapted}
    report.new = [k for k in state if k not in taken]
    missing = [k for k in report.new if k.startswith(("unet.encoder.", "encoder.", "tokens."))]
    if missing:
        raise EmimError(
            f"The weights lack {len(missing)} parts of the encoder, such as {missing[0]}.",
            name,
            "Use the network settings of the run the weights come from.",
        )
    target.load_state_dict(result)
    return report


def _by_modality(value, fresh, source, target, axis) -> torch.Tensor:
    index = {m: i for i, m in enumerate(source)}
    if not any(m in index for m in target):
        raise EmimError(
            "The weights and the cohort share no modality.",
            hint=f"The weights know {', '.join(source)}; the cohort has {', '.join(target)}.",
        )
    if value.shape[:axis] + value.shape[axis + 1 :] != fresh.shape[:axis] + fresh.shape[axis + 1 :]:
        raise EmimError(
            f"The weights do not fit: {tuple(value.shape)} against {tuple(fresh.shape)}.",
            hint="Use the network settings of the run the weights come from.",
        )
    mean = value.mean(axis)
    parts = [value.select(axis, index[m]) if m in index else mean for m in target]
    return torch.stack(parts, axis)


def _groups(names: Sequence[str]) -> list[str]:
    """Names shortened to their first three parts, each once."""
    return list(dict.fromkeys(".".join(n.split(".")[:3]) for n in names))
