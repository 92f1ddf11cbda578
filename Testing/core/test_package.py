"""Model packages: what is written comes back, and what is damaged or hostile is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from emim.config import NetworkConfig, PreprocessConfig, Structure
from emim.errors import EmimError
from emim.networks.segmenter import Segmenter
from emim.package.bundle import read_card, read_package, write_package
from emim.package.model import ModelCard

CARD = ModelCard(
    name="Täst",
    modalities=("T1", "FLAIR"),
    optional=("T1",),
    structures=(
        Structure("Whole tumour", (1, 2, 3), 2, (0, 255, 0)),
        Structure("Core", (1, 3), 1, (255, 0, 0), "SCT^1^x"),
    ),
    overlapping=True,
    preprocess=PreprocessConfig(spacing=(1.5, 1.5, 2.0)),
    network=NetworkConfig(filters=4, blocks=(1, 1)),
    crop=16,
    patterns={"T1": ["t1"]},
    training={"steps": 10, "dice": 0.5},
    licence="CC BY 4.0",
)


def state_of(card: ModelCard) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Segmenter(len(card.modalities), card.outputs, card.network).state_dict()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "модель", CARD, state_of(CARD))


def record_again(folder: Path) -> None:
    """Make the checksums fit the present files, as a forger would."""
    file = folder / "checksums.json"
    data = json.loads(file.read_text())
    for name in data["files"]:
        content = (folder / name).read_bytes()
        data["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file.write_text(json.dumps(data))


def edit_metadata(folder: Path, **changes) -> None:
    file = folder / "configs/metadata.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        data["emim"][key] = value
        if value is None:
            del data["emim"][key]
    file.write_text(json.dumps(data), encoding="utf-8")
    record_again(folder)


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_round_trip(tmp_path, name):
    state = state_of(CARD)
    path = write_package(tmp_path / name, CARD, state)
    read = read_package(path)
    assert read.card == CARD == read_card(path)
    loaded = read.load_state()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert [p.name for p in tmp_path.iterdir()] == [name]  # no temporary files left


def test_follows_the_bundle_specification(package):
    data = json.loads((package / "configs/metadata.json").read_text(encoding="utf-8"))
    for key in ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description"):
        assert isinstance(data[key], str) and data[key]
    for key in ("required_packages_version", "authors", "copyright"):
        assert key in data
    image = data["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == 2 and image["channel_def"] == {"0": "T1", "1": "FLAIR"}
    assert image["spatial_shape"] == ["2*n", "2*m", "2*k"]
    pred = data["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "Whole tumour", "1": "Core"}
    assert "CC BY 4.0" in (package / "LICENSE").read_text()
    assert "FLAIR (required)" in (package / "docs/README.md").read_text(encoding="utf-8")


def test_monai_builds_the_network_from_the_configuration(package):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(package / "configs/inference.json")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(read_package(package).load_state())
    with torch.inference_mode():
        x = torch.rand(1, 2, 16, 16, 16)
        y = parser.get_parsed_content("inferer")(inputs=x, network=network)
    assert y.shape == (1, 2, 16, 16, 16)


def test_reading_imports_no_torch(package):
    code = (
        "import sys; from emim.package.bundle import read_package, read_card\n"
        f"read_package({str(package)!r}); read_card({str(package)!r})\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'nibabel', 'numpy'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_existing_is_kept_unless_asked(package):
    before = (package / "models/model.pt").read_bytes()
    with pytest.raises(EmimError, match="exists already"):
        write_package(package, CARD, state_of(CARD))
    assert (package / "models/model.pt").read_bytes() == before
    other = dataclasses.replace(CARD, name="second")
    write_package(package, other, state_of(CARD), overwrite=True)
    assert read_package(package).card.name == "second"


def test_overwrite_spares_what_is_no_package(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    with pytest.raises(EmimError, match="no model package"):
        write_package(tmp_path / "thesis", CARD, state_of(CARD), overwrite=True)
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"


def test_overwrite_spares_a_run_with_its_model(tmp_path):
    write_package(tmp_path / "run/model", CARD, state_of(CARD))
    (tmp_path / "run/log.txt").write_text("of a week")
    with pytest.raises(EmimError, match="run folder"):
        write_package(tmp_path / "run", CARD, state_of(CARD), overwrite=True)
    assert (tmp_path / "run/log.txt").read_text() == "of a week"


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_a_replacement_that_fails_at_last_leaves_the_old_package(name, tmp_path, monkeypatch):
    """Windows refuses to move what another program has open."""
    package = write_package(tmp_path / name, CARD, state_of(CARD))
    rename = os.replace

    def refuse(old, new):
        if Path(new) == package and Path(old).name == name:
            raise PermissionError(13, "in use", str(new))
        return rename(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match="in use"):
        write_package(package, dataclasses.replace(CARD, name="second"), state_of(CARD), overwrite=True)
    assert read_package(package).card.name == CARD.name
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_old_package_that_cannot_be_put_back_is_not_deleted(package, monkeypatch):
    rename = os.replace

    def refuse(old, new):
        if Path(new) == package:
            raise PermissionError(13, "in use", str(new))
        return rename(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_package(package, CARD, state_of(CARD), overwrite=True)
    (kept,) = package.parent.glob("*/replaced")
    assert read_package(kept).card == CARD


def test_who_may_read_a_package_is_up_to_the_folder_it_lies_in(tmp_path, monkeypatch):
    """What is made with mode 0o700 is the owner's alone on Windows, also after it was moved."""
    modes, make = [], os.mkdir
    monkeypatch.setattr(
        os, "mkdir", lambda path, mode=0o777, **given: (modes.append(mode), make(path, mode, **given))
    )
    write_package(tmp_path / "model", CARD, state_of(CARD))
    assert modes and 0o700 not in modes


def test_found_in_a_run_folder(tmp_path):
    write_package(tmp_path / "run/model", CARD, state_of(CARD))
    assert read_package(tmp_path / "run").path == tmp_path / "run/model"


@pytest.mark.parametrize("name", ["models/model.pt", "docs/README.md", "LICENSE", "configs/metadata.json"])
def test_changed_byte(package, name):
    content = bytearray((package / name).read_bytes())
    content[len(content) // 2] ^= 1
    (package / name).write_bytes(content)
    with pytest.raises(EmimError, match="has changed") as caught:
        read_package(package)
    assert name in str(caught.value)


def test_truncated_and_missing(package):
    weights = package / "models/model.pt"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(EmimError, match=rf"truncated: {len(content) // 2} of {len(content)} bytes"):
        read_package(package)
    weights.unlink()
    with pytest.raises(EmimError, match="lacks the file 'models/model.pt'"):
        read_package(package)


def test_surplus_file(package):
    (package / ".DS_Store").write_text("from a Mac: harmless")
    read_package(package)
    (package / "configs/extra.py").write_text("print(1)")
    with pytest.raises(EmimError, match="do not list: 'configs/extra.py'"):
        read_package(package)


def test_link(package, tmp_path):
    (tmp_path / "secret").write_text("x")
    (package / "LICENSE").unlink()
    (package / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(EmimError, match="link"):
        read_package(package)


def test_not_a_package(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zip").write_bytes(b"no zip at all")
    with pytest.raises(EmimError, match="no such model"):
        read_package(tmp_path / "absent")
    with pytest.raises(EmimError, match="not a model package"):
        read_package(tmp_path / "folder")
    with pytest.raises(EmimError, match="cannot be opened"):
        read_package(tmp_path / "file.zip")


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../b", "..\\evil", "C:/evil"])
def test_zip_slip(tmp_path, name):
    path = write_package(tmp_path / "m.zip", CARD, state_of(CARD))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(EmimError, match="points outside"):
        read_package(path)


def test_zip_with_a_link(tmp_path):
    path = write_package(tmp_path / "m.zip", CARD, state_of(CARD))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("m/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(EmimError, match="points outside"):
        read_package(path)


@pytest.mark.parametrize("name", ["configs/metadata.json", "models/model.pt"])
@pytest.mark.parametrize(
    ("field", "value", "said", "hint"),
    [
        ("flags", 1, "encrypted", "Unpack it"),
        ("method", 9, "compression method", "Unpack it"),  # Deflate64, of Windows for large files
        ("data", 0xFF, "cannot be read: Error -3", "download the package again"),
    ],
)
def test_zip_that_cannot_be_unpacked(name, field, value, said, hint, tmp_path):
    path = write_package(tmp_path / "m.zip", CARD, state_of(CARD))
    with zipfile.ZipFile(path) as archive:
        member, start = archive.getinfo(f"m/{name}"), archive.start_dir
    content = bytearray(path.read_bytes())
    local, central = member.header_offset, content.rindex(member.filename.encode(), start) - 46
    places = {
        "flags": [local + 6, central + 8],
        "method": [local + 8, central + 10],
        "data": [local + 30 + len(member.filename)],
    }
    for place in places[field]:
        content[place] = value
    path.write_bytes(content)
    with pytest.raises(EmimError, match=said) as caught:
        read_package(path)
    assert name in caught.value.what and caught.value.where == str(path) and hint in caught.value.hint


class Hostile:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("raw", [True, False])
def test_code_in_the_weights_is_refused_and_not_run(package, tmp_path, raw):
    trap = tmp_path / "trap"
    if raw:
        (package / "models/model.pt").write_bytes(pickle.dumps({"tokens.value": Hostile(trap)}))
    else:
        torch.save({"tokens.value": Hostile(trap)}, package / "models/model.pt")
    record_again(package)
    with pytest.raises(EmimError, match="more than plain tensors"):
        read_package(package).load_state()
    assert not trap.exists()


def test_weights_of_another_model(package):
    state = state_of(CARD)
    for change, message in (
        ({"tokens.value": torch.zeros(3)}, r"'tokens.value' has shape \(3,\) instead of \(2,\)"),
        ({"surplus": torch.zeros(1)}, "surplus tensor 'surplus'"),
        ({"tokens.value": torch.tensor([0.0, float("nan")])}, "not finite"),
        ({"tokens.value": [0, 0]}, "not a plain dictionary"),
    ):
        torch.save({**state, **change}, package / "models/model.pt")
        record_again(package)
        with pytest.raises(EmimError, match=message):
            read_package(package).load_state()
    del state["tokens.value"]
    with pytest.raises(EmimError, match="lack tensor 'tokens.value'"):
        write_package(package, CARD, state, overwrite=True)


def test_incomplete_or_newer_card(package):
    edit_metadata(package, card_version=99)
    with pytest.raises(EmimError, match="version 99"):
        read_package(package)
    edit_metadata(package, card_version=1, crop=None)
    with pytest.raises(EmimError, match="crop"):
        read_package(package)
    edit_metadata(package, crop=16, surprise=1)
    with pytest.raises(EmimError, match="surprise"):
        read_package(package)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ("T1", "t1"), "optional": ()}, "listed twice"),
        ({"optional": ("T2",)}, "optional"),
        ({"structures": CARD.structures[::-1]}, "wrong order"),
        ({"overlapping": False}, "share label values"),
        ({"preprocess": PreprocessConfig()}, "spacing"),
        ({"crop": 15}, "crop"),
        ({"task": "classification"}, "lists structures"),
        ({"task": "regression"}, "regression"),
        ({"task": "classification", "structures": (), "classes": ("a",)}, "fewer than two classes"),
        ({"classes": ("a", "b")}, "lists classes"),
    ],
)
def test_card_that_contradicts_itself(changes, message):
    with pytest.raises(EmimError, match=message):
        dataclasses.replace(CARD, **changes).check()


@pytest.mark.parametrize(
    ("command", "said", "hint"),
    [("pretrain", "pre-training run", "Fine-tune it first"), ("finetune", "not made a model", "--resume")],
)
def test_a_run_without_a_model_says_what_to_do(command, said, hint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"command": command, "train": {"steps": 9}}))
    with pytest.raises(EmimError, match=said) as caught:
        read_package(tmp_path)
    assert hint in caught.value.hint
