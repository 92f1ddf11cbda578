"""What each quality of `emim segment` costs in time and brings in Dice, on held-out cases.

Without arguments: a small model of synthetic heads at 2 mm, on four heads it has not seen. With --model,
--cohort and --split (a split file with ``test``) it is yours. Times are of whole processes and of all test
cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure.machine import machine_line
from measure.pairs import run
from segment_speed import train

from emim.inference.quality import QUALITIES


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="model package or fine-tuning run")
    p.add_argument("--cohort", help="labelled cases")
    p.add_argument("--split", help="split file that names the test cases")
    p.add_argument("--rounds", type=int, default=3)
    o = p.parse_args()
    if len({bool(o.model), bool(o.cohort), bool(o.split)}) > 1:
        p.error("--model, --cohort and --split go together")
    with tempfile.TemporaryDirectory(prefix="emim-quality-") as folder:
        work = Path(folder)
        model, cohort, split = (o.model, o.cohort, o.split) if o.model else phantoms(work)
        print(machine_line())
        seconds: dict[str, list[float]] = {q: [] for q in QUALITIES}
        for turn in range(o.rounds):
            for quality in list(QUALITIES)[:: 1 if turn % 2 else -1]:
                command = [sys.executable, "-m", "emim", "segment", "--model", model, "--cohort", cohort]
                command += ["--split", split, "--output", str(work / quality), "--overwrite"]
                seconds[quality].append(run([*command, "--quality", quality, "--device", "cpu"])[0])
        dice = {q: scores(model, cohort, split, work / q, work / f"{q}.json") for q in QUALITIES}
    usual = statistics.median(seconds["balanced"])
    print("| quality | time | mean Dice | against balanced | worst structure of a case |")
    print("| --- | --- | --- | --- | --- |")
    for quality, values in dice.items():
        change = [v - dice["balanced"][k] for k, v in values.items()]
        mean = statistics.mean(values.values())
        print(
            f"| {quality} | {statistics.median(seconds[quality]) / usual:.2f} | {mean:.4f} "
            f"| {statistics.mean(change):+.4f} | {min(change):+.4f} |"
        )


def phantoms(work: Path) -> tuple[str, str, str]:
    """A model of synthetic heads, other heads, and the split that makes all of them the test set.

    Trained until it does well: tiles and overlap mean something else to a model that has hardly learned.
    """
    model, cohort, split = train(work, spacing=2, crop=48, steps=900), work / "test", work / "split.json"
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(cohort), "--subjects", "4"]
    subprocess.run([*command, "--labelled", "4", "--spacing", "2", "--seed", "9"], check=True)
    split.write_text(json.dumps({"test": [f"sub-{i:03d}" for i in range(1, 5)]}))
    return str(model), str(cohort), str(split)


def scores(model: str, cohort: str, split: str, folder: Path, file: Path) -> dict[tuple[str, str], float]:
    """Dice of each structure of each case."""
    command = [sys.executable, "-m", "emim", "evaluate", cohort, "--predictions", str(folder)]
    command += ["--model", model, "--split", split, "--output", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(file.read_text())
    return {(c["id"], s["structure"]): s["dice"] for c in found["cases"] for s in c["scores"]}


if __name__ == "__main__":
    main()
