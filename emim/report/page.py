"""The report of a run: one HTML file that needs nothing else, for the screen and for paper."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from emim.objectives.verdict import CONSTANT_OUTPUT, LOW_RANK
from emim.report import figures, tables
from emim.report.cohort_table import cohort_table
from emim.report.markup import bullets, duration, figure, image, moment, number, section, text
from emim.report.overlay import slices_png
from emim.report.reconstruction import COLUMNS, DIFFERENCE_MAXIMUM, reconstructions
from emim.report.record import RunRecord, is_number, read_run
from emim.report.style import CSS

# State of the verdict: class of the banner, sign in the traffic light, headline.
_LIGHTS = {
    "healthy": ("good", "✓", "Healthy"),
    "undecided": ("unsure", "?", "Undecided"),
    "complete collapse": ("bad", "✕", "Complete collapse"),
    "dimensional collapse": ("bad", "✕", "Dimensional collapse"),
}
_MEANING = {
    "healthy": "The network has learned to work out what is hidden from what is visible.",
    "undecided": "The numbers do not tell yet whether the network learns something useful.",
    "complete collapse": "The network prints nearly the same picture whatever it is shown; "
    "it is of no use for fine-tuning.",
    "dimensional collapse": "The network's features all say nearly the same thing; "
    "much of its capacity is unused.",
}


def write_report(run_folder: str | Path) -> Path:
    """Write ``report/report.html`` into a run folder of pre-training or fine-tuning.

    The run may be finished, still going or broken off: what is not there yet is left open. An
    earlier report is replaced in one step, so a reader never finds half a page.

    Returns:
        The file written.
    """
    folder = Path(run_folder)
    file = folder / "report" / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = render(read_run(folder))
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, file)
    return file


def render(run: RunRecord) -> str:
    """The page as HTML text."""
    name = run.folder.resolve().name
    pretrain = run.command == "pretrain"
    kind = "Pre-training" if pretrain else "Fine-tuning"
    parts = list(_pretrain_sections(run) if pretrain else _finetune_sections(run))
    if notes := tables.messages(run):
        parts.append(("messages", "Warnings", notes))
    parts += [
        ("cohort", "Cohort", cohort_table(run)),
        ("split", "Split", f'<p class="note">{_SPLIT_NOTE}</p>' + tables.split_lists(run)),
        ("configuration", "Configuration", tables.settings(run)),
        ("environment", "Environment", tables.environment(run)),
        ("timings", "Timings", tables.timings(run)),
    ]
    links = "".join(f'<a href="#{i}">{text(title)}</a>' for i, title, _ in parts)
    body = "".join(section(*part) for part in parts)
    banner = _verdict(run) if pretrain else _outcome(run)
    facts = _facts(_pretrain_facts(run) if pretrain else _finetune_facts(run))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(name)} – {kind} report</title>
<style>{CSS}</style>
</head>
<body>
<header class="top">
<p class="kicker">EMIM · {kind} report</p>
<h1>{text(name)}</h1>
<p class="note">{_subtitle(run)}</p>
{banner}
{facts}
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer>Written by EMIM. For research; not a medical device.</footer>
</body>
</html>
"""


_SPLIT_NOTE = "Cases of one subject are never on both sides: validation shows what happens on new patients."


def _subtitle(run: RunRecord) -> str:
    when = f"last event {text(moment(run.times[1]))}" if run.times else "no events yet"
    state = {
        "finished": "finished",
        "running": "running, or interrupted; this page is renewed as the run goes on",
        "stopped": "stopped by an error",
        "waiting": "not started",
    }[run.state]
    return f"{state[0].upper()}{state[1:]} · {when}"


# ---------------------------------------------------------------- top of the page


def _banner(kind: str, sign: str, headline: str, body: str) -> str:
    return (
        f'<section class="verdict {kind}" id="verdict" aria-label="Verdict">'
        f'<div class="light" aria-hidden="true">{sign}</div>'
        f"<div><h2>{text(headline)}</h2>{body}</div></section>"
    )


def _verdict(run: RunRecord) -> str:
    if run.state == "stopped":
        return _stopped(run)
    state = run.verdict.get("state")
    if state not in _LIGHTS:
        return _banner("plain", "…", "No verdict yet", "<p>It is given once the run has been validated.</p>")
    kind, sign, headline = _LIGHTS[state]
    if run.state != "finished":
        headline += ", so far"
    body = f"<p>{text(_MEANING[state])}</p>"
    for key, title in (("why", "Why"), ("advice", "What to do")):
        items = run.verdict.get(key)
        if isinstance(items, list) and items:
            body += f"<h3>{title}</h3>{bullets(items)}"
    return _banner(kind, sign, headline, body)


def _stopped(run: RunRecord) -> str:
    error = run.errors[-1]
    lines = [f"<p>{text(error.get('what', ''))}</p>"]
    lines += [f"<p><code>{text(error['where'])}</code></p>"] if error.get("where") else []
    lines += [f"<p>{text(error['hint'])}</p>"] if error.get("hint") else []
    return _banner("bad", "✕", "Stopped by an error", "".join(lines))


def _outcome(run: RunRecord) -> str:
    """The banner of a fine-tuning run: how good it is so far, and where the model lies."""
    if run.state == "stopped":
        return _stopped(run)
    steps, values = run.curve("validation", "dice")
    model = ""
    if (run.folder / "model").is_dir():
        model = '<p>The model package is in <a href="../model/">the folder <code>model</code></a> of this run.</p>'
    if not len(steps):
        return _banner("plain", "…", "No validation yet", model)
    best = int(np.argmax(values))
    headline = f"Validation Dice {values[best]:.3f}" + ("" if run.state == "finished" else ", so far")
    body = f"<p>Mean over structures and validation cases, best at step {number(int(steps[best]))}"
    body += f"; {values[-1]:.3f} at the last validation." if best != len(steps) - 1 else "."
    body += (
        " The best step is chosen on these same cases, so expect a little less on new patients; "
        "judge by cases that took no part.</p>"
    )
    return _banner("plain", "◎", headline, body + model)


def _facts(facts: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _common_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    training, validation = len(tables.ids_of(run, "training")), len(tables.ids_of(run, "validation"))
    planned = run.steps_planned
    rate = tables.step_rate(run)
    elapsed = duration(run.times[1] - run.times[0]) if run.times else "–"
    return [
        ("Steps", number(run.steps_done), f"of {number(planned)}" if planned else ""),
        ("Cases", number(training + validation), f"{training} training, {validation} validation"),
        ("Modalities", number(len(run.modalities)), text(", ".join(run.modalities))),
        ("Time", elapsed, f"{rate:.3g} steps/s" if rate else ""),
    ]


def _pretrain_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    _, losses = run.curve("validation", "reconstruction")
    _, variances = run.curve("validation", "output_variance")
    ranks = {k: v[1][-1] for k, v in run.curves("validation", "rank_ratio").items()}
    template = run.collapse_lines.get("L_c")
    ratio = ""
    if len(losses) and is_number(template) and template > 0:
        ratio = f"{losses[-1] / template:.2f} × <i>L</i><sub>c</sub>; healthy is clearly below 1"
    facts = [
        ("Validation loss", number(losses[-1]) if len(losses) else "–", ratio),
        (
            "Output variance",
            number(variances[-1]) if len(variances) else "–",
            f"of the target's; under {CONSTANT_OUTPUT:g} is collapsed",
        ),
    ]
    if ranks:
        worst = min(ranks, key=lambda k: ranks[k])
        note = f"of what is attainable (level {int(worst) + 1}); under {LOW_RANK:g} is collapsed"
        facts.append(("Lowest effective rank", number(ranks[worst], 2), note))
    return facts + _common_facts(run)


def _finetune_facts(run: RunRecord) -> list[tuple[str, str, str]]:
    source = run.transfer.get("source")
    start = ("pre-trained" if source else "from scratch") if run.transfer else "–"
    facts = [("Start", start, text(Path(str(source)).name) if source else "")]
    for name, (_, values) in list(run.curves("validation", "dice_per_structure").items())[:4]:
        facts.append((f"Dice, {name}", number(values[-1]), "last validation"))
    return facts + _common_facts(run)


# ---------------------------------------------------------------- pre-training


def _pretrain_sections(run: RunRecord) -> Iterable[tuple[str, str, str]]:
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
        figure(
            "Regulariser",
            figures.regulariser(run),
            "The term that keeps features from all saying the same; it should fall and then level off. "
            "Its weight rises during the warm-up.",
            "Line plot of the regulariser over steps.",
        )
        if figures.regulariser(run)
        else "",
        "</div>",
    ]
    return "".join(parts)


def _alt_loss(run: RunRecord) -> str:
    steps, values = run.curve("validation", "reconstruction")
    lines = ", ".join(f"{n} {v:.3f}" for n, v in run.collapse_lines.items() if is_number(v))
    end = f" Validation ends at {values[-1]:.3f} at step {steps[-1]}." if len(steps) else ""
    return f"Line plot of training and validation loss over steps.{end} Collapse lines: {lines or 'not known'}."


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
        "<table><thead><tr><th>Last validation</th><th>loss</th><th>loss ÷ <i>L</i><sub>c</sub></th></tr></thead>"
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
        f"{DIFFERENCE_MAXIMUM:g} standard deviations or more. The patient's right is on the left of the picture.</p>"
    ]
    for plane, rows in planes.items():
        cells = ["<div></div>", *(f'<div class="head">{text(c)}</div>' for c in COLUMNS)]
        for row in rows:
            cells.append(f'<div class="name">{text(row.modality)}</div>')
            if not row.pictures:
                cells.append(f'<div class="none" style="grid-column:span {len(COLUMNS)}">not there in this case</div>')
            for column, picture in zip(COLUMNS, row.pictures, strict=False):
                alt = f"{row.modality}, {plane} slice: {column.lower()}"
                cells.append(image(picture.png, alt, f"aspect-ratio:{1 / picture.aspect:.4f}"))
        grid = f"grid-template-columns:minmax(48px,max-content) repeat({len(COLUMNS)},1fr)"
        parts.append(f'<div class="tiles" style="{grid}">{"".join(cells)}</div>')
    return "".join(parts)


def _collapse_section(run: RunRecord) -> str:
    return "".join(
        (
            '<div class="pair">',
            figure(
                "Does the output depend on the patient?",
                figures.output_variance(run),
                "How much the output differs between subjects, compared with how much the truth differs. "
                "Near or under the line, every patient gets the same picture: complete collapse.",
                "Line plot of the output's variance between subjects over steps.",
            ),
            figure(
                "Are all feature dimensions used?",
                figures.rank(run),
                "Effective rank of the features of each level, over the highest possible. "
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
            "</div>",
        )
    )


def _training_section(run: RunRecord) -> str:
    ratio = figure(
        "Realised mask ratio",
        figures.mask_ratio(run),
        "Share of all mask units that was really hidden, and how it splits into the kinds of mask.",
        "Line plot of the realised mask ratio and its parts over steps.",
    )
    return f'<div class="pair">{ratio}{_optimisation(run)}</div>'


def _optimisation(run: RunRecord) -> str:
    return figure(
        "Learning rate",
        figures.learning_rate(run),
        "Rises during the warm-up, then falls to zero.",
        "Line plot of the learning rate over steps.",
    ) + figure(
        "Gradient norm",
        figures.gradient_norm(run),
        "Size of each update before clipping; it should settle, and single peaks do no harm.",
        "Line plot of the gradient norm over steps.",
    )


# ---------------------------------------------------------------- fine-tuning


def _finetune_sections(run: RunRecord) -> Iterable[tuple[str, str, str]]:
    colors = {s["name"]: "#" + "".join(f"{int(c):02x}" for c in s["color"]) for s in tables.structures(run)}
    caption = (
        "Overlap of the automatic with the manual segmentation on the validation cases: 1 is perfect, 0 is none. "
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
    yield "training", "Optimisation", f'<div class="pair">{loss}{_optimisation(run)}</div>'
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
        f'<p class="note">Validation case <code>{text(case)}</code>{at}, on {text(name)}, in the slices where the '
        "reference is largest. The patient's right is on the left of the picture. "
        f"{_key(run, colors)}</p>"
    ]
    for title, label in (("Image", None), ("Reference (manual)", reference), ("Prediction (automatic)", prediction)):
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
        f'<span style="white-space:nowrap">{tables.swatch(c)}{text(names.get(v, f"label {v}"))}&ensp;</span>'
        for v, c in colors.items()
    )
