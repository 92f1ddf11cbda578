"""The Python packages that the workers need: which are missing, and installing them at first use.

Nothing here imports them: versions come from their metadata. PyTorch comes through the PyTorch extension,
which chooses the build for the graphics card; the rest from ``Resources/requirements.txt`` by pip.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from emim.errors import EmimError

REQUIREMENTS = Path(__file__).resolve().parent / "Resources" / "requirements.txt"
TORCH = "torch>=2.5"  # before, memory of a "cuda" without a number cannot be asked for
TORCH_SAFE = "2.6"  # before it, reading weights of a hostile model could run code (CVE-2025-32434)
PINNED = ("numpy", "SimpleITK", "torch", "torchvision")  # pip must not replace what Slicer runs on

# Rough sizes of what is downloaded, in MB, with what each package brings along.
SIZES = {"monai": 3, "nibabel": 4, "filelock": 1, "matplotlib": 20, "pillow": 7, "scipy": 40, "tqdm": 1}
TORCH_SIZE = "0.2 GB, or up to 3 GB with support for an NVIDIA graphics card"
OFFLINE_HINT = (
    "Check the internet connection and the proxy settings. Without internet, follow “Offline installation” "
    "in EMIM's README: the packages are downloaded as wheels on another computer, installed from a folder."
)
ASK_HINT = "Press “Install missing packages” in the section “Installation” of the EMIM modules."


@dataclass(frozen=True)
class Requirement:
    """A package that is missing or too old.

    Attributes:
        name: as pip knows it.
        specifier: the versions wanted, such as ``>=2.5``.
        installed: the version found, or None.
    """

    name: str
    specifier: str
    installed: str | None = None

    def __str__(self) -> str:
        found = f" (found {self.installed})" if self.installed else ""
        return f"{self.name}{self.specifier}{found}"

    @property
    def pip(self) -> str:
        return self.name + self.specifier


def required() -> list[str]:
    """Every requirement as pip writes it, torch first."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return [TORCH, *(line for line in lines if line)]


def missing() -> list[Requirement]:
    """What the workers need and this Slicer does not have; empty when another Python is set to run them."""
    if os.environ.get("EMIM_PYTHON"):
        return []
    found = (_unmet(text) for text in required())
    return [requirement for requirement in found if requirement is not None]


def blocked() -> EmimError | None:
    """Why the packages cannot be installed on this computer at all, or None."""
    old = any(requirement.name == "torch" for requirement in missing())
    if old and platform.system() == "Darwin" and platform.machine() == "x86_64":
        return EmimError(
            "PyTorch 2.5 or later is needed, but there is none for this Slicer.",
            "Slicer for Intel Macs (also on Apple Silicon); the last PyTorch made for it is 2.2.2",
            "Use EMIM in Slicer on Linux or Windows. On Apple Silicon, EMIM's command line also runs in a "
            "native Python (see README).",
        )
    return None


def warnings() -> list[str]:
    """What works but should be known."""
    version = installedVersion("torch")
    if version is None or _satisfies(version, f">={TORCH_SAFE}"):
        return []
    return [
        f"PyTorch {version}: before {TORCH_SAFE}, opening a model from an untrusted source could run harmful "
        "code. Use only models of people you trust, or update PyTorch with the module PyTorch Utils."
    ]


def installedVersion(name: str) -> str | None:
    """The version of an installed package by its metadata; the package is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def require() -> None:
    """Do nothing when all is there.

    Raises:
        EmimError: naming what is missing and how to install it.
    """
    if error := blocked():
        raise error
    if absent := missing():
        names = ", ".join(map(str, absent))
        raise EmimError(
            "Python packages that EMIM needs are not installed.",
            names,
            f"{ASK_HINT} In a script: EMIMLib.dependencies.ensure().",
        )


def summary(requirements: list[Requirement]) -> str:
    """What is to be installed, how big it is and where it comes from, for a question to the user."""
    lines = ["EMIM needs Python packages that this Slicer does not have yet:", ""]
    for r in requirements:
        old = f", replaces {r.installed}" if r.installed else ""
        if r.name == "torch":
            lines.append(
                f"•  PyTorch ({r.pip}{old}): {TORCH_SIZE}; from the PyTorch project, by the PyTorch extension"
            )
        else:
            lines.append(f"•  {r.pip}{old}: about {SIZES.get(r.name, 10)} MB; from the Python Package Index")
    lines += [
        "",
        "They are installed once, into this Slicer only; that needs internet and takes some minutes. "
        "Images never leave this computer.",
        "",
        "Install now?",
    ]
    return "\n".join(lines)


def ensure(parent=None, installer=None) -> bool:
    """Have everything the workers need: ask one question, install, offer a restart where it is needed.

    Nothing is asked when nothing is missing.

    Args:
        parent: widget over which the question appears.
        installer: who asks and installs; None: :class:`EMIMLib.installer.SlicerInstaller`.

    Returns:
        Whether everything is there now; False when the user declined.

    Raises:
        EmimError: when it cannot be installed on this computer, or the installation failed.
    """
    if not missing():
        return True
    if error := blocked():
        raise error
    if installer is None:
        from EMIMLib.installer import SlicerInstaller  # needs Qt

        installer = SlicerInstaller(parent)
    if not installer.canAsk():
        require()
    if not installer.confirm(summary(missing())):
        return False
    before = _versions()
    _install(installer)
    if absent := missing():
        names = ", ".join(map(str, absent))
        raise EmimError("Some packages could not be installed.", names, OFFLINE_HINT)
    replaced = _loadedAndReplaced(before)
    if replaced:
        installer.offerRestart(replaced)
    return True


def pins() -> list[str]:
    """Constraints for pip that keep Slicer's own packages at their versions."""
    found = ((name, installedVersion(name)) for name in PINNED)
    return [f"{name}==={version}" for name, version in found if version is not None]


def _install(installer) -> None:
    try:
        if any(r.name == "torch" for r in missing()):
            installer.installTorch(TORCH.removeprefix("torch"))
        others = [r.pip for r in missing() if r.name != "torch"]
        if others:
            installer.installPackages(others, pins())  # torch's new version is pinned too
    except EmimError:
        raise
    except Exception as error:  # pip, light-the-torch and the network fail in many ways
        raise EmimError(f"The packages could not be installed: {error}", None, OFFLINE_HINT) from error


def _unmet(text: str) -> Requirement | None:
    from packaging.requirements import Requirement as Parsed

    parsed = Parsed(text)
    if parsed.marker is not None and not parsed.marker.evaluate():
        return None
    version = installedVersion(parsed.name)
    if version is not None and _satisfies(version, str(parsed.specifier)):
        return None
    return Requirement(parsed.name, str(parsed.specifier), version)


def _satisfies(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _versions() -> dict[str, str]:
    return {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}


def _loadedAndReplaced(before: dict[str, str]) -> list[str]:
    """Packages that changed while this process already had the old version loaded."""
    importlib.invalidate_caches()
    after = _versions()
    changed = {name for name, version in before.items() if after.get(name, version) != version}
    loaded = {
        name
        for module, names in metadata.packages_distributions().items()
        if module in sys.modules
        for name in names
    }
    return sorted(changed & loaded)
