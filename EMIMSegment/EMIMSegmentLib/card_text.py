"""A model's card as text that a radiologist can read at a glance."""

from __future__ import annotations

import html
from collections.abc import Sequence

from slicer.i18n import tr as _

from EMIMSegmentLib.marks import QUIET
from EMIMSegmentLib.result_nodes import versionText


def cardText(model) -> str:
    """Rich text for a usable :class:`EMIMLib.models.InstalledModel`."""
    card = model.card
    rows = [
        (_("Tells apart"), html.escape(", ".join(card.classes))),
        (_("Finds"), " &nbsp; ".join(swatch(s.color) + " " + html.escape(s.name) for s in card.structures)),
        (_("Needs"), html.escape(inputsText(card.modalities, card.optional))),
        (_("Trained"), html.escape(trainingText(card.training))),
        (_("Version"), html.escape(versionText(model.version))),
        (_("Use"), html.escape(card.intended_use)),
        (_("Licence"), html.escape("" if card.licence == "unspecified" else card.licence)),
    ]
    lines = [
        f'<tr><td style="color:{QUIET}; padding-right:8px">{name}</td><td>{text}</td></tr>'
        for name, text in rows
        if text
    ]
    return f"<p>{html.escape(card.description)}</p><table>{''.join(lines)}</table>"


def swatch(color: Sequence[int]) -> str:
    """A coloured square; ``color`` is red, green, blue from 0 to 255."""
    red, green, blue = color
    return f'<span style="color:#{red:02x}{green:02x}{blue:02x}">■</span>'


def inputsText(modalities: Sequence[str], optional: Sequence[str]) -> str:
    """Which MRI sequences a model takes, and which it can do without."""
    required = [m for m in modalities if m not in optional]
    if not required:
        if len(modalities) == 1:
            return modalities[0]
        return _("{all}; any of them may be missing, but not all").format(all=", ".join(modalities))
    if not optional:
        return ", ".join(required)
    return _("{required}; better also with {optional}").format(
        required=", ".join(required), optional=", ".join(m for m in modalities if m in optional)
    )


def trainingText(training: dict) -> str:
    """Cases, validation scores and where the weights came from; empty when nothing is known."""
    parts = []
    if training.get("training_cases"):
        parts.append(_("on {n} labelled cases").format(n=training["training_cases"]))
    dice = training.get("validation_dice")
    if isinstance(dice, (int, float)):
        cases = training.get("validation_cases")
        text = _("mean Dice {dice:.2f} in {n} validation cases") if cases else _("mean Dice {dice:.2f}")
        parts.append(text.format(dice=dice, n=cases))
    parts += _classScores(training)
    if training.get("initialisation") not in (None, "", "from scratch"):
        parts.append(_("from pre-trained weights"))
    return ", ".join(parts)


def _classScores(training: dict) -> list[str]:
    """Of a classification model: how well it told the validation cases apart."""
    accuracy, area = (training.get(f"validation_{name}") for name in ("balanced_accuracy", "auc"))
    if not isinstance(accuracy, (int, float)):
        return []
    text = _("balanced accuracy {value:.2f}").format(value=accuracy)
    if isinstance(area, (int, float)):
        text += _(", AUC {value:.2f}").format(value=area)
        interval = training.get("validation_auc_interval")
        if interval:
            text += _(" (95 % interval {low:.2f} to {high:.2f})").format(low=interval[0], high=interval[1])
    if training.get("validation_cases"):
        text += _(" in {n} validation cases").format(n=training["validation_cases"])
    return [text]
