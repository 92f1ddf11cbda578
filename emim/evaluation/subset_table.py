"""The scores of subsets of modalities as text and as Markdown: one row per subset."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from emim.evaluation.subsets import marks

if TYPE_CHECKING:
    from emim.evaluation.by_subset import SubsetEvaluation

_MEASURES = (("Dice", "dice", 3), ("HD95 mm", "hd95", 1))


def text_table(result: SubsetEvaluation) -> str:
    """Marks, then Dice and HD95 of each structure and their mean; means over the cases."""
    header, rows = _cells(result)
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    marked = len(result.modalities)
    lines = []
    for row in (header, *rows):
        cells = [
            cell.center(w) if i < marked else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", *_notes(result)]) + "\n"


def markdown_table(result: SubsetEvaluation) -> str:
    """The same as :func:`text_table`."""
    header, rows = _cells(result)
    marked = len(result.modalities)
    ruler = [":-:"] * marked + ["--:"] * (len(header) - marked)
    lines = ["| " + " | ".join(row) + " |" for row in (header, ruler, *rows)]
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def _cells(result: SubsetEvaluation) -> tuple[list[str], list[list[str]]]:
    """The header and a row per subset; the last row is the mean of those above."""
    several = len(result.structures) > 1
    columns = [*result.structures, *(["mean"] if several else [])]
    header = [*result.modalities, *(f"{title} {c}" for title, _, _ in _MEASURES for c in columns)]
    numbers = []
    for evaluation in result.results.values():
        summary = evaluation.summary()
        row = []
        for _, measure, _ in _MEASURES:
            values = [summary[name][measure]["mean"] for name in result.structures]
            row += [*values, *([statistics.fmean(values)] if several else [])]
        numbers.append(row)
    digits = [d for _, _, d in _MEASURES for _ in columns]

    def written(values: list[float]) -> list[str]:
        return [f"{v:.{d}f}" for v, d in zip(values, digits, strict=True)]

    rows = [
        [*marks(subset, result.modalities), *written(row)]
        for subset, row in zip(result.results, numbers, strict=True)
    ]
    means = [statistics.fmean(column) for column in zip(*numbers, strict=True)]
    rows.append(["mean", *[""] * (len(result.modalities) - 1), *written(means)])
    return header, rows


def _notes(result: SubsetEvaluation) -> list[str]:
    cases = next(iter(result.results.values())).cases
    notes = [f"Model {result.model}. Means over {len(cases)} cases, the same in every row."]
    if result.left_out:
        notes.append(f"Left out, as they lack a modality: {', '.join(result.left_out)}.")
    if result.failed:
        failed = ", ".join(result.failed)
        notes.append(f"Failed: {failed}. Counted as Dice 0 and HD95 the image diagonal.")
    return [*notes, *(result.seen.sentences(result.seen.learned) if result.seen else ())]
