"""What is missing is told from metadata alone, asked about once, and installed by the installers given."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from emim.errors import EmimError
from EMIMLib import dependencies

ROOT = Path(__file__).resolve().parents[2]
ALL = {
    "torch": "2.7.1+cu126",
    "monai": "1.5.1",
    "nibabel": "5.3.2",
    "filelock": "3.20",
    "matplotlib": "3.10",
    "pillow": "11",
    "scipy": "1.16",
    "tqdm": "4.67",
    "numpy": "2.0.2",
    "SimpleITK": "2.5.0rc2.dev30",
}


@pytest.fixture
def installed(monkeypatch):
    """The packages this Python seems to have: name to version; change it as you like."""
    packages = dict(ALL)

    def version(name):
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(dependencies, "_versions", lambda: dict(packages))
    monkeypatch.setattr(dependencies.platform, "system", lambda: "Linux")
    monkeypatch.delenv("EMIM_PYTHON", raising=False)
    return packages


class Installer:
    """Answers and installs as told; keeps what was asked of it."""

    def __init__(self, packages, answer=True, works=True):
        self.packages, self.answer, self.works = packages, answer, works
        self.questions, self.installs, self.restarts = [], [], []

    def canAsk(self):
        return True

    def confirm(self, text):
        self.questions.append(text)
        return self.answer

    def installTorch(self, specifier):
        self.installs.append("torch" + specifier)
        if self.works:
            self.packages["torch"] = "2.8.0"

    def installPackages(self, requirements, constraints):
        self.installs.append((requirements, constraints))
        if self.works:
            for text in requirements:
                self.packages[text.partition(">")[0]] = ALL[text.partition(">")[0]]

    def offerRestart(self, packages):
        self.restarts.append(packages)


def test_nothing_missing_asks_nothing(installed):
    installer = Installer(installed)
    assert dependencies.missing() == [] and dependencies.ensure(installer=installer)
    assert installer.questions == installer.installs == []
    dependencies.require()


def test_missing_and_too_old(installed):
    del installed["monai"]
    installed["torch"], installed["scipy"] = "2.2.2", "1.9"
    assert [str(r) for r in dependencies.missing()] == [
        "torch>=2.5 (found 2.2.2)",
        "monai>=1.5.1",
        "scipy>=1.11 (found 1.9)",
    ]
    with pytest.raises(EmimError) as caught:
        dependencies.require()
    assert "torch>=2.5 (found 2.2.2), monai" in caught.value.where
    assert "Install missing packages" in caught.value.hint


def test_prerelease_and_local_versions_count(installed):
    installed["torch"] = "2.9.0.dev20250801+cu128"
    installed["monai"] = "1.6.0rc1"
    assert dependencies.missing() == []


def test_one_question_then_torch_first_then_the_rest(installed):
    del installed["torch"], installed["monai"], installed["tqdm"]
    installer = Installer(installed)
    assert dependencies.ensure(installer=installer)
    (question,) = installer.questions
    for part in (
        "PyTorch (torch>=2.5)",
        "3 GB",
        "PyTorch extension",
        "monai>=1.5.1",
        "Python Package Index",
        "tqdm",
    ):
        assert part in question
    assert "nibabel" not in question
    torch, (packages, constraints) = installer.installs
    assert torch == "torch>=2.5" and packages == ["monai>=1.5.1", "tqdm>=4.66"]
    assert constraints == ["numpy===2.0.2", "SimpleITK===2.5.0rc2.dev30", "torch===2.8.0"]
    assert installer.restarts == []


def test_declined(installed):
    del installed["monai"]
    installer = Installer(installed, answer=False)
    assert dependencies.ensure(installer=installer) is False
    assert installer.installs == []


@pytest.mark.parametrize("failure", ["raises", "silent", "own"])
def test_failed_installation_says_how_to_go_on(installed, failure):
    del installed["monai"]
    installer = Installer(installed, works=False)
    if failure != "silent":
        own = EmimError("No extension.", None, "Install the extension.")
        error = own if failure == "own" else subprocess.CalledProcessError(1, ["pip", "install"])
        installer.installPackages = lambda *_: (_ for _ in ()).throw(error)
    with pytest.raises(EmimError) as caught:
        dependencies.ensure(installer=installer)
    assert ("Install the extension" if failure == "own" else "Offline installation") in caught.value.hint


def test_nobody_to_ask(installed):
    del installed["monai"]
    installer = Installer(installed)
    installer.canAsk = lambda: False
    with pytest.raises(EmimError, match="not installed"):
        dependencies.ensure(installer=installer)
    assert installer.questions == installer.installs == []


def test_restart_is_offered_for_what_was_loaded(installed, monkeypatch):
    installed |= {"scipy": "1.9", "matplotlib": "3.1"}
    monkeypatch.setattr(
        metadata, "packages_distributions", lambda: {"json": ["scipy"], "no_such_module": ["matplotlib"]}
    )
    installer = Installer(installed)
    assert dependencies.ensure(installer=installer)
    assert installer.restarts == [["scipy"]]  # `json` is in memory


def test_mac_with_intel_slicer(installed, monkeypatch):
    installed["torch"] = "2.2.2"
    monkeypatch.setattr(dependencies.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(dependencies.platform, "machine", lambda: "x86_64")
    installer = Installer(installed)
    for call in (dependencies.require, lambda: dependencies.ensure(installer=installer)):
        with pytest.raises(EmimError, match="none for this Slicer") as caught:
            call()
        assert "2.2.2" in caught.value.where and "Linux or Windows" in caught.value.hint
    assert installer.questions == []
    monkeypatch.setattr(dependencies.platform, "machine", lambda: "arm64")
    assert dependencies.blocked() is None


def test_old_torch_is_warned_of(installed):
    assert dependencies.warnings() == []
    installed["torch"] = "2.5.1"
    (warning,) = dependencies.warnings()
    assert "2.5.1" in warning and "trust" in warning
    del installed["torch"]
    assert dependencies.warnings() == []


def test_another_python_is_not_judged(installed, monkeypatch):
    installed.clear()
    monkeypatch.setenv("EMIM_PYTHON", sys.executable)
    assert dependencies.missing() == []


def test_requirements_agree_with_the_core():
    """The core's own dependencies, less what Slicer brings, are what is asked for."""
    try:
        import tomllib
    except ImportError:
        pytest.skip("needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {d for d in project["dependencies"] if not d.startswith(("numpy", "SimpleITK"))}
    assert set(dependencies.required()) == core


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from EMIMLib import dependencies as d; d.missing(); d.warnings(); d.pins();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'monai', 'scipy', 'numpy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
