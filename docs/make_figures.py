"""The figures of docs/method.md: python docs/make_figures.py [--only NAME …]. On synthetic heads."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyArrowPatch, Rectangle

from emim.cohort.scan import scan
from emim.config import MaskConfig, PreprocessConfig, PretrainConfig, override, with_preset
from emim.masking.patterns import KINDS, draw_mask
from emim.masking.units import from_units, to_units
from emim.networks import vit, vit_pretrainer
from emim.networks.positions import Rotation
from emim.objectives.collapse_lines import collapse_lines
from emim.objectives.gauges import effective_rank
from emim.phantom.generate import generate
from emim.report.figures import BLUE, GREEN, GREY, INK, ORANGE, RED, loss
from emim.report.record import read_run
from emim.training.pretrain import pretrain
from emim.volumes.cache import build_cache
from emim.volumes.preprocess import resolve_spacing

FOLDER = Path(__file__).parent / "figures"
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
UNIT, SHAPE = 8, (64, 72, 64)


def main() -> None:
    figures = {"masks": masks, "templates": templates, "twins": twins, "gauges": gauges, "losses": losses}
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--only", nargs="+", choices=figures, default=list(figures))
    p.add_argument("--work", help="folder to keep heads and runs in; default: a temporary one")
    o = p.parse_args()
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 110}
    )
    with tempfile.TemporaryDirectory(prefix="emim-figures-") as temporary:
        work = Path(o.work or temporary)
        for name in o.only:
            figure = figures[name](work)
            if figure is None:  # already written
                continue
            figure.savefig(FOLDER / f"{name}.png", bbox_inches="tight", facecolor="white")
            plt.close(figure)


# ---- what is hidden


def masks(work: Path) -> plt.Figure:
    """One axial slice of a case under every pattern, modalities as rows."""
    image = cases(work)[0][0].numpy()
    units = tuple(n // UNIT for n in SHAPE)
    shown = {
        "position\n(= random)": MaskConfig("position", unit=UNIT),
        "patch": MaskConfig("patch", unit=UNIT),
        "modal": MaskConfig("modal", unit=UNIT, max_dropped=2),
        "hybrid": MaskConfig("hybrid", unit=UNIT),
    }
    figure, axes = plt.subplots(4, 1 + len(shown), figsize=(7.6, 6.6))
    slice_ = SHAPE[0] // 2
    for row, modality in enumerate(MODALITIES):
        axes[row, 0].set_ylabel(modality, rotation=0, ha="right", va="center")
        grey(axes[row, 0], image[row, slice_])
    axes[0, 0].set_title("original")
    colours = ListedColormap([BLUE, ORANGE, GREEN])
    for column, (name, config) in enumerate(shown.items(), start=1):
        kinds = draw_mask(config, np.ones(4, bool), int(np.prod(units)), np.random.default_rng(5))
        grid = kinds.reshape(4, *units)[:, slice_ // UNIT].repeat(UNIT, 1).repeat(UNIT, 2)
        axes[0, column].set_title(f"{name}\n{100 * (kinds > 0).mean():.0f} % hidden")
        for row in range(4):
            grey(axes[row, column], image[row, slice_])
            hidden = np.ma.masked_equal(grid[row], 0)
            axes[row, column].imshow(hidden, cmap=colours, vmin=1, vmax=3, alpha=0.85, origin="lower")
    names = [
        Rectangle((0, 0), 1, 1, color=c, label=k) for k, c in zip(KINDS, (BLUE, ORANGE, GREEN), strict=True)
    ]
    figure.legend(
        handles=names, title="hidden by the mask", ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.02)
    )
    return figure


# ---- what a network can paint that does not look


def templates(work: Path) -> plt.Figure:
    """A case beside the best constant, unit and template, with the loss of each."""
    samples = cases(work)
    lines = collapse_lines(((t, f.expand_as(t).float()) for t, f in samples), UNIT)
    target, foreground = samples[0]
    weight = torch.stack([f.expand_as(t).double() for t, f in samples])
    values = torch.stack([t.double() for t, _ in samples]) * weight
    mean = values.sum() / weight.sum()
    units, unit_weight = to_units(values, UNIT), to_units(weight, UNIT)
    patch = units.sum((0, 1, 2)) / unit_weight.sum((0, 1, 2))
    patches = from_units(patch.expand(4, units.shape[2], -1), UNIT, SHAPE)
    template = values.sum(0) / weight.sum(0).clamp(min=1)
    shown = [
        ("a case", target.double(), ""),
        ("one constant", torch.full_like(template, float(mean)), f"$L_a$ = {lines['L_a']:.3f}"),
        ("one patch", patches, f"$L_b$ = {lines['L_b']:.3f}"),
        ("average anatomy", template, f"$L_c$ = {lines['L_c']:.3f}, unseen {lines['L_c_unseen']:.3f}"),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(8.2, 4.6))
    at = SHAPE[0] // 2
    for column, (name, picture, line) in enumerate(shown):
        axes[0, column].set_title(f"{name}\n{line}".strip())
        for row, modality in enumerate((0, 3)):
            ax = axes[row, column]
            grey(ax, torch.where(foreground[0], picture[modality], -3.0)[at].numpy(), (-3, 3))
            if column == 0:
                ax.set_ylabel(MODALITIES[modality], rotation=0, ha="right", va="center")
    return figure


# ---- pyramid Barlow twins


def twins(work: Path) -> plt.Figure:
    """The scheme: two views, one encoder, levels, cells, projectors, correlation matrices."""
    figure, ax = plt.subplots(figsize=(8.6, 3.7))
    ax.set(xlim=(0, 100), ylim=(0, 44))
    ax.axis("off")

    def box(x, y, w, h, text, colour):
        ax.add_patch(Rectangle((x, y), w, h, facecolor=colour, alpha=0.25, edgecolor=colour))
        ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", color=INK, fontsize=8)

    def arrow(x1, y1, x2, y2, style="-|>"):
        ax.add_patch(
            FancyArrowPatch((x1, y1), (x2, y2), arrowstyle=style, mutation_scale=9, color=GREY, lw=1)
        )

    box(0, 27, 14, 10, "masked crop", ORANGE)
    box(0, 7, 14, 10, "half of the\noriginal crop", BLUE)
    box(20, 25, 12, 14, "encoder", GREEN)
    box(20, 5, 12, 14, "encoder", GREEN)
    arrow(14, 32, 20, 32)
    arrow(14, 12, 20, 12)
    arrow(26, 25, 26, 19, "<->")
    ax.text(27, 22, "same weights", va="center", fontsize=7.5, color=GREY)
    for level, (y, size) in enumerate(zip((33, 28.5, 25), (5.0, 3.5, 2.4), strict=True), start=1):
        box(38, y, 10, size, f"level {level}", GREEN)
        box(38, y - 20, 10, size, f"level {level}", GREEN)
        arrow(32, 32, 38, y + size / 2)
        arrow(32, 12, 38, y - 20 + size / 2)
    box(54, 27, 15, 9, "average over\ncells, projector", GREY)
    box(54, 7, 15, 9, "average over\ncells, projector", GREY)
    arrow(48, 31, 54, 31)
    arrow(48, 11, 54, 11)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 14)) @ (np.eye(14) + 0.18 * rng.standard_normal((14, 14)))
    correlation = np.corrcoef(z.T, (z + 0.5 * rng.standard_normal(z.shape)).T)[:14, 14:]
    inset = ax.inset_axes((0.79, 0.25, 0.2, 0.48))
    inset.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    inset.set(xticks=[], yticks=[])
    inset.set_title("correlation of every pair\nof dimensions", fontsize=8)
    inset.set_xlabel("diagonal → 1, the rest → 0", fontsize=8)
    arrow(69, 31, 78, 24)
    arrow(69, 11, 78, 18)
    box(37, 40, 36, 4, "decoder: reconstruct what was hidden", ORANGE)
    arrow(43, 38.2, 43, 40)
    return figure


# ---- gauges


def gauges(work: Path) -> plt.Figure:
    """Singular values of features that use many, some and few dimensions, and their effective rank."""
    rng = np.random.default_rng(1)
    figure, ax = plt.subplots(figsize=(5.6, 3.0))
    for decay, colour, name in ((0.01, GREEN, "spread out"), (0.12, ORANGE, "thin"), (1.2, RED, "collapsed")):
        features = rng.standard_normal((512, 48)) * np.exp(-decay * np.arange(48))
        values = np.linalg.svd(features - features.mean(0), compute_uv=False)
        rank = effective_rank(torch.from_numpy(features))
        ax.semilogy(values / values.sum(), color=colour, label=f"{name}: effective rank {rank:.1f} of 48")
    ax.set(xlabel="dimension, by size", ylabel="share of the singular values", ylim=(1e-5, 1))
    ax.legend(frameon=False)
    return figure


# ---- loss curves against the lines


def losses(work: Path) -> None:
    """The report's loss curve of a run that learns, and of a masked autoencoder whose positions are zero."""
    config = with_preset(PretrainConfig(), "tiny")
    config = override(config, {"train.crop": 32, "train.validate_every": 25, "train.steps": 400})
    sound = override(config, {"network.filters": 8, "train.learning_rate": 3e-3})
    broken = {"network.backbone": "vit", "objective": "mae", "mask.pattern": "position"}
    broken |= {"network.width": 96, "network.depth": 3, "regulariser.name": "none"}
    _loss_of(pretrain(cohort(work), work / "sound", sound, cache=work / "cache", overwrite=True), "sound")
    sines, turn = vit.sine_positions, Rotation.turn
    vit.sine_positions = vit_pretrainer.sine_positions = lambda *a, **k: torch.zeros_like(sines(*a, **k))
    Rotation.turn = lambda self, x: x
    try:
        run = pretrain(
            cohort(work), work / "broken", override(config, broken), cache=work / "cache", overwrite=True
        )
    finally:
        vit.sine_positions = vit_pretrainer.sine_positions = sines
        Rotation.turn = turn
    _loss_of(run, "broken")


def _loss_of(run: Path, name: str) -> None:
    (FOLDER / f"loss_{name}.svg").write_text(loss(read_run(run)), encoding="utf-8")


# ---- data


def cohort(work: Path) -> Path:
    folder = work / "heads"
    if not folder.exists():
        generate(folder, subjects=16, seed=7, spacing=2.5)
    return folder


def cases(work: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Complete cases, centred: target (4, Z, Y, X) and foreground (1, Z, Y, X)."""
    found = scan(cohort(work)).cohort
    preprocess = resolve_spacing(found, PreprocessConfig())
    read = []
    for case in build_cache(found, preprocess, work / "cache"):
        if not all(case.present):
            continue
        start = [(s - n) // 2 for s, n in zip(case.shape, SHAPE, strict=True)]
        crop = case.crop(start, SHAPE)
        read.append((torch.from_numpy(crop.image).float(), torch.from_numpy(crop.foreground)[None]))
    return read


def grey(ax, picture: np.ndarray, limits=(-3.0, 3.0)) -> None:
    ax.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower")
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    main()
