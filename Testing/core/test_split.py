"""A split file that names only some roles, or cases without labels or that are damaged; changed files."""

import dataclasses
import json
import os
import re
import shutil

import pytest
import SimpleITK as sitk

from emim.cohort.case import Case, Cohort
from emim.cohort.scan import Scan, scan
from emim.config import FinetuneConfig, TrainConfig, override
from emim.errors import EmimError
from emim.training.finetune import check_cohort, finetune, plan_finetuning
from emim.training.pretrain import check_cohort as check_pretraining_cohort
from emim.training.pretrain import pretrain
from emim.training.split import exclude_subjects, split_by_subject


def cohort(labelled=(), **scanned):
    """Two sessions of each of ten subjects; also found, but not usable: the cases ``scanned``."""
    ids = [f"s{i}-{j}" for i in range(10) for j in range(2)]
    cases = tuple(
        Case(i, i[:2], {"T1": f"/{i}.nii"}, f"/{i}_seg.nii" if i in labelled else None) for i in ids
    )
    return Cohort(("T1",), cases, {c.id: c.subject for c in cases} | scanned)


def subjects(ids):
    return {i[:2] for i in ids}


def warnings(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["what"] for e in events if e["type"] == "warning"]


# ---- a list for training only -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("classified", [False, True])
def test_validation_is_drawn_from_those_not_named_for_training(seed, classified):
    named = ("s0-0", "s1-0", "s2-0", "s3-1", "s4-0", "s5-0", "s6-0", "s7-0")
    classes = {c.id: "ab"[int(c.id[1]) % 2] for c in cohort().cases} if classified else None
    split = split_by_subject(cohort(), TrainConfig(seed=seed, cases=named), classes)
    assert split.training == named
    assert split.validation and subjects(split.validation) <= {"s8", "s9"}
    assert not classified or subjects(split.validation) == {"s8", "s9"}, "one of each class"


def test_a_training_list_that_leaves_nobody_to_validate_is_refused_unless_nobody_shall():
    named = tuple(f"s{i}-0" for i in range(10))
    with pytest.raises(EmimError, match="leave no subject for validation"):
        split_by_subject(cohort(), TrainConfig(cases=named))
    for without in (TrainConfig(cases=named, validation=()), TrainConfig(cases=named, validation_share=0)):
        split = split_by_subject(cohort(), without)
        assert split.training == named and not split.validation


# ---- one split for pre-training and fine-tuning -------------------------------------------------

LABELLED = ("s0-0", "s1-0", "s2-0", "s3-0", "s4-0", "s4-1")


def check(roles, task="segmentation", classes=None):
    config = override(FinetuneConfig(), {f"train.{k}": v for k, v in roles.items()})
    if classes:
        labels = {"task": "classification", "classification.labels": str(classes)}
        config = override(config, labels)
    return check_cohort(Scan("here", cohort(LABELLED), []), config)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_cases_without_label_or_class_may_be_named(task, tmp_path):
    classes = None
    if task == "classification":
        classes = tmp_path / "classes.csv"
        classes.write_text("case,class\n" + "".join(f"{i},{'ab'[n % 2]}\n" for n, i in enumerate(LABELLED)))
    used, split = check({"validation": ("s3-0", "s8-0", "s4-1")}, task, classes)
    assert split.validation == ("s3-0", "s4-1") and split.unlabelled == ("s8-0",)
    assert split.training == ("s0-0", "s1-0", "s2-0"), "the other session of s4 stays out"
    assert [c.id for c in used.cases] == [*split.training, *split.validation]
    roles = {"validation": ("s3-0",), "cases": ("s0-0", "s1-0", "s9-0")}
    _, split = check(roles, task, classes)
    assert split.training == ("s0-0", "s1-0") and split.unlabelled == ("s9-0",)


def test_an_unlabelled_case_for_validation_keeps_its_subject_out_of_training():
    _, split = check({"validation": ("s0-1", "s3-0")})
    assert split.unlabelled == ("s0-1",) and "s0-0" not in split.training


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"validation": ("nobody", "s3-0")}, "no usable case 'nobody'"),
        ({"cases": ("nobody", "s0-0")}, "no usable case 'nobody'"),
        ({"exclude": ("nobody",)}, "no usable case 'nobody'"),
        ({"validation": ("s8-0",)}, "no labelled validation case"),
        ({"cases": ("s8-0",)}, "No case is left to train on"),
        ({"validation": ("s3-0",), "exclude": ("s3-1",)}, "its subject is excluded"),
        ({"validation": ("s8-0",), "exclude": ("s8-1",)}, "its subject is excluded"),
    ],
)
def test_roles_that_cannot_be_filled_are_refused_in_fine_tuning(roles, said):
    with pytest.raises(EmimError, match=said):
        check(roles)


def test_a_damaged_case_for_the_test_keeps_its_subject_out():
    found = cohort(**{"s1-damaged": "s1", "x": "x"})
    left, excluded = exclude_subjects(found, ("s1-damaged", "x"))
    assert set(excluded) == {"s1-0", "s1-1", "s1-damaged", "x"}
    assert "s1" not in {c.subject for c in left.cases}
    chosen = found.with_modalities(("T1",))
    assert "s1" not in subjects(split_by_subject(chosen, TrainConfig(exclude=("s1-damaged",))).training)
    for roles in ({"validation": ("s1-damaged",)}, {"cases": ("s1-damaged",)}):
        with pytest.raises(EmimError, match="no usable case 's1-damaged'"):
            split_by_subject(found, TrainConfig(**roles))


def test_a_damaged_test_case_of_a_scan_stops_no_training(phantoms, tmp_path, small_pretrain, small_finetune):
    cases = [dataclasses.asdict(c) for c in scan(phantoms).cohort.cases]
    cases[0]["subject"] = cases[1]["subject"]
    (tmp_path / "t1.nii.gz").write_bytes(b"damaged")
    cases[0]["images"]["T1"] = "t1.nii.gz"
    (tmp_path / "list.json").write_text(json.dumps(cases))
    found = scan(tmp_path / "list.json")
    (damaged,) = (r for r in found.rows if not r.usable)
    out = {r.id for r in found.rows if r.subject == damaged.subject}
    assert len(out) == 2
    for check, config in (
        (check_pretraining_cohort, small_pretrain(train__exclude=(damaged.id,))),
        (check_cohort, small_finetune(train__exclude=(damaged.id,))),
    ):
        used, split = check(found, config)
        assert set(split.excluded) == out and not out & {c.id for c in used.cases}
    plan_finetuning(found, small_finetune(train__exclude=(damaged.id,)))


def test_a_fine_tuning_says_which_named_cases_it_goes_without(phantoms, cache, tmp_path, small_finetune):
    labelled = sorted(p.parent.name for p in phantoms.glob("*/*_seg.nii.gz"))
    without = sorted({p.name for p in phantoms.glob("sub-*")} - set(labelled))
    config = small_finetune(train__steps=1, train__validation=(labelled[0], without[0]))
    finetune(phantoms, tmp_path / "run", config=config, cache=cache)
    said = [w for w in warnings(tmp_path / "run") if without[0] in w]
    assert len(said) == 1 and "without a label" in said[0]
    recorded = json.loads((tmp_path / "run" / "split.json").read_text())
    assert recorded["validation"] == [labelled[0]] and recorded["unlabelled"] == [without[0]]


# ---- files that change --------------------------------------------------------------------------


def test_a_resumed_run_tells_of_files_that_changed(phantoms, cache, tmp_path, small_pretrain):
    heads = shutil.copytree(phantoms, tmp_path / "heads")
    run = pretrain(heads, tmp_path / "run", small_pretrain(train__steps=1), cache=cache)
    first, second, *_ = json.loads((run / "split.json").read_text())["training"]
    os.utime(heads / first / f"{first}_T1.nii.gz")
    pretrain(None, run, resume=True, cache=cache)
    assert warnings(run) == [], "the same voxels, written at another time"
    record = (run / "cohort.json").read_text(encoding="utf-8")
    (run / "cohort.json").write_text(re.sub('"float32:(?=[0-9a-f]{32}")', '"', record), encoding="utf-8")
    for source in (None, heads):
        pretrain(source, run, resume=True, cache=cache)
    assert warnings(run) == [], "digests that an earlier version recorded tell nothing"
    file = str(heads / second / f"{second}_T1.nii.gz")
    image = sitk.ReadImage(file)
    image.SetOrigin([x + 1 for x in image.GetOrigin()])
    sitk.WriteImage(image, file)
    for source in (None, heads):
        pretrain(source, run, resume=True, cache=cache)
        said = [w for w in warnings(run) if "changed since the run began" in w]
        assert said[-1].endswith(f": {second}.")
    assert len(said) == 2
