"""Does reconstruction need a deep decoder?"""

from __future__ import annotations

from emim.study.arm import Arm, Study
from emim.study.compare import difference, in_words, spread
from emim.study.dice import compare_with_controls, dice_table
from emim.study.methods import EMIM
from emim.study.plots import dots, figure, looks
from emim.study.report import Report, Table
from emim.study.results import Outcome, Results, by_seed


def _decoder(name: str, text: str, control: str | None) -> Arm:
    return Arm(name, f"E-MIM, {text}", {**EMIM, "decoder": name}, control=control)


ARMS = (
    Arm("scratch", "no pre-training", None),
    _decoder("light", "a light decoder", "scratch"),
    _decoder("linear", "one linear layer reconstructs", "light"),
    _decoder("deep", "a deep decoder", "light"),
)


def report(results: Results) -> Report:
    told = Report(compare_with_controls(results))
    seeds = len(results.plan.seeds)
    of = {a.name: by_seed(results.of(a), _cost) for a in results.arms}
    for arm in results.arms:
        if arm.control is None:
            continue
        cost = difference(of[arm.name], of.get(arm.control, {}))
        if cost:
            said = in_words(cost, seeds, "slower", "faster")
            told.verdict.append(f"{arm.name} minus {arm.control}, seconds per step: {said}")
    rows = [
        [
            a.name,
            spread([t.last("reconstruction") for t in results.pretrainings(a)]),
            spread([t.loss_over_line for t in results.pretrainings(a)]),
            spread(list(of[a.name].values())),
            spread([t.seconds for t in results.pretrainings(a)], 1),
        ]
        for a in results.arms
        if a.pretraining is not None
    ]
    columns = ["decoder", "validation loss", "loss ÷ L_c unseen", "s per step", "pre-training s"]
    told.tables = [Table("Reconstruction and its cost", columns, rows), dice_table(results)]
    look = looks([a.name for a in results.arms])
    dice = {a.name: [o.dice for o in results.of(a, results.plan.labelled[0])] for a in results.arms}
    told.figures["decoder"] = (
        figure(
            dots(dice, "test Dice", None, look),
            dots({n: list(v.values()) for n, v in of.items() if v}, "seconds per step", None, look),
        ),
        f"Left: mean Dice on the test cases after fine-tuning on {results.plan.labelled[0]} labelled cases. "
        "Right: cost of a step of pre-training.",
    )
    return told


def _cost(outcome: Outcome) -> float | None:
    return outcome.pretraining.seconds_per_step if outcome.pretraining else None


STUDY = Study(
    "decoder",
    "Does a decoder beyond a linear layer help what is learned, and what does it cost?",
    ARMS,
    report,
)
