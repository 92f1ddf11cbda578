"""Studies: what is run, in which order, what survives an interruption, and what is concluded."""

import argparse
import io
import json
import time
from pathlib import Path

import pytest
from study_runs import FakeRun, option, write_run

from emim.cli import main
from emim.cohort.scan import scan
from emim.commands.study import _run as run_study
from emim.errors import Cancelled, EmimError
from emim.events import Events, to_terminal
from emim.study.compare import difference, in_words, mean_interval
from emim.study.engine import run_jobs
from emim.study.jobs import Job, make_jobs
from emim.study.planning import make_plan
from emim.study.report import write_report
from emim.study.results import Results
from emim.study.runner import Runner
from emim.study.settings import parse_settings
from emim.study.studies import NAMES, find_study

SMALL = ["network.filters=4", "network.blocks=1,1,1", "train.crop=16", "train.steps=4", "train.batch=2",
         "train.validate_every=2", "mask.unit=8", "regulariser.width=16"]  # fmt: skip
SPLIT = {"exclude": ("sub-001",), "validation": ("sub-002",)}
SPEED = {"scratch": 1.0, "emim": 2.0, "plain": 1.5}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("emim.study.engine.POLL", 0.001)


@pytest.fixture
def plan(phantoms, cache, tmp_path):
    """Make a plan; call with the study's name and what differs."""

    def make(name, **changes):
        given = {"given_split": SPLIT, "seeds": (0, 1, 2), "preset": "tiny", "device": "cpu", "cache": cache}
        given["settings"] = parse_settings(SMALL)
        plan = make_plan(find_study(name), scan(phantoms), tmp_path / "study", **{**given, **changes})
        plan.write()
        return plan

    return make


def fake(plan, fails=()):
    """Start fake runs, those whose name begins with an entry of ``fails`` failing."""

    def start(job, slot):
        arm = job.name.split("-seed")[0]
        reason = "Out of memory." if job.name.startswith(tuple(fails)) and fails else None
        return FakeRun(job, plan.log(job.name), SPEED.get(arm, 1.2), reason)

    return start


# ---- what is run ---------------------------------------------------------------------------------


def test_every_arm_has_the_same_plan_and_one_pretraining_a_seed(plan):
    made = plan("labels", seeds=(0, 1), labelled=(2, 1))
    jobs = make_jobs(made)
    assert len({j.name for j in jobs}) == len(jobs)
    assert {j.name for j in jobs if j.commands[0][0] == "pretrain"} == {
        f"{a.name}-seed{s}-pretrain" for a in made.arms if a.pretraining is not None for s in (0, 1)
    }
    tuned = [j for j in jobs if j.commands[0][0] == "finetune"]
    assert len(tuned) == len(made.arms) * 2 * 2
    assert all("--set=keep=last" in j.commands[0] for j in tuned)  # no choice by few validation cases
    differ = ("--out=", "--init=", "--labelled=", "--seed=")
    assert len({tuple(a for a in j.commands[0] if not a.startswith(differ)) for j in tuned}) == 1
    for job in tuned:
        scratch = job.name.startswith("scratch")
        assert job.needs == (() if scratch else (job.name.split("-labelled")[0] + "-pretrain",))
        init = option(job.commands[0], "init")
        assert init == "none" if scratch else init.endswith(job.needs[0])
    first, last = (next(i for i, j in enumerate(jobs) if f"seed{s}" in j.name) for s in (0, 1))
    assert all("seed0" in j.name for j in jobs[first:last])


def test_arms_that_cannot_be_run_are_left_out_with_the_reason(plan):
    made = plan("convergence", arms=("scratch", "vit-scratch", "vit-mae", "swin-scratch"))
    assert [a.name for a in made.arms] == ["scratch", "vit-scratch", "vit-mae", "swin-scratch"]
    made = make_plan(
        find_study("convergence"), made.found, made.out, given_split=SPLIT, seeds=(0,), preset="tiny",
        settings=parse_settings([*SMALL, "network.patch=16"]),
    )  # fmt: skip
    assert "vit-mae" in made.left_out and "at least 32" in made.left_out["vit-mae"]
    assert "scratch" in {a.name for a in made.arms}


def test_the_split_is_drawn_once_and_no_subject_has_two_roles(phantoms, tmp_path):
    from emim.phantom.generate import generate

    found = scan(generate(tmp_path / "phantoms", subjects=7, labelled=7, spacing=5.0))
    options = {"given_split": {}, "seeds": (0,), "preset": "tiny", "settings": parse_settings(SMALL)}
    made = [make_plan(find_study("labels"), found, tmp_path / n, **options) for n in "ab"]
    assert made[0].split == made[1].split
    test, validation = made[0].split["test"], made[0].split["validation"]
    assert len(test) == len(validation) == 2 and not set(test) & set(validation)
    assert made[0].labelled == (3, 2, 1)
    with pytest.raises(EmimError, match="labels for 6 subjects"):
        make_plan(find_study("labels"), scan(phantoms), tmp_path / "c", **options)


def test_a_test_case_may_be_damaged(phantoms, cache, tmp_path):
    """Named for the test, it stays out with its subject, and a study under way goes on and reports."""
    from emim.phantom.generate import generate

    folder = generate(tmp_path / "phantoms", subjects=7, labelled=7, spacing=5.0)
    options = {"seeds": (0,), "preset": "tiny", "settings": parse_settings(SMALL)}
    whole = make_plan(find_study("labels"), scan(folder), tmp_path / "a", given_split={}, **options)
    damaged = whole.split["test"][0]
    image = next((Path(folder) / damaged).glob("*T1.nii.gz"))
    image.write_bytes(image.read_bytes()[:1000])
    given = {"exclude": whole.split["test"], "validation": whole.split["validation"]}
    made = make_plan(find_study("labels"), scan(folder), tmp_path / "a", given_split=given, **options)
    assert made.split["test"] == whole.split["test"] and made.labelled == whole.labelled
    assert damaged not in {c.id for c in made.cohort().cases}
    with pytest.raises(EmimError, match="nobody"):
        given["exclude"] = ["nobody"]
        make_plan(find_study("labels"), scan(folder), tmp_path / "b", given_split=given, **options)


def test_settings_go_to_the_runs_that_have_them():
    found = parse_settings(["train.crop=32", "mask.ratio=0.5", "finetune.train.steps=7", "labelled=3"])
    assert found == {
        "pretrain": {"train.crop": "32", "mask.ratio": "0.5"},
        "finetune": {"train.crop": "32", "train.steps": "7", "labelled": "3"},
    }
    with pytest.raises(EmimError, match="no setting 'train.stepz'"):
        parse_settings(["train.stepz=1"])


def test_a_study_is_continued_only_as_it_was_begun(plan):
    made = plan("labels", labelled=(2,))
    plan("labels", labelled=(2, 1), seeds=(0, 1, 2, 3))  # more seeds and labels may come
    with pytest.raises(EmimError, match="differs in its preset"):
        plan("labels", labelled=(2,), preset="base")
    (made.out / "study.json").unlink()
    with pytest.raises(EmimError, match="holds no study"):
        plan("labels", labelled=(2,))


def test_what_fine_tuning_would_refuse_is_refused_before_anything_is_run(plan, tmp_path):
    for structures, said in ((("WT",), "not a structure"), (("WT=9",), "No label map has the structure")):
        with pytest.raises(EmimError, match=said):
            plan("labels", structures=structures)
    command = ["study", "labels", "--cohort=none", f"--out={tmp_path / 'new'}"]
    assert main([*command, "--report"]) == 2 and main([*command, "--jobs", "0"]) == 2
    assert not (tmp_path / "study").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("setting", ["network.filters=8", "train.crop=16", "preprocess.clip=3"])
def test_arms_differ_in_their_weights_only(plan, setting):
    name = setting.split("=")[0]
    small = [s for s in SMALL if not s.startswith("train.crop")]
    with pytest.raises(EmimError, match=name):
        plan("labels", settings=parse_settings([*small, f"pretrain.{setting}"]))
    plan("labels", settings=parse_settings([*small, setting]))


def test_arms_that_are_all_pretrained_take_over_the_same(plan):
    settings = parse_settings([*SMALL, "pretrain.preprocess.clip=3"])
    plan("labels", settings=settings, arms=["emim", "plain"])


def test_all_modalities_are_tested_as_their_subsets_are(plan):
    jobs = {j.name: j for j in make_jobs(plan("modalities", seeds=(0,), labelled=(2,)))}
    segment, subsets = (jobs[f"emim-seed0-labelled2-{n}"].commands[0] for n in ("test", "subsets"))
    for name in ("overlap", "quality", "device", "split"):
        assert option(segment, name) == option(subsets, name)


@pytest.mark.parametrize("second, kind", [("B=2,3", ".seg.nrrd"), ("B=2", None), ("B=3", None)])
def test_structures_that_overlap_partly_are_tested_in_layers(plan, second, kind):
    made = plan("labels", seeds=(0,), labelled=(2,), structures=("A=1,2", second))
    tests = [j.commands[0] for j in make_jobs(made) if j.name.endswith("-test")]
    assert tests and {option(segment, "extension") for segment in tests} == {kind}


# ---- how it is run -------------------------------------------------------------------------------


def test_jobs_wait_for_what_they_need_and_fill_the_slots(plan):
    made = plan("labels", labelled=(2,))
    jobs, begun, going = make_jobs(made), [], []
    starter = fake(made)

    def start(job, slot):
        assert all(next(j for j in jobs if j.name == n).done() for n in job.needs)
        assert not job.done() and slot in (0, 1)
        begun.append(job.name)
        going.append(sum(r.looks < 2 for r in runs))
        runs.append(starter(job, slot))
        return runs[-1]

    runs = []
    assert run_jobs(jobs, 2, start, Events()) == []
    assert sorted(begun) == sorted(j.name for j in jobs)
    assert max(going) == 1  # one beside the one that begins
    assert run_jobs(jobs, 2, start, Events()) == [] and len(begun) == len(jobs)


def test_a_failed_arm_stays_in_the_table_with_its_reason(plan):
    made = plan("labels", labelled=(2,), seeds=(0, 1))
    jobs = make_jobs(made)
    failed = run_jobs(jobs, 1, fake(made, ["emim-seed1-pretrain"]), Events())
    assert failed == ["emim-seed1-pretrain", "emim-seed1-labelled2", "emim-seed1-labelled2-test"]
    text = write_report(Results(made)).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| 2 | emim |"))
    assert "Out of memory." in row
    assert "1 of 2 seeds so far" in text and "1 of 8 results" in text
    (made.tests / "scratch-seed0-labelled2" / "scores.json").unlink()
    run_jobs(jobs, 1, fake(made, ["scratch-seed0-labelled2-test", "emim-seed1"]), Events())
    row = next(x for x in write_report(Results(made)).read_text().splitlines() if "| scratch |" in x)
    assert "Out of memory." in row
    scores = made.tests / "plain-seed0-labelled2" / "scores.json"
    scores.write_text(json.dumps({**json.loads(scores.read_text()), "failed": 2}))
    row = next(x for x in write_report(Results(made)).read_text().splitlines() if "| plain |" in x)
    assert row.count("2 test cases failed") == 1
    # The next call tries it again.
    assert run_jobs(jobs, 1, fake(made), Events()) == []
    assert "Out of memory" not in write_report(Results(made)).read_text()


def test_a_stop_reaches_every_run_and_the_next_call_goes_on(plan):
    made = plan("labels", labelled=(2,), seeds=(0,))
    jobs, runs = make_jobs(made), []

    def start(job, slot):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(fake(made)(job, slot))
        return runs[-1]

    with pytest.raises(Cancelled, match="same command continues"):
        run_jobs(jobs, 2, start, Events())
    assert [r.stopped for r in runs] == [not r.job.done() for r in runs]
    there = {j.name for j in jobs if j.done()}
    assert there and len(there) < len(jobs)
    again = []
    run_jobs(jobs, 2, lambda j, s: again.append(j.name) or fake(made)(j, s), Events())
    assert not there & set(again) and all(j.done() for j in jobs)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_report_that_cannot_be_written_costs_no_training(plan, monkeypatch, capsys, stopped):
    made = plan("labels", labelled=(2,), seeds=(0,))
    jobs, begun = make_jobs(made), []

    def start(job, slot):
        begun.append(job)
        if stopped and len(begun) == 2:
            raise KeyboardInterrupt
        return fake(made)(job, slot)

    def locked(results):
        raise PermissionError(13, "Permission denied", "results.md")

    monkeypatch.setattr("emim.commands.study.REPORT_EVERY", -1)
    monkeypatch.setattr("emim.study.report.write_report", locked)
    monkeypatch.setattr("emim.study.runner.Runner", lambda *_: start)
    monkeypatch.setattr("emim.volumes.cache.build_cache", lambda *_: [])
    options = argparse.Namespace(device="cpu", jobs=1)
    if stopped:
        with pytest.raises(Cancelled):
            run_study(made, jobs, options, to_terminal())
    else:
        assert run_study(made, jobs, options, to_terminal()) == [] and all(job.done() for job in jobs)
    assert "report could not be written: PermissionError" in capsys.readouterr().err


def test_an_interrupted_training_resumes_and_a_broken_start_begins_anew(tmp_path):
    command = ("pretrain", "cohort.json", f"--out={tmp_path / 'run'}", "--device=cpu", "--set=train.steps=4")
    job = Job("a", (command,), tmp_path / "run", True)
    assert job.next_commands() == ((*command, "--overwrite"),)
    write_run(tmp_path / "run", "pretrain", 0)
    assert job.next_commands() == (("pretrain", f"--out={tmp_path / 'run'}", "--device=cpu", "--resume"),)
    assert job.done()
    events = tmp_path / "run" / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))  # the result is missing
    assert not job.done()


def test_a_real_process_stops_when_told_and_has_its_share_of_the_cores(plan, monkeypatch):
    monkeypatch.setattr("emim.study.runner.cores", lambda: 8)
    long = parse_settings([*SMALL, "train.steps=100000"])
    made = plan("collapse", arms=("random",), seeds=(0,), settings=long)
    runner = Runner(made.log, jobs=3)
    assert runner.threads == 2
    running = runner(make_jobs(made)[0], 0)
    deadline = time.monotonic() + 60
    while "Loading torch" not in made.log("random-seed0-pretrain").read_text() and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.stop()
    while running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running.poll() == 3
    assert not make_jobs(made)[0].done()


@pytest.mark.parametrize("code, next_one", [(0, True), (4, True), (1, False), (2, False), (-9, False)])
def test_only_what_came_to_its_end_is_scored(tmp_path, monkeypatch, code, next_one):
    """A segmentation that crashed is tried again by the next call; it is no Dice of 0."""
    begun = []

    class Ended:
        stdin = io.BytesIO()

        def __init__(self, command, **_):
            begun.append(command[3])

        def poll(self):
            return code if len(begun) == 1 else 0

    monkeypatch.setattr("emim.study.runner.subprocess.Popen", Ended)
    job = Job("a-test", (("segment",), ("evaluate",)), tmp_path / "scores.json", False)
    running = Runner(lambda name: tmp_path / f"{name}.log", jobs=1)(job, 0)
    assert running.poll() == (None if next_one else code)
    assert begun == ["segment", "evaluate"][: 1 + next_one]


def test_a_crash_has_another_exit_code_than_cases_that_failed(monkeypatch, capsys):
    def crash(*_, **__):
        raise RuntimeError("CUDA error")

    for name in ("_warn_of_lost_overlap", "open_cohort", "select_cases"):
        monkeypatch.setattr(f"emim.cli.{name}", lambda *_: None)
    command = ["segment", "--model", "m", "--cohort", "c", "--output", "o"]
    failed = {"case": "a", "error": {"what": "No image."}}
    monkeypatch.setattr("emim.inference.segment.segment", lambda *_, **__: [failed])
    assert main(command) == 4 and "Failed: a" in capsys.readouterr().out
    monkeypatch.setattr("emim.inference.segment.segment", crash)
    assert main(command) == 1 and "Unexpected failure: RuntimeError" in capsys.readouterr().err


# ---- what is concluded ---------------------------------------------------------------------------


def test_faster_and_better_is_said_with_its_uncertainty(plan):
    made = plan("convergence", labelled=(2,), arms=("scratch", "emim"))
    run_jobs(make_jobs(made), 3, fake(made), Events())
    text = write_report(Results(made)).read_text()
    assert "reached in 3 of 3" not in text and "times faster" in text
    data = json.loads((made.out / "results.json").read_text())
    speed, gain = data["verdict"]
    factor = float(speed.split("reached ")[1].split(" times")[0])
    assert 1.2 < factor < 4 and "faster in 3 of 3 seeds" in speed
    assert "higher in all 3 seeds, as by chance alone in 1 of 4" in gain
    assert "Over the 6 test subjects: 95 % interval" in gain
    assert (made.out / "convergence-labelled2.png").stat().st_size > 10_000
    # One second a step, although the runs paused for 50 seconds.
    tuned = [o["finetuning"] for o in data["outcomes"]]
    assert {t["seconds_per_step"] for t in tuned} == {1.0}


def test_collapse_is_read_from_the_runs(plan):
    made = plan("collapse", arms=("random", "hybrid", "barlow"))
    for seed in made.seeds:
        write_run(
            made.run(f"random-seed{seed}-pretrain"), "pretrain", seed, 0.05, verdict="complete collapse"
        )
        write_run(made.run(f"hybrid-seed{seed}-pretrain"), "pretrain", seed, 1.0)
        write_run(made.run(f"barlow-seed{seed}-pretrain"), "pretrain", seed, 2.0)
    data = json.loads(write_report(Results(made)).with_suffix(".json").read_text())
    said = "\n".join(data["verdict"])
    assert "random: loss ÷ L_c unseen 1.3" in said and "3 of 3 runs collapsed" in said
    assert "barlow minus hybrid, mean rank ratio beyond the finest level: +0.1" in said
    assert "seconds per step: +0.000" in said and "no difference is shown" in said
    for name in ("loss", "rank"):
        assert (made.out / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", NAMES)
def test_every_study_reports_before_anything_is_run_and_after_all(plan, tmp_path, name):
    changes = {"labelled": (2,)} if find_study(name).finetunes else {}
    if find_study(name).classifies:
        with pytest.raises(EmimError, match="Nothing says to which class"):
            plan(name)
        changes["classes_file"] = tmp_path / "classes.csv"
        rows = [f"sub-00{i},{'ab'[i % 2]}" for i in range(1, 8)]
        changes["classes_file"].write_text("\n".join(["case,class", *rows]))
    made = plan(name, seeds=(0, 1), **changes)
    text = write_report(Results(made)).read_text()
    assert "results are not there (yet)" in text and "| missing |" in text
    run_jobs(make_jobs(made), 4, fake(made), Events())
    text = write_report(Results(made)).read_text()
    assert "| missing |" not in text and "not there" not in text
    for arm in made.arms:
        assert f"| {arm.name} |" in text


def test_words_claim_no_more_than_the_numbers():
    same = difference({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.4, 1: 0.5, 2: 0.65, 3: 1.0})
    assert same.mean == pytest.approx(0.25 / 3) and same.sign == 1
    assert "higher in all 3 seeds, as by chance alone in 1 of 4" in in_words(same, 3)
    mixed = difference({0: 0.5, 1: 0.3}, {0: 0.4, 1: 0.5})
    assert "no difference is shown" in in_words(mixed, 2)
    assert "shows nothing by itself" in in_words(difference({0: 1.0}, {0: 0.0}), 3)
    assert difference({0: 1.0}, {1: 1.0}) is None
    assert mean_interval([0.1, 0.2]) is None
    assert mean_interval([0.0, 0.1, 0.2]) == pytest.approx((0.1 - 0.2484, 0.1 + 0.2484), abs=1e-4)
    three = in_words(difference({0: 0.1, 1: 0.2, 2: 0.4}, dict.fromkeys(range(3), 0.0)), 3)
    assert "higher in all 3 seeds" in three and "which includes 0" in three


# ---- for real ------------------------------------------------------------------------------------


def test_a_tiny_study_from_the_command_line(phantoms, cache, tmp_path, monkeypatch, capsys):
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"test": ["sub-001"], "validation": ["sub-002"]}))
    out = tmp_path / "study"
    command = ["study", "labels", f"--cohort={phantoms}", f"--out={out}", f"--split={split}", "--seeds", "0",
               "--arms=scratch,emim", "--labelled", "2", "--device=cpu", f"--cache={cache}",
               "--structure=WT=1,2,3", *(f"--set={s}" for s in SMALL)]  # fmt: skip

    class InThisProcess:
        def __init__(self, log, jobs, gpus):
            pass

        def __call__(self, job, slot):
            codes = [main(command) for command in job.next_commands()]
            return type("Done", (), {"poll": lambda self: max(codes), "stop": lambda self: None})()

    monkeypatch.setattr("emim.study.runner.Runner", InThisProcess)
    assert main([*command, "--dry-run"]) == 0 and not out.exists()
    assert main(command) == 0
    data = json.loads((out / "results.json").read_text())
    assert all(o["finished"] and o["test_dice"] is not None for o in data["outcomes"])
    assert len(data["outcomes"]) == 2 and "sub-001" in data["outcomes"][0]["test_cases"]
    assert "one seed, which shows nothing by itself" in data["verdict"][0]
    monkeypatch.setattr("emim.study.runner.Runner", None)  # nothing is left to be run
    assert main([*command, "--report"]) == 0
