"""What the report of a contrastive pre-training has in place of reconstruction: how well crops are told."""

from __future__ import annotations

from emim.report import figures
from emim.report.markup import figure
from emim.report.record import RunRecord


def contrast_section(run: RunRecord) -> str:
    """The loss, and how near partners are."""
    loss = figure(
        "Contrastive loss",
        figures.contrastive(run),
        "Two crops of one subject are to look alike to the network, and unlike those of the other subjects "
        "in the batch; lower is better. The line is what a network reaches on validation that does not tell "
        "subjects apart. Validation compares as many subjects as a batch of training where there are so "
        "many, else all: then its task is easier. Faint: single steps.",
        "Line plot of training and validation loss over steps.",
    )
    found = figure(
        "How many crops find their partner?",
        figures.found(run),
        "Share of the crops that are most like the other crop of the same subject.",
        "Line plot of the share of crops that find their partner, over steps.",
    )
    alignment = figure(
        "How far are partners apart?",
        figures.alignment(run),
        "Mean squared distance on the unit sphere between two crops of one subject: 0 where they are the "
        "same to the network, 2 where they have nothing in common.",
        "Line plot of the alignment over steps.",
    )
    return f'{loss}<div class="pair">{found}{alignment}</div>'
