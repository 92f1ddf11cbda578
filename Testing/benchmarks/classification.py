"""Can classification tell phantoms apart that an intensity histogram cannot?

One lesion, or several with its volume. Held-out cases are classified by the network from scratch, by a
fine-tuned pre-training, by probes of its frozen encoder, and by two baselines: always the majority of the
training cases, and logistic regression on histograms of the intensities of every modality, its regularisation
chosen by cross-validation. The network learns the classes of --labelled training cases and has a few more for
validation; the baselines learn those of all training cases. The result is results.md and results.json in the
output folder. An output folder is continued: what it has is not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from measure.machine import machine_line
from scipy.optimize import minimize

from emim import cli
from emim.evaluation.class_scores import bootstrap, class_scores

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")
EDGES = np.linspace(-5, 5, 41)  # of the histograms, z-scores
NETWORK = [
    "--spacing=6.5,6.5,6.5", "--set=train.crop=24", "--set=network.filters=8", "--set=network.blocks=1,1,1",
    "--set=train.batch=8", "--set=train.learning_rate=4e-3",
]  # fmt: skip
PRETRAINING = ["--set=mask.unit=8", "--set=train.validate_every=100"]
TRAINING = ["--set=transferred_rate=1", "--set=modality_dropout=0", "--set=train.validate_every=25"]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", help="output folder; default: a temporary one")
    p.add_argument("--subjects", type=int, default=140)
    p.add_argument("--test", type=int, default=60, help="of these, held out")
    p.add_argument("--labelled", type=int, default=20, help="training cases whose class is learned")
    p.add_argument("--steps", type=int, default=100, help="of fine-tuning")
    p.add_argument("--pretraining-steps", type=int, default=200, help="0: only from scratch")
    p.add_argument("--spacing", type=float, default=5.0, help="mm, of the phantoms")
    p.add_argument(
        "--network", nargs=argparse.REMAINDER, default=NETWORK, help="the rest goes to all trainings"
    )
    p.add_argument("--seeds", type=int, nargs="+", default=[0])
    o = p.parse_args()
    print(machine_line())
    out = Path(o.out or tempfile.mkdtemp(prefix="emim-classes-")).absolute()
    out.mkdir(parents=True, exist_ok=True)
    cohort, split = out / "cohort", out / "split.json"
    if not cohort.exists():
        counts = [f"--subjects={o.subjects}", f"--labelled={o.subjects}"]
        emim("phantom", "--out", cohort, *counts, f"--spacing={o.spacing}", "--classes")
    with open(cohort / "classes.csv", encoding="utf-8") as file:
        truth = {row["case"]: row["class"] for row in csv.DictReader(file)}
    ids = list(truth)
    test, training = ids[-o.test :], ids[: -o.test]
    split.write_text(json.dumps({"test": test}))
    shared = ["--split", split, "--cache", out / "cache"]
    arms = {"scratch": ["--init=none"]}
    if o.pretraining_steps:
        pretrained = out / "pretrained"
        if not (pretrained / "report" / "verdict.json").exists():
            emim("pretrain", cohort, "--out", pretrained, "--overwrite", *shared, *o.network,
                 *PRETRAINING, f"--steps={o.pretraining_steps}")  # fmt: skip
        init = [f"--init={pretrained}"]
        arms |= {
            "pre-trained": init,
            "pre-trained, linear probe": [*init, "--mode=linear"],
            "pre-trained, nearest neighbours": [*init, "--mode=knn"],
        }
    results = {"majority": score_majority(truth, training, test)}
    results["intensity histogram"] = score_histograms(cohort, truth, training, test)
    for arm, options in arms.items():
        for seed in o.seeds:
            run = out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            if not (run / "scores.json").exists():
                emim("finetune", cohort, "--task=classification", "--classes", cohort / "classes.csv",
                     "--out", run, "--overwrite", *shared, *o.network, *TRAINING, *options,
                     f"--labelled={o.labelled}", f"--steps={o.steps}", f"--seed={seed}")  # fmt: skip
                table = run / "predictions.csv"
                emim("classify", "--model", run, "--cohort", cohort, "--split", split, "--output", table)
                emim("evaluate", cohort, "--classes", cohort / "classes.csv", "--split", split,
                     "--predictions", table, "--output", run / "scores.json")  # fmt: skip
            results[f"{arm}, seed {seed}"] = json.loads((run / "scores.json").read_text())
    (out / "results.json").write_text(json.dumps(results, indent=1, default=lambda a: a.tolist()))
    text = markdown(results)
    (out / "results.md").write_text(text)
    print(text)


def score_majority(truth: dict[str, str], training: list[str], test: list[str]) -> dict:
    names = sorted(set(truth.values()))
    shares = [sum(truth[i] == c for i in training) / len(training) for c in names]
    return scores(np.tile(shares, (len(test), 1)), names, truth, test)


def score_histograms(cohort: Path, truth: dict[str, str], training: list[str], test: list[str]) -> dict:
    names = sorted(set(truth.values()))
    x = {i: histograms(cohort / i) for i in (*training, *test)}
    x_train, x_test = (np.stack([x[i] for i in part]) for part in (training, test))
    centre, spread = x_train.mean(0), x_train.std(0) + 1e-9
    x_train, x_test = (x_train - centre) / spread, (x_test - centre) / spread
    y = np.array([truth[i] == names[1] for i in training], float)
    folds = np.random.default_rng(0).permutation(len(y)) % 5

    def loss(strength: float) -> float:
        parts = [(folds != f, folds == f) for f in range(5)]
        fitted = [(b, logistic(x_train[a], y[a], strength)) for a, b in parts]
        return sum(entropy(x_train[b] @ w[1:] + w[0], y[b]).sum() for b, w in fitted)

    best = min(10.0 ** np.arange(-2, 5), key=loss)
    w = logistic(x_train, y, best)
    positive = 1 / (1 + np.exp(-(x_test @ w[1:] + w[0])))
    return scores(np.stack([1 - positive, positive], 1), names, truth, test)


def histograms(folder: Path) -> np.ndarray:
    """Shares of the voxels of each modality, normalised over its foreground."""
    parts = []
    for modality in MODALITIES:
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{folder.name}_{modality}.nii.gz")))
        inside = voxels[voxels > 0].astype(float)
        z = (inside - inside.mean()) / inside.std()
        parts.append(np.histogram(z.clip(-5, 5), EDGES)[0] / len(z))
    return np.concatenate(parts)


def entropy(logit: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logit) - y * logit


def logistic(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Intercept and weights of a logistic regression with an L2 penalty."""

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        logit = x @ w[1:] + w[0]
        residual = 1 / (1 + np.exp(-logit)) - y
        value = entropy(logit, y).sum() + strength / 2 * (w[1:] ** 2).sum()
        return value, np.concatenate([[residual.sum()], x.T @ residual + strength * w[1:]])

    return minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x


def scores(probabilities: np.ndarray, names: list[str], truth: dict[str, str], test: list[str]) -> dict:
    target = np.array([names.index(truth[i]) for i in test])
    return {**class_scores(probabilities, target), "intervals": bootstrap(probabilities, target, test)}


def markdown(results: dict[str, dict]) -> str:
    lines = ["| | accuracy | balanced accuracy | AUC | calibration error |", "|---|---|---|---|---|"]
    for name, r in results.items():
        measures = ("accuracy", "balanced_accuracy", "auc")
        cells = [f"{r[k]:.2f} {interval(r['intervals'][k])}" for k in measures]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {r['ece']:.2f} |")
    return "\n".join(lines) + "\n"


def interval(ends: list[float] | None) -> str:
    return f"({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""


def emim(*arguments: object) -> None:
    words = [str(a) for a in arguments]
    print("$ emim", *words, flush=True)
    if code := cli.main(words):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
