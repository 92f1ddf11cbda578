"""Where fine-tuning can start, and what its end leaves to be installed."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

from emim.package.bundle import read_card
from emim.run_state import RunState, read_run
from EMIMLib import EmimError
from EMIMLib.models import InstalledModel, ModelRegistry, folderName

SCRATCH = "scratch"


def startPoints(runs: list[RunState], registry: ModelRegistry) -> list[tuple[str, str]]:
    """(text for a list, path or "scratch") of all that fine-tuning can start from, the best first."""
    found = [(_describe(run), str(run.folder)) for run in runs if hasWeights(run)]
    found += [
        (_("{name} (installed model)").format(name=model.name), str(model.path))
        for model in registry.models()
        if model.problem is None
    ]
    return [*found, (_("From scratch (for comparison)"), SCRATCH)]


def hasWeights(run: RunState) -> bool:
    """Whether a run has weights to start from."""
    if run.command == "finetune":
        return run.model is not None
    return run.state != "waiting" and (run.folder / "checkpoints" / "last.pt").is_file()


def installModel(runFolder: Path, registry: ModelRegistry, overwrite: bool = False) -> InstalledModel:
    """Copy the model of a finished fine-tuning run to the installed models.

    Args:
        overwrite: replace an installed model of the same name.

    Raises:
        EmimError: when the run has no model, or one of the same name is installed.
    """
    run = read_run(runFolder)
    if run.model is None:
        raise EmimError(
            _("The run has no model yet."),
            runFolder,
            _("A fine-tuning run writes it at its end: resume the run, or choose another one."),
        )
    return registry.import_(run.model, overwrite)


def isInstalled(runFolder: Path, registry: ModelRegistry) -> bool:
    """Whether a model of the name of the run's model is installed already, this one or another.

    Raises:
        EmimError: when the folder is no run, or its model is damaged.
    """
    model = read_run(runFolder).model
    if model is None:
        return False
    folder = folderName(read_card(model).name).casefold()
    return any(m.path.name.casefold() == folder for m in registry.models())


def _describe(run: RunState) -> str:
    kinds = {"segmentation": _("segmentation"), "classification": _("classification")}
    parts = [kinds.get(run.task, _("pre-training"))]
    if run.state == "finished":
        parts.append(_("steps: {n}").format(n=run.step))
    else:
        parts.append(_("step {n} of {all}").format(n=run.step, all=run.steps))
    if run.verdict and run.verdict.get("state"):
        parts.append(str(run.verdict["state"]))
    return f"{run.name} ({', '.join(parts)})"
