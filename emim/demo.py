"""The whole chain in a few minutes: scan, pre-train, fine-tune twice, segment, evaluate.

It calls the same commands a user would, and prints each one, so that its output is a tutorial.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emim.cohort.scan import Scan, scan
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.folder_content import folder_content
from emim.stopping import EXIT_CANCELLED
from emim.training.preflight import refuse_inside

MARKER = "emim-demo.json"


@dataclass(frozen=True)
class Plan:
    """How long and on what the demo trains: enough to see an effect on two cores, no more."""

    pretraining: tuple[str, ...]
    finetuning: tuple[str, ...]
    structures: tuple[str, ...]


PHANTOM_SUBJECTS, PHANTOM_LABELLED = 28, 12
PHANTOMS = Plan(
    pretraining=(
        "--steps=250",
        "--set=train.crop=32",
        "--set=network.filters=8",
        "--set=train.learning_rate=3e-3",
        "--set=train.validate_every=50",
    ),
    finetuning=("--steps=120", "--set=train.learning_rate=3e-3", "--set=train.validate_every=60"),
    structures=("WT=1,2,3", "TC=1,3", "ET=3"),
)
OWN = Plan(pretraining=("--steps=400",), finetuning=("--steps=200",), structures=())


def demo(out: str | Path, cohort: str | None, overwrite: bool, events: Events) -> None:
    """Run the chain in folder ``out``, on ``cohort`` or on phantoms made there.

    Raises:
        EmimError: when ``out`` is in use, or the cohort has too few labelled subjects.
    """
    started = time.time()
    refuse_inside(out, overwrite, [cohort])
    out = _make_folder(Path(out), overwrite)
    plan = OWN if cohort else PHANTOMS
    if cohort is None:
        cohort = str(out / "cohort")
        _emim(
            events,
            "phantom",
            "--out",
            cohort,
            f"--subjects={PHANTOM_SUBJECTS}",
            f"--labelled={PHANTOM_LABELLED}",
        )
    _emim(events, "scan", cohort, "--out", str(out / "scan"))
    table = str(out / "scan" / "cohort.json")
    split = out / "split.json"
    split.write_text(json.dumps(_split(scan(table)), indent=1), encoding="utf-8")
    shared = ["--split", str(split), "--cache", str(out / "cache")]

    pre = str(out / "pretrained")
    _emim(events, "pretrain", table, "--out", pre, *shared, *plan.pretraining)
    structures = [f"--structure={s}" for s in plan.structures]
    for name, init in (("from-pretrained", pre), ("from-scratch", "none")):
        run = str(out / name)
        _emim(
            events,
            "finetune",
            table,
            f"--init={init}",
            f"--plan={pre}",
            "--out",
            run,
            *shared,
            *structures,
            *plan.finetuning,
        )
        folder = str(out / f"{name}-test")
        _emim(
            events,
            "segment",
            f"--model={run}",
            f"--cohort={table}",
            f"--split={split}",
            "--output",
            folder,
            "--overlap=0.25",
        )
        _emim(
            events,
            "evaluate",
            table,
            f"--predictions={folder}",
            f"--model={run}",
            f"--split={split}",
            "--output",
            str(out / f"{name}-test.json"),
        )
    _summary(out, json.loads(split.read_text())["test"][0], time.time() - started)


def _emim(events: Events, *arguments: str) -> None:
    from emim.cli import run_command

    print(f"\n$ emim {shlex.join(arguments)}", flush=True)
    code = run_command(arguments)
    if code == EXIT_CANCELLED:
        raise Cancelled("Stopped.")
    if code:
        raise EmimError(
            f"The step `emim {arguments[0]}` ended with exit code {code}.", hint="Its message is above."
        )


def _make_folder(out: Path, overwrite: bool) -> Path:
    out = out.absolute()
    if out.exists() and folder_content(out):
        if not (out / MARKER).is_file():
            raise EmimError("The folder is not empty and not a demo.", out, "Choose another --out.")
        if not overwrite:
            raise EmimError("The demo's folder exists already.", out, "Give --overwrite to replace it.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(json.dumps({"made": time.time()}), encoding="utf-8")
    return out


def _split(found: Scan) -> dict[str, list[str]]:
    """A third of the labelled subjects for the test, two cases for validation, drawn before training."""
    labelled = list(found.cohort.labelled())
    subjects = sorted({c.subject for c in labelled})
    if len(subjects) < 6:
        raise EmimError(
            f"The demo needs labels for six subjects at least; {len(subjects)} have them.",
            found.source,
            "Use `emim pretrain`, `finetune` and `segment` one by one.",
        )
    order = [subjects[i] for i in np.random.default_rng(0).permutation(len(subjects))]
    test, validation = order[: max(2, len(order) // 3)], order[-2:]
    return {
        "test": [c.id for c in labelled if c.subject in test],
        "validation": [c.id for c in labelled if c.subject in validation],
    }


def _summary(out: Path, case: str, seconds: float) -> None:
    rows = []
    for name in ("from-pretrained", "from-scratch"):
        summary = json.loads((out / f"{name}-test.json").read_text(encoding="utf-8"))["summary"]
        rows.append((name, {k: v["dice"]["mean"] for k, v in summary.items()}))
    names = list(rows[0][1])
    print(f"\nMean Dice on the held-out test cases ({seconds / 60:.1f} minutes in all)\n")
    print(f"{'':18s}" + "".join(f"{n:>12s}" for n in names) + f"{'mean':>12s}")
    for name, dice in rows:
        values = [dice[n] for n in names]
        print(f"{name:18s}" + "".join(f"{v:12.3f}" for v in [*values, sum(values) / len(values)]))
    print("\nOne seed and few cases: an illustration, not a comparison of methods.\n")
    for what, path in (
        ("Pre-training report", out / "pretrained" / "report" / "report.html"),
        ("Fine-tuning report", out / "from-pretrained" / "report" / "report.html"),
        ("Overlay", out / "from-pretrained-test" / f"{case}_overlay.png"),
    ):
        print(f"{what + ':':21s}{path}")
