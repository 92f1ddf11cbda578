"""The cache: right arrays, read by the crop, built once, whatever interrupts it."""

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from emim.cohort.case import Case, Cohort
from emim.config import PreprocessConfig
from emim.errors import EmimError
from emim.events import Events
from emim.volumes import cache as cache_module
from emim.volumes.cache import build_cache, cache_contents, default_folder, remove_cache
from emim.volumes.fingerprint import absolute
from emim.volumes.preprocess import prepare_case

CONFIG = PreprocessConfig((1.0, 1.0, 1.0))
MODALITIES = ("t1", "t2", "flair")


class Recorder(Events):
    def __init__(self):
        super().__init__()
        self.seen = []

    def _send(self, kind, **fields):
        self.seen.append((kind, fields))

    def of(self, kind):
        return [fields for k, fields in self.seen if k == kind]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return str(path)


def make_case(folder, number, present=("t1", "flair"), labelled=True):
    rng = np.random.default_rng(number)
    body = np.zeros((26, 28, 30), bool)
    body[3:22, 4 : 24 - number, 5:27] = True
    images = {
        m: save(
            folder / f"{number}" / f"{m}.nii.gz",
            np.where(body, rng.normal(300, 40, body.shape), 0).astype("f4"),
        )
        for m in present
    }
    label = np.zeros(body.shape, np.uint8)
    label[6:14, 8:18, 9:20] = 2
    label[7, 8, 9:12] = 4
    label = save(folder / f"{number}" / "seg.nii.gz", label) if labelled else None
    return Case(f"case{number}", f"subject{number}", images, label)


@pytest.fixture
def cohort(tmp_path):
    data = tmp_path / "data"
    return Cohort(
        MODALITIES, (make_case(data, 0), make_case(data, 1, labelled=False), make_case(data, 2, ("t2",)))
    )


def test_the_cache_holds_what_preprocessing_gives(cohort, tmp_path):
    cases = build_cache(cohort, CONFIG, tmp_path / "cache")
    assert [c.id for c in cases] == ["case0", "case1", "case2"]
    for cached, case in zip(cases, cohort.cases, strict=True):
        prepared = prepare_case(case, MODALITIES, CONFIG)
        whole = cached.crop((0, 0, 0), cached.shape)
        assert np.abs(whole.image - prepared.image).max() <= 5 / 32767 / 2 + 1e-6
        assert whole.image.dtype == np.float32 and not whole.image[:, ~prepared.foreground].any()
        np.testing.assert_array_equal(whole.foreground, prepared.foreground)
        np.testing.assert_array_equal(cached.present, prepared.present)
        assert cached.grid == prepared.grid and cached.shape == prepared.grid.shape
        assert cached.subject == case.subject and cached.modalities == MODALITIES
        if case.label:
            np.testing.assert_array_equal(whole.label, prepared.label)
            assert whole.label.dtype == np.int16 and cached.label_values == (2, 4)
        else:
            assert whole.label is None and cached.label_values is None


def test_crops_are_parts_of_the_case_and_padded_outside(cohort, tmp_path):
    case = build_cache(cohort, CONFIG, tmp_path / "cache")[0]
    whole = case.crop((0, 0, 0), case.shape)
    pad = 40

    def padded(array):
        return np.pad(array, [(0, 0)] * (array.ndim - 3) + [(pad, pad)] * 3)

    starts = [(2, 3, 4), (-5, -6, -7), (15, 10, 20), (-3, 5, 18), (-40, 0, 0), (0, 40, 0), (-4, -4, -4)]
    sizes = [(5, 6, 7), (9, 9, 9), (12, 12, 12), (4, 30, 8), (10, 10, 10), (8, 8, 8), (36, 36, 38)]
    for start, size in zip(starts, sizes, strict=True):
        box = (..., *(slice(pad + a, pad + a + n) for a, n in zip(start, size, strict=True)))
        crop = case.crop(start, size)
        np.testing.assert_array_equal(crop.image, padded(whole.image)[box])
        np.testing.assert_array_equal(crop.foreground, padded(whole.foreground)[box])
        np.testing.assert_array_equal(crop.label, padded(whole.label)[box])
        assert crop.image.flags.c_contiguous and crop.image.flags.writeable
    assert case.crop(np.array([1, 2, 3]), np.array([4, 4, 4])).image.shape == (3, 4, 4, 4)


def test_stored_positions_lie_on_their_label_and_are_the_same_each_time(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("emim.volumes.cached_case.STORED_VOXELS", 100)
    case = build_cache(cohort, CONFIG, tmp_path / "a")[0]
    again = build_cache(cohort, CONFIG, tmp_path / "b")[0]
    whole = case.crop((0, 0, 0), case.shape)
    for value, count in ((2, 100), (4, 3)):
        found = case.label_voxels(value)
        assert found.shape == (count, 3) and found.dtype == np.int32
        assert (whole.label[tuple(found.T)] == value).all()
        assert len(np.unique(found, axis=0)) == count
        np.testing.assert_array_equal(found, again.label_voxels(value))
    assert case.label_voxels(9).shape == (0, 3)
    foreground = case.foreground_voxels()
    assert len(foreground) == 100 and whole.foreground[tuple(foreground.T)].all()
    assert np.ptp(foreground, axis=0).min() > 10  # from all over the body


def test_a_second_build_prepares_nothing(cohort, tmp_path, monkeypatch):
    events = Recorder()
    build_cache(cohort, CONFIG, tmp_path / "cache", events)
    assert [e["done"] for e in events.of("progress")] == [0, 1, 2, 3]
    said = " ".join(e["text"] for e in events.of("status"))
    assert "3 cases" in said and "GiB" in said and str(tmp_path / "cache") in said
    monkeypatch.setattr(cache_module, "prepare_case", None)  # would fail if called
    events = Recorder()
    assert len(build_cache(cohort, CONFIG, tmp_path / "cache", events)) == 3
    assert not events.seen


def keys(cohort, config, folder):
    return [c.folder.name for c in build_cache(cohort, config, folder)]


def test_the_key_follows_content_and_settings_and_nothing_else(cohort, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    first = keys(cohort, CONFIG, folder)
    assert len(set(first)) == 3

    moved = shutil.copytree(tmp_path / "data", tmp_path / "müved")
    renamed = Cohort(
        ("A", "B", "C"),
        tuple(
            Case(
                f"other{c.id}",
                "someone",
                {
                    dict(zip(MODALITIES, "ABC", strict=True))[m]: p.replace(
                        str(tmp_path / "data"), str(moved)
                    )
                    for m, p in c.images.items()
                },
                c.label and c.label.replace(str(tmp_path / "data"), str(moved)),
            )
            for c in cohort.cases
        ),
    )
    assert keys(renamed, CONFIG, folder) == first
    for path in Path(moved).rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert keys(renamed, CONFIG, folder) == first
    assert keys(Cohort(cohort.modalities, cohort.cases[::-1]), CONFIG, folder) == first[::-1]

    for config in (replace(CONFIG, spacing=(1.0, 1.0, 1.5)), replace(CONFIG, clip=4.0)):
        assert not set(keys(cohort, config, folder)) & set(first)
    changed = keys(cohort, replace(CONFIG, reference="flair"), folder)
    assert changed[0] != first[0] and changed[2] == first[2]  # case 2 has no flair: nothing changes
    assert not set(keys(Cohort(MODALITIES[::-1], cohort.cases[:2]), CONFIG, folder)) & set(first)

    save(Path(cohort.cases[0].label), np.ones((26, 28, 30), np.uint8))
    now = keys(cohort, CONFIG, folder)
    assert now[0] != first[0] and now[1:] == first[1:]
    monkeypatch.setattr(cache_module, "PREPROCESSING_VERSION", 999)
    assert not set(keys(cohort, CONFIG, folder)) & set(now)


def test_a_cached_case_can_be_pickled_and_holds_no_open_file(cohort, tmp_path):
    case = build_cache(cohort, CONFIG, tmp_path / "cache")[0]
    before = case.crop((0, 0, 0), (8, 8, 8))
    data = pickle.dumps(case)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data).crop((0, 0, 0), (8, 8, 8)).image, before.image)
    if os.path.isdir("/proc/self/fd"):
        assert str(tmp_path) not in " ".join(
            os.path.realpath(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd")
        )


def test_a_killed_build_leaves_only_what_is_swept_up_later(cohort, tmp_path):
    folder = tmp_path / "cache"
    script = tmp_path / "build.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from emim.cohort.case import Case, Cohort
        from emim.config import PreprocessConfig
        from emim.volumes import cache
        def die(*arguments):
            (Path(arguments[0]) / "image.npy").write_bytes(b"half")
            os._exit(9)
        cache.write_case = die
        cohort = Cohort.from_dict({cohort.to_dict()!r})
        cache.build_cache(cohort, PreprocessConfig((1.0, 1.0, 1.0)), {str(folder)!r})
        """),
        encoding="utf-8",
    )
    root = Path(cache_module.__file__).parents[2]
    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)}, check=False)
    assert done.returncode == 9
    left = list((folder / "building").iterdir())
    assert len(left) == 1 and not list((folder / "cases").iterdir())

    assert len(build_cache(cohort, CONFIG, folder)) == 3
    assert list((folder / "building").iterdir()) == left  # it may belong to a process at work
    old = time.time() - 2 * cache_module.STALE_AFTER
    os.utime(left[0], (old, old))
    build_cache(cohort, CONFIG, folder)
    assert not list((folder / "building").iterdir()) and len(cache_contents(folder)) == 3


@pytest.mark.parametrize("harm", ["cut", "lost", "summary"])
def test_a_damaged_case_is_made_again(cohort, tmp_path, harm):
    folder = tmp_path / "cache"
    case = build_cache(cohort, CONFIG, folder)[0]
    before = case.crop((0, 0, 0), case.shape)
    image = case.folder / "image.npy"
    if harm == "cut":
        image.write_bytes(image.read_bytes()[:-10])
    else:
        (image if harm == "lost" else case.folder / "case.json").unlink()
    (folder / "files.json").write_text("{ half", encoding="utf-8")
    case = build_cache(cohort, CONFIG, folder)[0]
    np.testing.assert_array_equal(case.crop((0, 0, 0), case.shape).image, before.image)
    assert not list((folder / "building").iterdir())


def test_two_processes_may_build_the_same_cache_at_once(cohort, tmp_path):
    # A script without a __main__ guard, started twice.
    script = tmp_path / "build.py"
    script.write_text(
        textwrap.dedent(f"""
        from emim.cohort.case import Cohort
        from emim.config import PreprocessConfig
        from emim.volumes.cache import build_cache
        cohort = Cohort.from_dict({cohort.to_dict()!r})
        for clip in (5.0, 4.0, 3.0):
            config = PreprocessConfig((1.0, 1.0, 1.0), clip=clip)
            cases = build_cache(cohort, config, {str(tmp_path / "cache")!r})
            print(*(float(c.crop((0, 0, 0), c.shape).image.sum()) for c in cases))
        """),
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cache_module.__file__).parents[2])}
    both = [
        subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert outputs[0] == outputs[1] and len(outputs[0].split()) == 9
    assert len(cache_contents(tmp_path / "cache")) == 9
    assert not list((tmp_path / "cache" / "building").iterdir())


def test_the_slower_of_two_builders_takes_the_faster_ones_case(cohort, tmp_path, monkeypatch):
    real = cache_module.prepare_case

    def while_another_builds_it(*arguments):
        monkeypatch.setattr(cache_module, "prepare_case", real)
        build_cache(cohort, CONFIG, tmp_path / "cache")
        return real(*arguments)

    monkeypatch.setattr(cache_module, "prepare_case", while_another_builds_it)
    assert len(build_cache(cohort, CONFIG, tmp_path / "cache", workers=1)) == 3
    assert len(cache_contents(tmp_path / "cache")) == 3 and not list(
        (tmp_path / "cache" / "building").iterdir()
    )


def test_a_scanner_that_looks_into_a_new_case_does_not_end_the_preparation(cohort, tmp_path, monkeypatch):
    """Windows does not rename a folder meanwhile."""
    rename, refused = os.replace, []

    def replace(source, target):
        if Path(target).parent.name == "cases" and len(refused) < 2:
            refused.append(target)
            raise PermissionError(13, "in use", str(source))
        return rename(source, target)

    monkeypatch.setattr("emim.replace.os", SimpleNamespace(name="nt", replace=replace))
    assert len(build_cache(cohort, CONFIG, tmp_path / "cache", workers=1)) == 3 and len(refused) == 2


def test_a_case_that_fails_is_named_and_the_others_stay(cohort, tmp_path, monkeypatch):
    bad = cohort.cases[1].images["flair"]
    save(Path(bad), np.full((26, 28, 30), 7, np.float32))
    with pytest.raises(EmimError, match="empty") as caught:
        build_cache(cohort, CONFIG, tmp_path / "cache", workers=1)
    assert caught.value.where == bad
    assert "case0" in {e.case for e in cache_contents(tmp_path / "cache")}

    def fails(*_):
        raise RuntimeError("the library gave up")

    monkeypatch.setattr(cache_module, "prepare_case", fails)
    with pytest.raises(EmimError, match="case1 .*the library gave up") as caught:
        build_cache(Cohort(MODALITIES, cohort.cases[1:2]), CONFIG, tmp_path / "cache")
    assert caught.value.where in cohort.cases[1].images.values()
    assert not list((tmp_path / "cache" / "building").iterdir())


def test_too_little_room_is_said_before_the_work(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(EmimError, match="GiB") as caught:
        build_cache(cohort, CONFIG, tmp_path / "cache")
    assert "EMIM_CACHE" in caught.value.hint and len(cache_contents(tmp_path / "cache")) == 1


def test_equal_cases_share_one_entry(cohort, tmp_path):
    twin = replace(cohort.cases[0], id="twin", subject="twin")
    cases = build_cache(Cohort(MODALITIES, (*cohort.cases, twin)), CONFIG, tmp_path / "cache")
    assert cases[0].folder == cases[3].folder and cases[3].id == "twin"
    assert len(cache_contents(tmp_path / "cache")) == 3


def test_contents_and_removal_touch_only_what_is_ours(cohort, tmp_path):
    folder = tmp_path / "cache"
    cases = build_cache(cohort, CONFIG, folder)
    entries = cache_contents(folder)
    assert {e.case for e in entries} == {"case0", "case1", "case2"}
    on_disk = sum(f.stat().st_size for c in cases for f in c.folder.iterdir() if f.name != "case.json")
    assert sum(e.bytes for e in entries) == on_disk
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "cases" / "mine").mkdir()
    assert remove_cache(folder) == on_disk
    assert sorted(p.name for p in folder.rglob("*")) == ["cases", "mine", "notes.txt"]
    assert cache_contents(folder) == []
    with pytest.raises(EmimError, match="not a cache"):
        remove_cache(folder)
    with pytest.raises(EmimError, match="not empty"):
        build_cache(cohort, CONFIG, folder)

    build_cache(cohort, CONFIG, tmp_path / "other")
    remove_cache(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_default_folder_can_be_set(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("EMIM_CACHE", str(tmp_path / "chosen"))
    assert default_folder() == tmp_path / "chosen"
    assert build_cache(cohort, CONFIG)[0].folder.is_relative_to(tmp_path / "chosen")
    monkeypatch.delenv("EMIM_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "emim"


def test_a_folder_that_cannot_be_used_is_refused(cohort, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(EmimError, match="cannot be used"):
        build_cache(cohort, CONFIG, tmp_path / "file" / "cache")


def test_equal_numbers_of_two_kinds_are_not_shared():
    from emim.volumes.cached_case import _shared

    assert _shared(1.0, 2.0) is _shared(1.0, 2.0)
    assert [type(n) for n in (*_shared(1, 2), *_shared(1.0, 2.0))] == [int, int, float, float]


@pytest.mark.parametrize(
    "path", ["/a/b.nii", "b.nii", "./b", "/a/../b", "/a//b", "/a/", "//a", "/a/.b", "/", ""]
)
def test_absolute_is_abspath(path):
    assert absolute(path) == os.path.abspath(path)
