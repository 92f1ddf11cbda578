"""The scores of an evaluation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emim.evaluation.segmentation import Evaluation

_COLUMNS = ("Dice", "HD95 mm", "ref. mL", "pred. mL")


def text_table(result: Evaluation) -> str:
    """One block per structure: every case, then mean, median and standard deviation."""
    width = max(len("without empty"), *(len(c.id) for c in result.cases)) + 2
    lines: list[str] = []
    summary = result.summary()
    for i, name in enumerate(result.structures):
        lines += [name, "".ljust(width) + "".join(c.rjust(10) for c in _COLUMNS)]
        for case in result.cases:
            s = case.scores[i]
            numbers = f"{s.dice:10.4f}{s.hd95:10.2f}{s.reference_ml:10.2f}{s.prediction_ml:10.2f}"
            remark = "  failed" if case.error else f"  {s.empty} empty" if s.empty else ""
            lines.append(case.id.ljust(width) + numbers + remark)
        lines.append("-" * (width + 10 * len(_COLUMNS)))
        entry = summary[name]
        rows = [("mean", "mean"), ("median", "median"), ("std", "std")]
        if entry["both_empty"]:
            rows.insert(1, ("without empty", "mean_without_empty"))
        for title, key in rows:
            numbers = [
                "-".rjust(10) if entry[m][key] is None else f"{entry[m][key]:10.{digits}f}"
                for m, digits in (("dice", 4), ("hd95", 2))
            ]
            lines.append(title.ljust(width) + "".join(numbers))
        if entry["both_empty"]:
            lines.append(
                f"In {entry['both_empty']} of {entry['cases']} cases reference and prediction are both "
                'empty: Dice 1, HD95 0; "without empty" is the mean of the others.'
            )
        lines.append("")
    lines.append(f"Mean Dice over structures: {result.mean_dice():.4f}")
    for case in result.failed:
        lines.append(f"Failed: {case.id}: {case.error} Counted as Dice 0 and HD95 the image diagonal.")
    if result.seen:
        lines += result.seen.sentences({c.id for c in result.cases})
    return "\n".join(lines) + "\n"
