"""Install packages into Slicer's Python and ask about it; :mod:`EMIMLib.dependencies` decides what."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from emim.errors import EmimError


class SlicerInstaller:
    """Asks in message boxes, installs by the PyTorch extension and by pip.

    Args:
        parent: widget over which the questions appear.
    """

    def __init__(self, parent=None) -> None:
        self.parent = parent

    def canAsk(self) -> bool:
        """Not in tests and without a window: there nobody answers, and nothing is installed unasked."""
        return not slicer.app.testingEnabled() and slicer.util.mainWindow() is not None

    def confirm(self, text: str) -> bool:
        title = _("EMIM: install packages")
        return slicer.util.confirmOkCancelDisplay(text, title, parent=self.parent)

    def installTorch(self, specifier: str) -> None:
        """Install PyTorch for this computer's graphics card.

        Raises:
            EmimError: when the PyTorch extension is not installed or PyTorch is in use.
        """
        try:
            import PyTorchUtils
        except ImportError as error:
            raise EmimError(
                "The extension “PyTorch” is not installed.",
                None,
                "Install it in the Extensions Manager (it is free), restart Slicer, and try again.",
            ) from error
        logic = PyTorchUtils.PyTorchUtilsLogic()
        with slicer.util.WaitCursor():
            logic.installTorch(askConfirmation=False, torchVersionRequirement=specifier)

    def installPackages(self, requirements: list[str], constraints: list[str]) -> None:
        """Install by pip, with a progress window where Slicer has one (5.12)."""
        from packaging.requirements import Requirement

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "constraints.txt"
            file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
            try:
                packaging = importlib.import_module("slicer.packaging")
            except ImportError:
                packaging = None
            if hasattr(packaging, "pip_ensure"):
                packaging.pip_ensure(
                    [Requirement(text) for text in requirements],  # it does not take text
                    constraints=file,
                    prompt_install=False,
                    prompt_restart=False,
                    requester="EMIM",
                )
            else:
                slicer.util.pip_install([*requirements, "-c", str(file)])

    def offerRestart(self, packages: list[str]) -> None:
        text = _(
            "Installed. Slicer had older versions of these packages loaded: {names}.\n\n"
            "Restart Slicer now? Unsaved work is lost; you can also save it and restart later."
        ).format(names=", ".join(packages))
        if slicer.util.confirmYesNoDisplay(text, _("EMIM: restart Slicer"), parent=self.parent):
            slicer.util.restart()
