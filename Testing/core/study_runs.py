"""Run folders as trainings leave them, written in a moment, for tests of studies."""

from __future__ import annotations

import json

import numpy as np

from emim.study.jobs import Job


def option(command, name):
    """The value of ``--name=value`` among the arguments, or None."""
    return next((a.split("=", 1)[1] for a in command if a.startswith(f"--{name}=")), None)


class FakeRun:
    """A process that has done its job at the second look; see :class:`emim.study.engine.Process`.

    Args:
        job: what to pretend.
        speed: of learning; fine-tuning from scratch has 1.
        fails: end with an error instead.
    """

    def __init__(self, job: Job, log, speed: float = 1.0, fails: str | None = None) -> None:
        self.job, self.log, self.speed, self.fails = job, log, speed, fails
        self.looks, self.stopped, self.killed = 0, False, False

    def poll(self):
        self.looks += 1
        if self.stopped or self.killed:
            return 3
        if self.looks < 2:
            return None
        if self.fails:
            self.log.write_text(f"Loading torch.\nerror: {self.fails}\n  hint:  none\n")
            return 2
        command = self.job.commands[0]
        seed = int(option(command, "seed") or 0)
        if self.job.training:
            write_run(self.job.result, command[0], seed, self.speed)
        else:
            write_scores(
                self.job.result, self.speed, sum(map(ord, self.job.name)), classes=command[0] == "classify"
            )
        return 0

    def stop(self):
        self.stopped = True

    def kill(self):
        self.killed = True


def write_run(folder, kind: str, seed: int, speed: float = 1.0, steps: int = 100, verdict: str = "healthy"):
    """A finished run whose validations improve the faster the higher ``speed``, a second a step."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, int(10 * speed)])
    config = {"version": 2, "command": kind, "train": {"steps": steps}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("split", "cohort"):
        (folder / f"{name}.json").write_text("{}")
    events = []
    for step in range(1, steps + 1):
        time = 1000.0 + step + 50 * (step > 50)  # a pause after half of it
        events.append({"type": "metric", "split": "train", "step": step, "time": time, "loss": 1 / step})
        events.append({"type": "progress", "unit": "step", "done": step, "total": steps, "time": time})
        if step % 5:
            continue
        learnt = 1 - np.exp(-3 * speed * step / steps) + 0.01 * rng.normal()
        values = {"dice": 0.8 * learnt, "dice_per_structure": {"WT": 0.8 * learnt}}
        if kind == "pretrain":
            values = {
                "reconstruction": 1.1 - 0.6 * learnt,
                "output_variance": 0.5 * learnt,
                "rank_ratio": [0.5, 0.2 * speed, 0.1 * speed + 0.02 * rng.random()],
                "effective_rank": [4.0, 5.0, 6.0],
                "correlation": [0.1, 0.2, 0.3],
            }
        events.append({"type": "metric", "split": "validation", "step": step, "time": time, **values})
    events.append({"type": "result", "time": 2000.0})
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    if kind == "finetune":
        (folder / "model").mkdir()
        return
    lines = {"L_a": 0.99, "L_b": 0.95, "L_c": 0.7, "L_c_unseen": 0.75}
    (folder / "collapse_lines.json").write_text(json.dumps(lines))
    (folder / "report").mkdir()
    (folder / "report" / "verdict.json").write_text(json.dumps({"state": verdict, "why": ["so"]}))


def write_scores(file, level: float, seed: int, cases: int = 6, classes: bool = False):
    """A file that ``emim evaluate`` writes, of ``cases`` test cases, Dice the higher the ``level``."""
    rng = np.random.default_rng(seed)
    if file.name == "subsets.json":
        subsets = [["T1"], ["FLAIR"], ["T1", "FLAIR"]]
        rows = [
            {"modalities": s, "mean_dice": 0.2 * len(s) + 0.1 * level + 0.01 * rng.random()} for s in subsets
        ]
        mean = float(np.mean([r["mean_dice"] for r in rows]))
        file.write_text(json.dumps({"subsets": rows, "mean_dice": mean}))
        return
    if classes:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"auc": 0.6, "accuracy": 0.5, "cases": cases}))
        return
    dice = np.clip(0.4 + 0.1 * level + 0.02 * rng.normal(size=cases), 0, 1)
    data = {
        "structures": ["WT"],
        "mean_dice": float(dice.mean()),
        "summary": {"WT": {"dice": {"mean": float(dice.mean())}}},
        "cases": [
            {"id": f"case{i}", "scores": [{"structure": "WT", "dice": float(d)}]} for i, d in enumerate(dice)
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data))
