"""What a study found, as Markdown, JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.events import to_json
from emim.replace import replace_file
from emim.report.record import is_number
from emim.run import write_atomically, write_json
from emim.study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_CORRECTED = "*Intervals and agreement of seeds are not corrected for the number of comparisons.*"


@dataclass
class Table:
    """Rows of texts and numbers under a title; ``note`` says how to read it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


@dataclass
class Report:
    """Attributes:
    verdict: sentences.
    tables: with all arms, also failed and unfinished ones.
    figures: file name without ending to figure and caption.
    """

    verdict: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, tuple[Figure, str]] = field(default_factory=dict)


def write_report(results: Results) -> Path:
    """Write ``results.md``, ``results.json`` and the figures; return the first.

    It may be called at any time: what is not there yet is shown as not there.
    """
    plan = results.plan
    report = plan.study.report(results)
    for name, (figure, _) in report.figures.items():
        part = plan.out / f"{name}.png.part"
        figure.savefig(part, format="png", dpi=150)
        replace_file(part, plan.out / f"{name}.png")
    state = _state_table(results)
    data = {
        **plan.record(),
        "seeds": plan.seeds,
        "arms": {a.name: a.text for a in plan.arms},
        "left_out": plan.left_out,
        "verdict": report.verdict,
        "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in report.tables],
        "outcomes": [_outcome(o) for o in results.outcomes],
    }
    write_json(plan.out / "results.json", data)
    file = plan.out / "results.md"
    write_atomically(file, _markdown(results, report, state).encode())
    return file


def cell(value: Any, digits: int = 3) -> str:
    """A number or nothing as the tables show it."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _markdown(results: Results, report: Report, state: Table) -> str:
    plan = results.plan
    unfinished = sum(not o.finished for o in results.outcomes)
    lines = [f"# Study: {plan.study.name}", "", plan.study.question, ""]
    if unfinished:
        lines += [f"**{unfinished} of {len(results.outcomes)} results are not there (yet); see below.**", ""]
    lines += ["## Verdict", "", *(f"- {v}" for v in report.verdict or ["Nothing is finished yet."]), ""]
    lines += [NOT_CORRECTED, ""]
    lines += ["## Tables", "", *(t.markdown() for t in report.tables)]
    for name, (_, caption) in report.figures.items():
        lines += [f"![{caption}]({name}.png)", "", f"*{caption}*", ""]
    lines += ["## What was compared", ""]
    lines += [
        f"- **{a.name}**: {a.text}" + (f"; against {a.control}" if a.control else "") for a in plan.arms
    ]
    lines += [f"- **{name}** was left out: {why}" for name, why in plan.left_out.items()]
    lines += ["", *_conditions(results), "", state.markdown()]
    return "\n".join(lines) + "\n"


def _conditions(results: Results) -> list[str]:
    plan, base = results.plan, results.plan.base("pretrain")
    split = plan.split
    cases = plan.cohort().cases
    told = [
        f"- Cohort: {len(cases)} cases to train or validate on, {len(split['validation'])} of them validate; "
        f"{len(split['test'])} test cases, seen by nothing but the finished models.",
        f"- Preset {plan.preset}; pre-training {base.train.steps} steps of {base.train.batch} crops of "
        f"{base.train.crop}³, the same for all arms unless the arm says otherwise.",
        f"- Voxels {' × '.join(f'{s:g}' for s in plan.spacing)} mm; {', '.join(plan.modalities)}.",
        f"- Seeds: {', '.join(map(str, plan.seeds))}; a seed draws weights, batches and labelled cases, the "
        "same cases for every arm.",
    ]
    if plan.study.finetunes:
        config = plan.base("finetune")
        told.insert(
            2,
            f"- Fine-tuning {config.train.steps} steps of {config.train.batch} crops, the same for all arms; "
            f"weights that were pre-trained learn at {config.transferred_rate:g} times the rate of new ones"
            f"{f', after {config.head_start:g} of the steps' if config.head_start else ''}; "
            f"the model is that of the {'best validation' if config.keep == 'best' else 'last step'}.",
        )
    given = {k: v for k, v in plan.settings.items() if v}
    told += [f"- Settings of every {k} run: `{json.dumps(to_json(v))}`" for k, v in given.items()]
    return told


def _state_table(results: Results) -> Table:
    rows = []
    for training in {t.name: t for o in results.outcomes for t in o.trainings}.values():
        planned = training.record.steps_planned
        steps = f"{training.steps} of {planned}" if planned else "-"
        per_step = cell(training.seconds_per_step)
        rows.append([training.name, training.state, steps, per_step, training.reason or ""])
    return Table("Runs", ["run", "state", "steps", "s per step", "reason"], rows)


def _outcome(outcome: Any) -> dict[str, Any]:
    pre, tuned = outcome.pretraining, outcome.finetuning
    found: dict[str, Any] = {
        "arm": outcome.arm.name,
        "seed": outcome.seed,
        "labelled": outcome.labelled,
        "finished": outcome.finished,
        "reason": outcome.reason,
    }
    if pre is not None:
        found["pretraining"] = {
            "state": pre.state,
            "verdict": pre.verdict,
            "steps": pre.steps,
            "seconds_per_step": pre.seconds_per_step,
            "loss": pre.last("reconstruction"),
            "loss_over_line": pre.loss_over_line,
            "still_falling": bool(pre.still_falling),
            "lines": pre.lines(),
            "output_variance": pre.last("output_variance"),
            "effective_rank": pre.levels("effective_rank"),
            "rank_ratio": pre.levels("rank_ratio"),
        }
    if tuned is not None:
        found["finetuning"] = {
            "state": tuned.state,
            "steps": tuned.steps,
            "seconds_per_step": tuned.seconds_per_step,
            "validation_dice": [list(map(float, x)) for x in zip(*tuned.curve("dice"), strict=True)],
            "best": tuned.best(),
        }
        found["test"] = {k: v for k, v in outcome.test.items() if is_number(v)}
        found["test_dice"] = outcome.dice
        found["test_cases"] = outcome.case_dice()
    return found


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(cell(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
