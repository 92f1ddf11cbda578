"""The report of a run: one HTML file that needs nothing else, for the screen and for paper."""

from __future__ import annotations

from pathlib import Path

from emim.report import banner, class_banner, tables
from emim.report.classification_sections import classification_sections
from emim.report.cohort_table import cohort_table
from emim.report.finetune_sections import finetune_sections
from emim.report.markup import moment, section, text
from emim.report.pretrain_sections import pretrain_sections
from emim.report.record import RunRecord, read_run
from emim.report.style import CSS
from emim.run import RunFolder, write_atomically


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
    write_atomically(file, render(read_run(folder)).encode("utf-8"))
    return file


def render(run: RunRecord) -> str:
    """The page as HTML text."""
    name = run.folder.resolve().name
    pretrain = run.command == "pretrain"
    kind = "Pre-training" if pretrain else "Fine-tuning"
    classify = not pretrain and run.task == "classification"
    sections = classification_sections if classify else finetune_sections
    parts = list(pretrain_sections(run) if pretrain else sections(run))
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
    outcome = class_banner.outcome if classify else banner.outcome
    top = banner.verdict(run) if pretrain else outcome(run)
    found = class_banner.facts if classify else banner.finetune_facts
    facts = banner.fact_list(banner.pretrain_facts(run) if pretrain else found(run))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_OUTSIDE}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(name)} – {kind} report</title>
<style>{CSS}</style>
</head>
<body>
<header class="top">
<p class="kicker">EMIM · {kind} report</p>
<h1>{text(name)}</h1>
<p class="note">{_subtitle(run)}</p>
{top}
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


_NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _subtitle(run: RunRecord) -> str:
    when = f"last event {text(moment(run.times[1]))}" if run.times else "no events yet"
    state = {
        "finished": "finished",
        "running": "running, or interrupted; this page is renewed as the run goes on",
        "stopped": "stopped by an error",
        "waiting": "not started",
    }[run.state]
    return f"{state[0].upper()}{state[1:]} · {when}"


def update_report(run: RunFolder) -> Path | None:
    """Write the report of a run in progress; a picture that cannot be drawn must not cost the training."""
    try:
        return write_report(run.path)
    except Exception as error:
        run.events.warning(f"The report could not be written: {error!r}.", run.path)
        return None
