"""The runs of a study, each a job: its commands, where its result lies, and what it needs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emim.evaluation.masks import partly_overlapping
from emim.run_state import read_run
from emim.study.arm import Arm
from emim.study.plan import Plan
from emim.study.settings import arm_settings, as_text
from emim.training.structures import parse_structures


@dataclass(frozen=True)
class Job:
    """One run, or the test of one model.

    Attributes:
        name: unique in the study; names its folder and log.
        commands: arguments of ``emim``, run one after the other; a training has one.
        result: run folder of a training, file of a test.
        training: whether it can be resumed.
        needs: names of the jobs that must be done before.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    result: Path
    training: bool
    needs: tuple[str, ...] = ()

    def done(self) -> bool:
        if not self.training:
            return self.result.is_file()
        if not (self.result / "config.json").is_file():
            return False
        run = read_run(self.result)
        return run.state == "finished" and (run.command == "pretrain" or run.model is not None)

    def next_commands(self) -> tuple[tuple[str, ...], ...]:
        """The commands that begin it, or continue what was interrupted."""
        if not self.training:
            return self.commands
        (command,) = self.commands
        if not all((self.result / f).is_file() for f in ("config.json", "cohort.json", "split.json")):
            return ((*command, "--overwrite"),)
        device = [a for a in command if a.startswith("--device=")]
        where = [a for a in command if a.startswith(("--out=", "--cache="))]
        return ((command[0], *where, *device, "--resume"),)


def pretraining_name(arm: Arm, seed: int) -> str:
    return f"{arm.pretrained or arm.name}-seed{seed}-pretrain"


def finetuning_name(arm: Arm, seed: int, labelled: int) -> str:
    return f"{arm.name}-seed{seed}-labelled{labelled}"


def make_jobs(plan: Plan) -> list[Job]:
    """All jobs of a study, seed after seed, so that a study stopped early has whole seeds."""
    jobs: list[Job] = []
    for seed in plan.seeds:
        before = [_pretraining(plan, arm, seed) for arm in plan.arms if arm.pretraining is not None]
        jobs += {job.name: job for job in before}.values()
        if not plan.study.finetunes:
            continue
        for labelled in plan.labelled:
            trainings = [_finetuning(plan, arm, seed, labelled) for arm in plan.arms]
            tests = [_test(plan, job) for job in trainings]
            subsets = [_subsets(plan, job) for job in trainings] if plan.study.subsets else []
            jobs += [*trainings, *tests, *subsets]
    return jobs


def _training(plan: Plan, name: str, kind: str, arm: Arm, seed: int, extra: Sequence[str]) -> tuple[str, ...]:
    own = arm_settings(arm, kind, plan.base("pretrain"))
    settings = {**plan.settings[kind], **own}
    spacing = settings.pop("preprocess.spacing", plan.spacing)
    return (
        kind,
        str(plan.cohort_file),
        f"--out={plan.run(name)}",
        f"--split={plan.split_file}",
        f"--preset={plan.preset}",
        f"--modalities={','.join(plan.modalities)}",
        f"--spacing={as_text(spacing)}",
        f"--seed={seed}",
        *plan.where(),
        *extra,
        *(f"--set={k}={as_text(v)}" for k, v in settings.items()),
    )


def _pretraining(plan: Plan, arm: Arm, seed: int) -> Job:
    name = pretraining_name(arm, seed)
    return Job(name, (_training(plan, name, "pretrain", arm, seed, ()),), plan.run(name), True)


def _finetuning(plan: Plan, arm: Arm, seed: int, labelled: int) -> Job:
    name, before = finetuning_name(arm, seed, labelled), pretraining_name(arm, seed)
    scratch = arm.pretraining is None
    extra = (
        f"--init={'none' if scratch else plan.run(before)}",
        f"--labelled={labelled}",
        *(f"--structure={s}" for s in plan.structures),
    )
    command = _training(plan, name, "finetune", arm, seed, extra)
    return Job(name, (command,), plan.run(name), True, () if scratch else (before,))


def _test(plan: Plan, model: Job) -> Job:
    folder = plan.tests / model.name
    of = (f"--model={model.result}", f"--split={plan.split_file}", *plan.device())
    file = folder / "scores.json"
    if plan.classes_file is not None:
        table = plan.tests / f"{model.name}.csv"
        classify = ("classify", *of, f"--cohort={plan.cohort_file}", f"--output={table}", "--overwrite")
        evaluate = ("evaluate", str(plan.cohort_file), f"--predictions={table}", of[1],
                    f"--classes={plan.classes_file}", f"--output={file}")  # fmt: skip
        return Job(f"{model.name}-test", (classify, evaluate), file, False, (model.name,))
    # Where subsets are tested, too, all modalities are to score the same in both tables.
    how = [] if plan.study.subsets else ["--overlap=0.25"]
    if partly_overlapping(parse_structures(plan.structures)[0]):
        how.append("--extension=.seg.nrrd")  # a label map could not be scored
    segment = ("segment", *of, f"--cohort={plan.cohort_file}", f"--output={folder}", *how, "--overwrite")
    evaluate = ("evaluate", str(plan.cohort_file), f"--predictions={folder}", *of[:2], f"--output={file}")
    return Job(f"{model.name}-test", (segment, evaluate), file, False, (model.name,))


def _subsets(plan: Plan, model: Job) -> Job:
    file = plan.tests / model.name / "subsets.json"
    command = ("evaluate", str(plan.cohort_file), f"--model={model.result}", f"--split={plan.split_file}",
               "--subsets=all", f"--output={file}", *plan.device())  # fmt: skip
    return Job(f"{model.name}-subsets", (command,), file, False, (model.name,))
