"""``emim runs``: the runs in a folder and how far each is."""

from __future__ import annotations

import argparse
import time
from typing import Any

from emim.commands.shared import add_command, say
from emim.events import Events
from emim.run_state import RunState, list_runs


def add_runs(commands: Any) -> None:
    p = add_command(commands, "runs", _runs, "list the training runs in a folder and how far each is")
    p.add_argument("folder", metavar="FOLDER", help="holds run folders, one or two levels deep")


def _runs(options: argparse.Namespace, events: Events) -> None:
    runs = list_runs(options.folder)
    for run in runs:
        say(events, _line(run))
    if not runs:
        say(events, f"There is no run in {options.folder}.")
    events.result(runs=[run.to_dict() for run in runs])


def _line(run: RunState) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    state = run.state
    if run.verdict:
        state += f" ({run.verdict.get('state')})"
    left = f", {run.seconds_left / 60:.0f} min left" if run.seconds_left is not None else ""
    said = f"\n  {run.error['what']}" if run.error else ""
    kind = "classify" if run.task == "classification" else run.command
    return f"{begun}  {kind:8s}  step {run.step} of {run.steps}{left}  {state:24s}  {run.folder}{said}"
