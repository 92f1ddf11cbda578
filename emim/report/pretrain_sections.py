"""What the report of a pre-training run shows: losses, reconstructions, signs of collapse, masks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from emim.report import figures, tables
from emim.report.contrast_section import contrast_section
from emim.report.markup import figure, image, number, text
from emim.report.reconstruction import COLUMNS, DIFFERENCE_MAXIMUM, reconstructions
from emim.report.record import RunRecord, is_number


def pretrain_sections(run: RunRecord) -> Iterable[tuple[str, str, str]]:
    if run.contrastive:
        yield "loss", "Loss", contrast_section(run)
        yield "collapse", "Signs of collapse", f'<div class="pair">{_feature_figures(run)}</div>'
        yield "training", "Optimisation", f'<div class="pair">{optimisation(run)}</div>'
        return
    yield "loss", "Loss", _loss_section(run)
    yield "reconstruction", "Reconstruction", _reconstruction_section(run)
    yield "collapse", "Signs of collapse", _collapse_section(run)
    yield "training", "Masks and optimisation", _training_section(run)


def _loss_section(run: RunRecord) -> str:
    caption = (
        "How far the network's guess of the hidden voxels is from the truth; lower is better. The horizontal "
        "lines are the losses reachable <em>without looking at the patient</em>: by one value everywhere "
        "(<i>L</i><sub>a</sub>), one average patch (<i>L</i><sub>b</sub>), or the average anatomy at each "
        "position (<i>L</i><sub>c</sub>; dashed: on subjects the average was not made from). "
        "A healthy run ends clearly below all of them. Faint: single steps."
    )
    parts = [
        figure("Reconstruction loss", figures.loss(run), caption, _alt_loss(run)),
        '<div class="pair">',
        figure(
            "By kind of mask",
            figures.loss_by_kind(run),
            "Where the hidden voxels were hidden in one modality whole (modal), at the same place in all "
            "(position), or in single modalities (patch). Modal and patch can be solved from the other "
            "modalities, position only from the surroundings, so it is the hardest.",
            "Line plot of the validation loss for each kind of mask over steps.",
            _kinds_table(run),
        ),
        _regulariser(run),
        "</div>",
    ]
    return "".join(parts)


def _regulariser(run: RunRecord) -> str:
    plot = figures.regulariser(run)
    if plot is None:
        return ""
    return figure(
        "Regulariser",
        plot,
        "The term that keeps features from all saying the same; it should fall and then level off. "
        "Its weight rises during the warm-up.",
        "Line plot of the regulariser over steps.",
    )


def _alt_loss(run: RunRecord) -> str:
    steps, values = run.curve("validation", "reconstruction")
    lines = ", ".join(f"{n} {v:.3f}" for n, v in run.collapse_lines.items() if is_number(v))
    end = f" Validation ends at {values[-1]:.3f} at step {steps[-1]}." if len(steps) else ""
    return (
        f"Line plot of training and validation loss over steps.{end} Collapse lines: {lines or 'not known'}."
    )


def _kinds_table(run: RunRecord) -> str:
    template = run.collapse_lines.get("L_c")
    rows = []
    for kind in figures.KINDS:
        values = run.curve("validation", kind)[1]
        if len(values):
            ratio = values[-1] / template if is_number(template) and template > 0 else None
            rows.append(f"<tr><td>{kind}</td><td>{number(values[-1])}</td><td>{number(ratio, 2)}</td></tr>")
    if not rows:
        return ""
    return (
        "<table><thead><tr><th>Last validation</th><th>loss</th><th>loss ÷ <i>L</i><sub>c</sub></th></tr>"
        "</thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _reconstruction_section(run: RunRecord) -> str:
    planes = reconstructions(run)
    if not planes:
        return '<p class="empty">No preview yet.</p>'
    case, step = run.preview.get("case", ""), run.preview.get("step")
    validation = str(case) in tables.ids_of(run, "validation")
    role = "validation case, never trained on" if validation else "a case of the cohort"
    at = f" at step {number(int(step))}" if step is not None and np.size(step) == 1 else ""
    parts = [
        f'<p class="note">Case <code>{text(case)}</code> ({role}){at}. Blue: hidden from the network. '
        "“Gaps filled” puts the network's output only where something was hidden: what matters is whether "
        "it continues the anatomy there. The network is not trained to reproduce what it sees, so its raw "
        "output may look odd elsewhere. Difference: black is none, brightest is "
        f"{DIFFERENCE_MAXIMUM:g} standard deviations or more. "
        "The patient's right is on the left of the picture.</p>"
    ]
    for plane, rows in planes.items():
        cells = ["<div></div>", *(f'<div class="head">{text(c)}</div>' for c in COLUMNS)]
        for row in rows:
            cells.append(f'<div class="name">{text(row.modality)}</div>')
            if not row.pictures:
                cells.append(
                    f'<div class="none" style="grid-column:span {len(COLUMNS)}">not there in this case</div>'
                )
            for column, picture in zip(COLUMNS, row.pictures, strict=False):
                alt = f"{row.modality}, {plane} slice: {column.lower()}"
                cells.append(image(picture.png, alt, f"aspect-ratio:{1 / picture.aspect:.4f}"))
        grid = f"grid-template-columns:minmax(48px,max-content) repeat({len(COLUMNS)},1fr)"
        parts.append(f'<div class="tiles" style="{grid}">{"".join(cells)}</div>')
    return "".join(parts)


def _collapse_section(run: RunRecord) -> str:
    variance = figure(
        "Does the output depend on the patient?",
        figures.output_variance(run),
        "How much the output differs between subjects, compared with how much the truth differs. "
        "Near or under the line, every patient gets the same picture: complete collapse.",
        "Line plot of the output's variance between subjects over steps.",
    )
    return f'<div class="pair">{variance}{_feature_figures(run)}</div>'


def _feature_figures(run: RunRecord) -> str:
    """How the features of each level fill their space."""
    return "".join(
        (
            figure(
                "Are all feature dimensions used?",
                figures.rank(run),
                "Effective rank of the features of each pyramid level (1 is the finest), over the highest "
                "possible. "
                "Under the line, many features repeat a few: dimensional collapse.",
                "Line plot of the effective rank of each pyramid level over steps.",
            ),
            figure(
                "Do features repeat each other?",
                figures.correlation(run),
                "Mean absolute correlation between different features; lower means less repetition.",
                "Line plot of the mean absolute correlation of each level over steps.",
            ),
            figure(
                "Are places told apart?",
                figures.uniformity(run),
                "Mean squared cosine between the features of different places (uniformity); 1 would mean "
                "that all places look alike to the network, lower is better.",
                "Line plot of the uniformity of each level over steps.",
            ),
        )
    )


def _training_section(run: RunRecord) -> str:
    ratio = figure(
        "Realised mask ratio",
        figures.mask_ratio(run),
        "Share of all mask units that was really hidden, and how it splits into the kinds of mask.",
        "Line plot of the realised mask ratio and its parts over steps.",
    )
    return f'<div class="pair">{ratio}{optimisation(run)}</div>'


def optimisation(run: RunRecord) -> str:
    return figure(
        "Learning rate",
        figures.learning_rate(run),
        "Rises during the warm-up, then falls to zero.",
        "Line plot of the learning rate over steps.",
    ) + figure(
        "Gradient norm",
        figures.gradient_norm(run),
        "Length of the gradient before it is clipped; it should settle, and single peaks do no harm.",
        "Line plot of the gradient norm over steps.",
    )
