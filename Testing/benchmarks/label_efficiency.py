"""Does pre-training pay with few labels? Fine-tuning from pre-trained weights against from scratch.

Both arms have the same plan, steps, labelled cases, crops and augmentation, seed by seed; transferred
weights learn at transferred_rate times the learning rate. The test cases are segmented once, when all
models are done; `emim finetune` warns if the pre-training has seen them. Without arguments all of it is
done on synthetic heads with the demo's budget. The result is results.md and results.json in the output
folder; after an interruption, finished fine-tunings are kept. The spread is over seeds of fine-tuning,
from one pre-training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emim.demo import PHANTOMS

ARMS = {"pre-trained": None, "scratch": "none"}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", help="folder or datalist; default: synthetic heads")
    p.add_argument("--split", help="split file with test and validation")
    p.add_argument("--pretrained", help="pre-training run; default: one is made")
    p.add_argument("--out", help="output folder; default: a temporary one")
    p.add_argument("--labelled", type=int, nargs="+", default=[6, 3], help="numbers of labelled cases")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--structure", nargs="+", default=list(PHANTOMS.structures))
    p.add_argument(
        "--settings",
        nargs=argparse.REMAINDER,
        default=list(PHANTOMS.finetuning),
        help="the rest goes to emim finetune",
    )
    p.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, one thread each")
    o = p.parse_args()
    if bool(o.cohort) != bool(o.split):
        p.error("--cohort and --split go together")
    out = Path(o.out or tempfile.mkdtemp(prefix="emim-labels-")).absolute()
    out.mkdir(parents=True, exist_ok=True)
    cohort, split, pretrained = o.cohort, o.split, o.pretrained
    if cohort is None:
        cohort, split = phantoms(out)
    cache = ["--cache", str(out / "cache")]
    if pretrained is None:
        pretrained = str(out / "pretrained")
        if (Path(pretrained) / "config.json").exists():  # finished or interrupted
            emim("pretrain", "--out", pretrained, *cache, "--resume")
        else:
            emim("pretrain", cohort, "--out", pretrained, "--split", split, *cache, *PHANTOMS.pretraining)

    grid = list(itertools.product(o.labelled, o.seeds, ARMS))
    structures = [f"--structure={s}" for s in o.structure]

    def train(job: tuple[int, int, str]) -> None:
        labelled, seed, arm = job
        run = out / name(*job)
        if (run / "model").is_dir():
            return
        init = ARMS[arm] or pretrained
        emim(
            "finetune", cohort, f"--init={init}", f"--plan={pretrained}", "--out", str(run), "--overwrite",
            "--split", split, *cache, *structures, f"--labelled={labelled}", f"--seed={seed}", *o.settings,
            log=out / f"{run.name}.log",
        )  # fmt: skip

    def score(job: tuple[int, int, str]) -> None:
        run = out / name(*job)
        result, folder, log = run / "test.json", run / "test", out / f"{run.name}.log"
        if result.exists():
            return
        emim("segment", f"--model={run}", f"--cohort={cohort}", f"--split={split}", "--output", str(folder),
             "--overlap=0.25", "--overwrite", log=log)  # fmt: skip
        emim("evaluate", cohort, f"--predictions={folder}", f"--model={run}", f"--split={split}",
             "--output", str(result), log=log)  # fmt: skip

    with ThreadPoolExecutor(o.jobs) as pool:
        list(pool.map(train, grid))
        list(pool.map(score, grid))
    results = {name(*job): json.loads((out / name(*job) / "test.json").read_text()) for job in grid}
    (out / "results.json").write_text(json.dumps(results, indent=1))
    text = table(results, o.labelled, o.seeds)
    (out / "results.md").write_text(text)
    print(text)


def name(labelled: int, seed: int, arm: str) -> str:
    return f"{arm}-labelled{labelled}-seed{seed}"


def phantoms(out: Path) -> tuple[str, str]:
    """The demo's cohort: labelled subjects 1 to 14, of whom 1 to 6 are for the test and 7, 8 validate."""
    cohort, split = out / "cohort", out / "split.json"
    if not cohort.exists():
        emim("phantom", "--out", str(cohort), "--subjects=28", "--labelled=14")
    ids = [f"sub-{i:03d}" for i in range(1, 9)]
    split.write_text(json.dumps({"test": ids[:6], "validation": ids[6:]}))
    return str(cohort), str(split)


def emim(*arguments: str, log: Path | None = None) -> None:
    print("$ emim", *arguments, flush=True)
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if log else {})}
    with open(log or os.devnull, "a") as file:
        subprocess.run(
            [sys.executable, "-m", "emim", *arguments], check=True, env=environment,
            stdout=file if log else None, stderr=file if log else None,
        )  # fmt: skip


def table(results: dict[str, dict], labelled: list[int], seeds: list[int]) -> str:
    """Mean over test cases, then mean ± standard deviation over seeds; then every case."""
    first = next(iter(results.values()))
    structures = first["structures"]
    lines = ["| labelled | start | " + " | ".join(structures) + " | mean Dice | per seed |"]
    lines.append("| --- " * (len(structures) + 4) + "|")
    for count, arm in itertools.product(labelled, ARMS):
        runs = [results[name(count, s, arm)] for s in seeds]
        cells = [spread([r["summary"][s]["dice"]["mean"] for r in runs]) for s in structures]
        means = [r["mean_dice"] for r in runs]
        per_seed = ", ".join(f"{m:.3f}" for m in means)
        lines.append(f"| {count} | {arm} | " + " | ".join(cells) + f" | **{spread(means)}** | {per_seed} |")
    lines += [
        "",
        "Pre-trained minus scratch, mean Dice, seed by seed: " + gains(results, labelled, seeds) + ".",
    ]
    lines += ["", "Every test case, Dice, mean over seeds:", ""]
    arms = [(count, arm) for count in labelled for arm in ARMS]
    lines.append("| case | structure | " + " | ".join(f"{arm}, {count}" for count, arm in arms) + " |")
    lines.append("| --- " * (len(arms) + 2) + "|")
    for i, case in enumerate(first["cases"]):
        for k, structure in enumerate(structures):
            cells = []
            for count, arm in arms:
                scores = [results[name(count, s, arm)]["cases"][i]["scores"][k]["dice"] for s in seeds]
                cells.append(f"{statistics.fmean(scores):.3f}")
            empty = " (reference empty)" if first["cases"][i]["scores"][k]["reference_ml"] == 0 else ""
            lines.append(f"| {case['id']} | {structure}{empty} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def gains(results: dict[str, dict], labelled: list[int], seeds: list[int]) -> str:
    def gain(count: int, seed: int) -> str:
        pretrained, scratch = (results[name(count, seed, arm)]["mean_dice"] for arm in ARMS)
        return f"{pretrained - scratch:+.3f}"

    return "; ".join(f"{n} labelled: " + ", ".join(gain(n, s) for s in seeds) for n in labelled)


def spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


if __name__ == "__main__":
    main()
