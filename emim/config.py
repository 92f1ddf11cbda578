"""Every setting of a run, as plain data that goes to and from JSON.

A run folder's ``config.json`` is one of these dataclasses with ``version`` and ``command`` beside it.
Presets change several settings at once; whatever is given explicitly wins over the preset.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

from emim.errors import EmimError

CONFIG_VERSION = 2


@dataclass(frozen=True)
class PreprocessConfig:
    """How a case is brought to one grid; a model package carries it, so inference repeats it exactly.

    Attributes:
        spacing: mm along (left-right, anterior-posterior, head-foot); None: the median of the cohort.
        reference: modality whose grid the others are resampled to; None: the first one present.
        clip: z-scores beyond this many standard deviations are clipped.
    """

    spacing: tuple[float, float, float] | None = None
    reference: str | None = None
    clip: float = 5.0


@dataclass(frozen=True)
class NetworkConfig:
    """The encoder that pre-training, fine-tuning and inference share. See :mod:`emim.networks.build`.

    Attributes:
        backbone: resunet (residual-encoder U-Net), vit (vision transformer) or swin (Swin transformer).
        filters: resunet and swin: channels of the first level; each level doubles them.
        blocks: resunet: residual blocks per encoder level; its length is the number of levels.
        stages: swin: transformer blocks per stage; its length is the number of stages.
        patch: vit: side of a token in voxels.
        width, depth, heads: vit: channels of a token, transformer blocks, attention heads.
    """

    backbone: str = "resunet"
    filters: int = 32
    blocks: tuple[int, ...] = (1, 2, 2, 4, 4)
    stages: tuple[int, ...] = (2, 2, 2, 2)
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6

    @property
    def divisor(self) -> int:
        """Every side of the input must be a multiple of this."""
        if self.backbone == "vit":
            return self.patch
        # Swin's tokens are 2 voxels wide, and each stage ends by merging pairs of them.
        return 2 ** (len(self.stages) + 1 if self.backbone == "swin" else len(self.blocks) - 1)

    @property
    def essence(self) -> tuple:
        """What makes two networks the same: the settings that this backbone uses."""
        used = {"resunet": ("filters", "blocks"), "swin": ("filters", "stages")}
        names = used.get(self.backbone, ("patch", "width", "depth", "heads"))
        return self.backbone, *(getattr(self, name) for name in names)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each pyramid level, finest first."""
        if self.backbone == "vit":
            return (self.width,)
        levels = len(self.stages) + 1 if self.backbone == "swin" else len(self.blocks)
        return tuple(self.filters * 2**i for i in range(levels))


@dataclass(frozen=True)
class MaskConfig:
    """Which voxels are hidden. See :mod:`emim.masking.patterns`.

    Attributes:
        pattern: hybrid, random, modal, position, patch, m3ae, dirichlet or none.
        ratio: share of all (modality, unit) pairs that is hidden, on average.
        unit: side of a mask unit in voxels.
        position_share: hybrid only: the part of the units left by the modal mask that is to be
            hidden and that the position mask takes; the patch mask takes the rest.
        max_dropped: hybrid and modal: how many modalities are hidden whole, drawn from 1 to this.
    """

    pattern: str = "hybrid"
    ratio: float = 0.75
    unit: int = 16
    position_share: float = 0.5
    max_dropped: int = 1


@dataclass(frozen=True)
class RegulariserConfig:
    """What keeps features from collapsing into few dimensions. See :mod:`emim.objectives`.

    Attributes:
        name: barlow, vicreg, uniformity or none.
        weight: beta, the weight of the whole term after its warm-up.
        warmup: share of all steps over which beta rises linearly from 0.
        levels: pyramid levels it acts on, finest = 0; None: all but the finest.
        width: output width of the projector (barlow and vicreg).
        cells: features are pooled to a grid of this many cells a side.
        view: barlow and vicreg: how much of the original view is encoded beside the masked one: whole, or
            half, whose cells are compared with the same cells of the masked view at half the cost; whole
            where the crop cannot be halved.
    """

    name: str = "barlow"
    weight: float = 0.1
    warmup: float = 0.1
    levels: tuple[int, ...] | None = None
    width: int = 512
    cells: int = 4
    view: str = "half"


@dataclass(frozen=True)
class TrainConfig:
    """What pre-training and fine-tuning share.

    Attributes:
        steps: optimiser steps.
        batch: samples per step, over all ranks of a distributed run together.
        micro_batch: the most samples a rank computes at once, gradients being accumulated; None: its whole
            share of the batch, or as much of it as a GPU's memory holds.
        crop: side of the cubic crop in voxels.
        learning_rate, weight_decay, warmup, grad_clip: AdamW with linear warm-up (share of all
            steps) and cosine decay; the gradient's norm is clipped.
        validate_every: steps between validations; None: twenty times a run.
        checkpoint_every: seconds between checkpoints.
        mirror: mirror left and right at random; None: unless a structure or class is named by its side.
        seed: fixes every random choice.
        device: auto, cpu, cuda, cuda:1, mps …
        workers: processes (for a GPU on Linux) or threads that prepare batches ahead; None: chosen from the
            machine; 0, as for a CPU: each batch is prepared when it is wanted.
        exclude: ids of cases that are never looked at, such as a test set.
        cases: ids of the training cases; None: all that are left.
        validation: ids of validation cases; None: as many subjects as ``validation_share`` of all, drawn from
            those not in ``cases``.
    """

    steps: int = 20_000
    batch: int = 2
    micro_batch: int | None = None
    crop: int = 96
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    grad_clip: float = 1.0
    validate_every: int | None = None
    checkpoint_every: float = 120.0
    mirror: bool | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    exclude: tuple[str, ...] = ()
    cases: tuple[str, ...] | None = None
    validation: tuple[str, ...] | None = None
    validation_share: float = 0.15


@dataclass(frozen=True)
class PretrainConfig:
    """All of ``emim pretrain``.

    Attributes:
        modalities: which to train on, in the order of the network's channels; None: all there are.
        loss: l2 or l1.
        normalise_targets: standardise the target within each mask unit.
        objective: mim (tokens stand for what is hidden), mae (vit only: what is hidden does not enter
            the encoder) or contrastive (SimCLR on pairs of crops, as a baseline: mask, regulariser, loss,
            normalise_targets and decoder are not used; see :mod:`emim.objectives.contrastive`).
        decoder: what reconstructs from the encoder's features: linear, light or deep.
    """

    modalities: tuple[str, ...] | None = None
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    loss: str = "l2"
    normalise_targets: bool = False
    objective: str = "mim"
    decoder: str = "light"


@dataclass(frozen=True)
class Structure:
    """One structure to segment.

    Attributes:
        name: shown to the user.
        values: label values of the training label map that belong to it.
        output: value painted into the result's label map.
        color: red, green, blue from 0 to 255.
        terminology: Slicer terminology string, or None.
    """

    name: str
    values: tuple[int, ...]
    output: int
    color: tuple[int, int, int]
    terminology: str | None = None


@dataclass(frozen=True)
class CardConfig:
    """What the model package is to say about itself; what is None is filled in.

    Attributes:
        name, description, intended_use, licence: for people.
        patterns: modality name to patterns of names it is recognised by, before the built-in ones.
        segments: name to label value of the segments that the labels name.
    """

    name: str | None = None
    description: str | None = None
    intended_use: str | None = None
    licence: str | None = None
    patterns: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassifierDesign:
    """What sits on the encoder of a classification network; see :mod:`emim.networks.classifier`.

    Attributes:
        pooling: attention or average.
        neighbours: of a nearest-neighbour classifier, how many are asked.
        bank: cases whose features it keeps; 0: the classifier is linear.
    """

    pooling: str = "attention"
    neighbours: int = 0
    bank: int = 0


@dataclass(frozen=True)
class ClassificationConfig:
    """What fine-tuning needs to tell cases apart (task "classification").

    Attributes:
        labels: CSV or JSON file with the class of each case; see :mod:`emim.cohort.classes`.
        classes: names of the classes in the order of the outputs; empty: those of the file, sorted.
        mode: full (the whole network learns), linear (a linear classifier on the frozen encoder) or knn
            (nearest neighbours among the features of the training cases; nothing is trained).
        pooling: attention or average; None: attention in mode full, else average.
        neighbours: knn: how many training cases are asked.
    """

    labels: str | None = None
    classes: tuple[str, ...] = ()
    mode: str = "full"
    pooling: str | None = None
    neighbours: int = 5


@dataclass(frozen=True)
class FinetuneConfig:
    """All of ``emim finetune``.

    Attributes:
        task: segmentation or classification.
        init: run folder or model package the weights come from; None: from scratch.
        modalities: as in :class:`PretrainConfig`.
        labelled: train on this many of the labelled training cases, drawn by the seed; None: all.
        structures: what to segment, larger ones first where they overlap; empty: each label value.
        overlapping: structures are regions that may overlap (sigmoid); else exclusive (softmax).
        foreground_share: share of crops around a labelled voxel.
        modality_dropout: chance that a training sample keeps a random choice of its modalities only, from one
            of them to all.
        transferred_rate: learning rate of transferred weights, as a share of ``train.learning_rate``,
            at which what is new learns.
        head_start: share of the steps for which transferred weights wait, while what is new learns from the
            features that they give; where nothing is new, nothing waits. A quarter was better on some data,
            worse on others (Testing/benchmarks/STUDIES.md, section 15).
        keep: the weights that become the model: those of the best validation, or the last; with two or three
            validation cases the best is the best partly by chance.
        classification: what counts for the task classification alone.
        card: what the model package says about itself.
    """

    task: str = "segmentation"
    init: str | None = None
    modalities: tuple[str, ...] | None = None
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    labelled: int | None = None
    structures: tuple[Structure, ...] = ()
    overlapping: bool = False
    foreground_share: float = 0.66
    modality_dropout: float = 0.3
    transferred_rate: float = 0.1
    head_start: float = 0.0
    keep: str = "best"
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    card: CardConfig = field(default_factory=CardConfig)


# Sized by what the machine can do in an evening: a CPU, one small GPU, one large GPU.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "network": {"filters": 12, "blocks": (1, 2, 2, 2), "patch": 8, "width": 192, "depth": 6, "heads": 3},
        "mask": {"unit": 8},
        "train": {"crop": 48, "steps": 1500, "learning_rate": 2e-3},
        "transferred_rate": 1.0,  # a few hundred steps are too short for a tenth of the rate
    },
    "base": {"network": {"filters": 32, "blocks": (1, 2, 2, 4, 4)}, "train": {"crop": 96}},
    "large": {
        "network": {"filters": 48, "blocks": (1, 3, 4, 6, 6), "width": 768, "heads": 12},
        "train": {"crop": 128, "steps": 100_000},
    },
}


def with_preset(config: Any, preset: str) -> Any:
    """``config`` (a default one) with the settings of ``preset`` that it has."""
    if preset not in PRESETS:
        raise EmimError(f"There is no preset {preset!r}.", hint=f"Choose one of: {', '.join(PRESETS)}.")
    known = {f.name for f in dataclasses.fields(config)}
    return from_dict(type(config), {k: v for k, v in PRESETS[preset].items() if k in known}, base=config)


def override(config: Any, settings: dict[str, Any]) -> Any:
    """``config`` with dotted settings replaced: ``{"train.steps": 500}``; values may be text.

    Raises:
        EmimError: when a setting does not exist or a value has the wrong type.
    """
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        at = nested
        *path, last = name.split(".")
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return from_dict(type(config), nested, base=config)


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(kind: type, data: dict[str, Any], base: Any = None, where: str = "") -> Any:
    """Build dataclass ``kind`` from plain data; what ``data`` lacks comes from ``base`` or the defaults.

    Raises:
        EmimError: for an unknown setting or a value of the wrong type, naming it.
    """
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    values = {} if base is None else {n: getattr(base, n) for n in names}
    for name, value in data.items():
        path = f"{where}{name}"
        if name not in hints or name not in names:
            raise EmimError(f"There is no setting {path!r}.", hint=f"Known here: {', '.join(names)}.")
        values[name] = _convert(hints[name], value, values.get(name), path)
    try:
        return kind(**values)
    except TypeError as error:
        raise EmimError(f"Incomplete settings: {error}.", where or kind.__name__) from error


def upgrade(data: dict[str, Any], version: int) -> dict[str, Any]:
    """Settings that an earlier ``version`` wrote, in the form of the present one."""
    data = dict(data)
    if version < 2:
        if backbone := data.pop("backbone", None):
            data["network"] = {"backbone": backbone, **data.get("network", {})}
        if "regulariser" in data:  # there was no other
            data["regulariser"] = {"view": "whole", **data["regulariser"]}
    return data


def _convert(hint: Any, value: Any, base: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise EmimError(f"Setting {path!r} is a group of settings, not {value!r}.")
        return from_dict(hint, value, base=base, where=path + ".")
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        if value is None or value == "none":
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, base, path)
    try:
        if typing.get_origin(hint) is tuple:
            parts = value.split(",") if isinstance(value, str) else list(value)
            inner = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else list(arguments)
            if len(parts) != len(inner):
                raise ValueError
            return tuple(_convert(i, p, None, path) for i, p in zip(inner, parts, strict=True))
        if hint is bool:
            if isinstance(value, str):
                return {"true": True, "false": False}[value.lower()]
            if not isinstance(value, bool):
                raise ValueError
            return value
        if hint is int and float(value) != int(float(value)):
            raise ValueError
        if hint is str and not isinstance(value, str):
            raise ValueError
        return int(float(value)) if hint is int else hint(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        inner = kinds.get(arguments[0], "text") if arguments else ""
        count = "" if arguments and arguments[-1] is Ellipsis else f" ({len(arguments)} of them)"
        kind = f"{inner} each, with commas between{count}" if arguments else kinds.get(hint, str(hint))
        raise EmimError(f"Setting {path!r} cannot be {value!r}.", hint=f"It takes: {kind}.") from error
