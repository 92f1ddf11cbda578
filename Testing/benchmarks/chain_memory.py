"""The peak memory of every command of the chain on cases of 240 x 240 x 155 voxels with four modalities.

Each command is a process of its own; what `--dry-run` said beforehand stands beside what was then used.
Without arguments the cohort is three synthetic heads at 1 mm, trained at their own spacing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measure.cohort import heads
from measure.machine import machine_line
from measure.pairs import run

from emim.cohort.scan import scan

EMIM = [sys.executable, "-m", "emim"]
LIMIT = 4.0  # GiB


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", help="folder or datalist of at least three subjects with labels")
    p.add_argument("--preset", default="tiny")
    p.add_argument("--spacing", default="1,1,1", help="mm (default: 1,1,1)")
    p.add_argument("--steps", type=int, default=4)
    o = p.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="emim-memory-") as folder:
        work = Path(folder)
        cohort = o.cohort or str(heads(work / "heads", 3))
        shared = ["--cache", str(work / "cache")]
        shared += ["--set", f"train.steps={o.steps}", "--set", f"train.validate_every={o.steps}"]
        pretrained, tuned, results = (str(work / n) for n in ("pretrained", "tuned", "results"))
        pretrain = [*EMIM, "pretrain", cohort, "--out", pretrained, *shared]
        pretrain += ["--preset", o.preset, "--spacing", o.spacing]
        finetune = [*EMIM, "finetune", cohort, "--init", pretrained, "--out", tuned, *shared]
        case = scan(cohort).cohort.cases[0]
        segment = [*EMIM, "segment", "--model", tuned, "--output", f"{results}/{case.id}.nii.gz"]
        segment += ["--device", "cpu", *(a for m, f in case.images.items() for a in ("--input", f"{m}={f}"))]
        evaluate = [*EMIM, "evaluate", cohort, "--predictions", results, "--model", tuned, "--cases", case.id]
        print(f"{'command':10s} {'wall s':>8s} {'peak GiB':>9s} {'--dry-run said':>15s}")
        report("scan", [*EMIM, "scan", cohort])
        report("pretrain", pretrain, estimated=True)
        report("finetune", finetune, estimated=True)
        report("segment", segment)
        report("evaluate", evaluate)


def report(name: str, command: list[str], estimated: bool = False) -> None:
    said = ""
    if estimated:
        output = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
        expected = json.loads(output.stdout.splitlines()[-1])["memory_bytes"]
    seconds, used = run(command)
    if estimated:
        said = f"{expected / 2**30:.2f} ({100 * (expected / used - 1):+.0f} %)"
    over = "  more than 4 GiB" if used / 2**30 > LIMIT else ""
    print(f"{name:10s} {seconds:8.1f} {used / 2**30:9.2f} {said:>15s}{over}", flush=True)


if __name__ == "__main__":
    main()
