"""Settings of this machine, kept in Slicer's settings file and not in the scene."""

from __future__ import annotations

from pathlib import Path

import qt

from EMIMLib.job_folder import homeFolder

DEVICES = ("auto", "cuda", "mps", "cpu")


def modelsFolder() -> Path:
    """Where installed models lie, one folder each; may not exist yet."""
    return _folder("ModelsFolder", homeFolder() / "models")


def setModelsFolder(folder: str | Path) -> None:
    qt.QSettings().setValue("EMIM/ModelsFolder", str(folder))


def lastModel() -> str:
    """Path of the model that the user chose last; "" before."""
    return str(qt.QSettings().value("EMIM/LastModel") or "")


def setLastModel(path: str) -> None:
    qt.QSettings().setValue("EMIM/LastModel", path)


def runsFolder() -> Path:
    """Where new training runs are put; may not exist yet."""
    return _folder("RunsFolder", homeFolder() / "runs")


def setRunsFolder(folder: str | Path) -> None:
    qt.QSettings().setValue("EMIM/RunsFolder", str(folder))


def cacheFolder() -> Path | None:
    """Where preprocessed volumes are kept; None: the core's own default."""
    return _folder("CacheFolder", None)


def setCacheFolder(folder: str | Path | None) -> None:
    qt.QSettings().setValue("EMIM/CacheFolder", str(folder or ""))


def device() -> str:
    """What to compute on: one of :data:`DEVICES`, or another name that torch knows, such as ``cuda:1``."""
    return str(qt.QSettings().value("EMIM/Device") or DEVICES[0])


def setDevice(name: str) -> None:
    qt.QSettings().setValue("EMIM/Device", name)


def _folder(name: str, default: Path | None) -> Path | None:
    text = qt.QSettings().value("EMIM/" + name)
    return Path(str(text)).expanduser() if text else default
