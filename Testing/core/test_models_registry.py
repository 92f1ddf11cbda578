"""The folder of installed models: listing tolerates anything, importing accepts only what is sound."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.errors import EmimError
from emim.package.archive import CHECKSUMS, METADATA, checksums
from emim.package.bundle import read_card
from emim.package.metadata import bundle_metadata
from emim.package.model import ModelCard
from EMIMLib.models import InstalledModel, ModelRegistry, folderName

ROOT = Path(__file__).resolve().parents[2]


def write_package(folder, name="Glioma", weights=b"weights"):
    """A package that is sound but for its weights, which nobody here loads."""
    card = ModelCard(
        name=name,
        modalities=("T1", "FLAIR"),
        structures=(Structure("WT", (1,), 1, (255, 0, 0)),),
        overlapping=False,
        preprocess=PreprocessConfig(spacing=(1.0, 1.0, 1.0)),
        network=NetworkConfig(filters=4, blocks=(1, 1)),
        crop=16,
    )
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    (folder / "models/model.pt").write_bytes(weights)
    (folder / METADATA).write_text(json.dumps(bundle_metadata(card)), encoding="utf-8")
    (folder / CHECKSUMS).write_text(json.dumps(checksums(folder)), encoding="utf-8")
    return folder


def zipped(folder):
    file = folder.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as archive:
        for part in folder.rglob("*"):
            archive.write(part, Path(folder.name) / part.relative_to(folder))
    return file


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path / "models")


def test_empty_and_missing_folder(registry):
    assert registry.models() == []
    registry.folder.mkdir()
    assert registry.models() == []


@pytest.mark.parametrize("kind", ["folder", "zip", "run"])
def test_import_and_remove(registry, tmp_path, kind):
    source = write_package(tmp_path / ("run/model" if kind == "run" else "download"))
    source = {"folder": source, "zip": tmp_path / "download.zip", "run": source.parent}[kind]
    if kind == "zip":
        zipped(tmp_path / "download")
    model = registry.import_(source)
    assert model.path == registry.folder / "Glioma" and model.problem is None
    assert model.card.modalities == ("T1", "FLAIR") and model.name == "Glioma"
    assert registry.models() == [model]
    assert [p.name for p in registry.folder.iterdir()] == ["Glioma"]  # nothing temporary is left
    registry.remove(model)
    assert list(registry.folder.iterdir()) == [] and source.exists()


def test_names_from_anywhere(registry, tmp_path):
    for i, name in enumerate(["Ödem – 脳腫瘍", 'a/b\\c:d*?"<>|', "CON", "..", "x" * 300]):
        model = registry.import_(write_package(tmp_path / f"p{i}", name))
        assert model.path.parent == registry.folder and registry.find(model.path.name) == model
        assert model.name == name
    assert folderName("Ödem – 脳腫瘍") == "Ödem – 脳腫瘍"
    assert folderName("con.nii") == "_con.nii" and folderName("..") == "model"
    assert len(registry.models()) == 5


def test_clash_is_refused_and_overwritten_on_request(registry, tmp_path):
    registry.import_(write_package(tmp_path / "old", weights=b"old"))
    newer = write_package(tmp_path / "new", name="GLIOMA", weights=b"new")
    with pytest.raises(EmimError, match="installed already"):
        registry.import_(newer)
    assert (registry.folder / "Glioma/models/model.pt").read_bytes() == b"old"
    model = registry.import_(newer, overwrite=True)
    assert (model.path / "models/model.pt").read_bytes() == b"new"
    assert registry.models() == [model]
    with pytest.raises(EmimError, match="installed already"):
        registry.import_(model.path, overwrite=True)  # onto itself
    assert registry.models() == [model]


def test_overwriting_never_removes_what_is_no_package(registry, tmp_path):
    precious = registry.folder / "Glioma"
    precious.mkdir(parents=True)
    (precious / "thesis.txt").write_text("three years")
    with pytest.raises(EmimError, match="no model package"):
        registry.import_(write_package(tmp_path / "p"), overwrite=True)
    assert (precious / "thesis.txt").exists()


@pytest.mark.parametrize("damage", ["changed", "missing", "surplus", "no package", "no zip", "link"])
def test_import_refuses_what_is_not_sound(registry, tmp_path, damage):
    source = write_package(tmp_path / "p")
    if damage == "changed":
        (source / "models/model.pt").write_bytes(b"weightz")
    elif damage == "missing":
        (source / "models/model.pt").unlink()
    elif damage == "surplus":
        (source / "run_me.py").write_text("raise SystemExit")
    elif damage == "no package":
        source = tmp_path
    elif damage == "no zip":
        source = tmp_path / "p.zip"
        source.write_bytes(b"PK\x03\x04 half a download")
    elif damage == "link":
        (source / "models/model.pt").unlink()
        (source / "models/model.pt").symlink_to("/etc/passwd")
    with pytest.raises(EmimError) as caught:
        registry.import_(source)
    assert caught.value.hint and str(tmp_path) in caught.value.where
    assert registry.models() == [] and not registry.folder.exists()


def test_copy_that_fails_leaves_nothing(registry, tmp_path, monkeypatch):
    source = write_package(tmp_path / "p")
    registry.import_(write_package(tmp_path / "old", weights=b"old"))

    def full(*args):
        raise OSError(28, "No space left on device", str(registry.folder))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(EmimError, match="No space left"):
        registry.import_(source, overwrite=True)
    assert [p.name for p in registry.folder.iterdir()] == ["Glioma"]
    assert (registry.folder / "Glioma/models/model.pt").read_bytes() == b"old"


def test_a_replacement_that_fails_at_last_leaves_the_old_model(registry, tmp_path, monkeypatch):
    """Windows refuses to move what another program has open."""
    source = write_package(tmp_path / "p")
    installed = registry.import_(write_package(tmp_path / "old", weights=b"old")).path
    rename = os.replace

    def refuse(old, new):
        if Path(new) == installed and Path(old).name == "model":
            raise PermissionError(13, "in use", str(new))
        return rename(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(EmimError, match="in use"):
        registry.import_(source, overwrite=True)
    assert [p.name for p in registry.folder.iterdir()] == ["Glioma"]
    assert (installed / "models/model.pt").read_bytes() == b"old"


def test_folder_names_that_must_differ():
    plain, cut, odd = "sub-001", "x" * 90, "a/b"
    assert folderName(plain, unique=True) == folderName(plain) == plain
    assert folderName(cut, unique=True) != folderName(cut + "y", unique=True)
    assert folderName(odd, unique=True) != folderName("a:b", unique=True) and folderName(odd) == "a_b"


def test_damaged_packages_are_listed_with_their_problem(registry, tmp_path):
    sound = registry.import_(write_package(tmp_path / "p"))
    broken = write_package(registry.folder / "Broken", "Broken")
    (broken / METADATA).write_text("{half")
    hostile = write_package(registry.folder / "hostile", "x")
    (hostile / METADATA).write_text("[" * 100_000)
    foreign = registry.folder / "foreign"
    (foreign / "configs").mkdir(parents=True)
    (foreign / "configs/metadata.json").write_text("{}")
    (registry.folder / "half.zip").write_bytes(b"PK")
    (registry.folder / "notes.txt").write_text("mine")
    (registry.folder / "holiday").mkdir()
    found = {m.path.name: m for m in registry.models()}
    assert set(found) == {"Glioma", "Broken", "hostile", "foreign", "half.zip"}
    assert found["Glioma"] == sound
    for name in ("Broken", "hostile", "foreign", "half.zip"):
        assert found[name].card is None and found[name].problem.hint, name
        with pytest.raises(EmimError):
            registry.find(name)
    registry.remove(found["Broken"])
    registry.remove(found["half.zip"])
    assert {m.path.name for m in registry.models()} == {"Glioma", "hostile", "foreign"}


def test_find(registry, tmp_path):
    model = registry.import_(write_package(tmp_path / "p"))
    twin = write_package(registry.folder / "twin")
    outside = write_package(tmp_path / "run/model", "Outside")
    assert registry.find("twin").path == twin
    assert registry.find(model.path) == model
    assert registry.find(tmp_path / "run").path == outside and registry.find(outside).name == "Outside"
    assert registry.find("Glioma") == model  # its folder is named so; the twin's only card is
    shutil.move(model.path, registry.folder / "other")
    with pytest.raises(EmimError, match="Several models") as caught:
        registry.find("Glioma")
    assert "other, twin" in caught.value.hint
    for nonsense in ("nothing", "", tmp_path):
        with pytest.raises(EmimError):
            registry.find(nonsense)


def test_a_path_from_another_computer(registry, tmp_path):
    model = registry.import_(write_package(tmp_path / "p"))
    for path in ("/home/a/models/Glioma", "C:\\Users\\a\\models\\Glioma\\", "/other/Glioma/"):
        assert registry.namesake(path) == model
        with pytest.raises(EmimError):  # given by hand it is a mistake
            registry.find(path)
    for path in ("/home/a/Glioma/model", "/home/a/Glioma 2", "/", ""):
        assert registry.namesake(path) is None
    shutil.move(model.path, registry.folder / "first")
    write_package(registry.folder / "second")
    assert registry.namesake("/home/a/models/Glioma") is None, "two are named so"


def test_versions_of_one_name_are_told_apart(registry, tmp_path):
    old = registry.import_(write_package(tmp_path / "old", weights=b"old"))
    same, new = write_package(tmp_path / "same", weights=b"old"), write_package(tmp_path / "new")
    assert len(old.version) == 8 and registry.package(zipped(same)).version == old.version
    assert registry.package(new).version != old.version
    assert registry.replacedBy(registry.package(new)) == old
    assert registry.replacedBy(registry.package(old.path)) is None
    assert registry.replacedBy(registry.package(write_package(tmp_path / "x", "Other"))) is None
    newer = registry.import_(new, overwrite=True)
    assert registry.models() == [newer] and newer.version == registry.package(new).version
    (newer.path / METADATA).write_text("{half")
    assert registry.models()[0].version == ""


@pytest.mark.parametrize("date, version", [("2025-03-01", "2025-03-01, "), (20250301, ""), (None, "")])
def test_the_day_of_the_training_is_part_of_the_version(tmp_path, date, version):
    card = read_card(write_package(tmp_path / "p"))
    card.training["date"] = date
    assert InstalledModel(tmp_path / "p", card, fingerprint="0badcafe").version == f"{version}0badcafe"


def test_remove_only_packages_in_the_folder(registry, tmp_path):
    model = registry.import_(write_package(tmp_path / "p"))
    outside = registry.find(tmp_path / "p")
    with pytest.raises(EmimError, match="not removed"):
        registry.remove(outside)
    assert outside.path.exists()
    link = registry.folder / "link"
    link.symlink_to(tmp_path / "p", target_is_directory=True)
    linked = next(m for m in registry.models() if m.path == link)
    with pytest.raises(EmimError, match="not removed"):
        registry.remove(linked)
    assert outside.path.exists() and model in registry.models()


def test_torch_is_not_imported(tmp_path):
    write_package(tmp_path / "p")
    code = (
        "import sys; from EMIMLib.models import ModelRegistry;"
        f"r = ModelRegistry({str(tmp_path / 'models')!r}); r.import_({str(tmp_path / 'p')!r}); r.models();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'monai', 'qt', 'SimpleITK')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
