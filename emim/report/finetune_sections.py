"""What the report of a fine-tuning run shows: Dice, a segmented case, the transfer of weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from emim.report import figures, tables
from emim.report.markup import figure, image, number, swatch, text
from emim.report.overlay import slices_png
from emim.report.pretrain_sections import optimisation
from emim.report.record import RunRecord


def finetune_sections(run: RunRecord) -> Iterable[tuple[str, str, str]]:
    colors = {s["name"]: "#" + "".join(f"{int(c):02x}" for c in s["color"]) for s in tables.structures(run)}
    caption = (
        "Overlap of the prediction with the reference on the validation cases: 1 is perfect, 0 is none. "
        "A structure that is in no validation case has no curve."
    )
    alt = "Line plot of the validation Dice of each structure and their mean over steps."
    yield "dice", "Dice", figure("Validation Dice", figures.dice(run, colors), caption, alt)
    yield "preview", "Reference and prediction", _segmentation_section(run)
    loss = figure(
        "Training loss",
        figures.train_loss(run),
        "Dice plus cross-entropy on the training crops; it should fall. Faint: single steps.",
        "Line plot of the training loss over steps.",
    )
    yield "training", "Optimisation", f'<div class="pair">{loss}{optimisation(run)}</div>'
    yield "structures", "Structures", tables.structure_table(run)
    yield "transfer", "What was taken from pre-training", tables.transfer_report(run)


def _segmentation_section(run: RunRecord) -> str:
    volume, reference, prediction = (run.preview.get(n) for n in ("image", "reference", "prediction"))
    if volume is None or volume.ndim != 4 or prediction is None or prediction.shape != volume.shape[1:]:
        return '<p class="empty">No preview yet.</p>'
    if reference is not None and reference.shape != prediction.shape:
        reference = None
    focus = prediction > 0 if reference is None or not (reference > 0).any() else reference > 0
    best = _clearest(volume, focus)
    shown = volume[best]
    # After normalisation air is 0, the mean grey of the tissue; it is shown black.
    inside = (volume != 0).any(0)
    shown = np.where(inside, shown, shown.min())
    colors = _preview_colors(run, reference, prediction)
    name = run.modalities[best] if best < len(run.modalities) else f"modality {best + 1}"
    case, step = run.preview.get("case", ""), run.preview.get("step")
    at = f" at step {number(int(step))}" if step is not None and np.size(step) == 1 else ""
    parts = [
        f'<p class="note">Validation case <code>{text(case)}</code>{at}, on {text(name)}, in the slices '
        "where the reference is largest. The patient's right is on the left of the picture. "
        f"{_key(run, colors)}</p>"
    ]
    for title, label in (("Image", None), ("Reference", reference), ("Prediction", prediction)):
        if label is None and title != "Image":
            continue
        picture = slices_png(shown, label, run.spacing, colors, focus=focus)
        alt = f"{title}: axial, coronal and sagittal slice of case {case}"
        parts.append(f'<figure class="dark"><h3>{title}</h3>{image(picture, alt)}</figure>')
    return "".join(parts)


def _clearest(volume: np.ndarray, lesion: np.ndarray) -> int:
    """The modality (of (M, Z, Y, X)) in which ``lesion`` stands out most from the rest."""
    rest = (volume != 0).any(0) & ~lesion
    if not lesion.any() or not rest.any():
        return 0
    contrast = [abs(x[lesion].mean() - x[rest].mean()) / (x[rest].std() + 1e-6) for x in volume]
    return int(np.argmax(contrast))


def _preview_colors(run: RunRecord, *labels: np.ndarray | None) -> dict[int, tuple[int, int, int]]:
    named = {int(s["output"]): tuple(int(c) for c in s["color"]) for s in tables.structures(run)}
    for label in labels:
        for value in np.unique(label) if label is not None else ():
            if value > 0 and int(value) not in named:
                color = figures.CYCLE[len(named) % len(figures.CYCLE)].lstrip("#")
                named[int(value)] = tuple(bytes.fromhex(color))
    return named


def _key(run: RunRecord, colors: dict[int, tuple[int, int, int]]) -> str:
    names = {int(s["output"]): s["name"] for s in tables.structures(run)}
    return " ".join(
        f'<span style="white-space:nowrap">{swatch(c)}{text(names.get(v, f"label {v}"))}&ensp;</span>'
        for v, c in colors.items()
    )
