"""Choose, import and remove models."""

from __future__ import annotations

import html

import qt
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError, settings
from EMIMLib.error_display import showError
from EMIMSegmentLib.card_text import cardText
from EMIMSegmentLib.marks import BAD, CHECK, marked, paragraph
from EMIMSegmentLib.result_nodes import versionText


class ModelSection:
    """Keeps ``state.model`` at what the parameter node names.

    Args:
        onModel: called when the user has chosen or imported another model.
    """

    def __init__(self, ui, logic, state, onModel) -> None:
        self.ui, self.logic, self.state, self._onModel = ui, logic, state, onModel
        self._models = []
        self._foundFor, self._found = "", (None, False)
        self._isNamesake = False  # the model is not at the path that the scene names
        menu = qt.QMenu(ui.importModelButton)
        self._importFile = menu.addAction(_("Package file (.zip)…"))
        self._importFile.toolTip = _("Install a model from one file.")
        self._importFile.connect("triggered(bool)", self._onImportFile)
        self._importFolder = menu.addAction(_("Folder (package or fine-tuning run)…"))
        self._importFolder.toolTip = _("Install a model from a folder.")
        self._importFolder.connect("triggered(bool)", self._onImportFolder)
        ui.importModelButton.setMenu(menu)
        ui.modelComboBox.connect("currentIndexChanged(int)", self._onChosen)
        ui.removeModelButton.connect("clicked(bool)", self._onRemove)
        ui.openModelsButton.connect("clicked(bool)", self._onOpenFolder)

    def refresh(self) -> None:
        """Read the folder of models again; without a choice, propose the last one, else the only one."""
        self._models = self.logic.registry.models()
        self._foundFor = ""
        combo = self.ui.modelComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for model in self._models:
            combo.addItem(_title(model), str(model.path))
        combo.blockSignals(wasBlocked)
        node = self.state.parameterNode
        if node and not node.modelPath:
            usable = [str(m.path) for m in self._models if not m.problem]
            last = settings.lastModel()
            if last in usable or len(usable) == 1:
                node.modelPath = last if last in usable else usable[0]

    def update(self) -> None:
        ui, wanted = self.ui, self.state.parameterNode.modelPath
        self.state.model, self._isNamesake = self._find(wanted)
        wasBlocked = ui.modelComboBox.blockSignals(True)
        chosen = self.state.model in self._models
        ui.modelComboBox.setCurrentIndex(self._models.index(self.state.model) if chosen else -1)
        ui.modelComboBox.blockSignals(wasBlocked)
        ui.modelCardLabel.text = self._cardText(wanted)
        idle = self.state.job is None
        ui.modelComboBox.enabled = idle and bool(self._models)
        ui.importModelButton.enabled = idle
        ui.removeModelButton.enabled = idle and chosen

    def importModel(self, path: str) -> None:
        """Install and choose the model in ``path``; asks before one is replaced, and shows a problem."""
        registry = self.logic.registry
        try:
            new = registry.package(path)
            old = registry.replacedBy(new)
            if old is not None and not _mayReplace(old, new):
                return
            model = registry.import_(path, overwrite=old is not None)
        except Exception as error:
            showError(error)
            return
        self.refresh()
        self._choose(str(model.path))

    def _find(self, wanted: str) -> tuple:
        """The model of that path or name, which may lie outside the folder of models, else its namesake here.

        Returns model, or None, and whether it is only a namesake.
        """
        if not wanted:
            return None, False
        for model in self._models:
            if wanted in (str(model.path), model.path.name):
                return model, False
        if wanted != self._foundFor:
            self._foundFor = wanted
            try:
                self._found = self.logic.registry.find(wanted), False
            except EmimError:
                self._found = self.logic.registry.namesake(wanted), True
        return self._found

    def _cardText(self, wanted: str) -> str:
        model = self.state.model
        if model and model.problem:
            return paragraph(
                marked(_("This model cannot be used."), BAD, "✕"), html.escape(model.problem.what)
            )
        if model and self._isNamesake:
            text = _("The model that the scene names is not in its place here; this one has the same name.")
            return marked(text, CHECK, "●") + cardText(model)
        if model:
            return cardText(model)
        if wanted:
            text = _("The scene was made with the model “{name}”, which is not installed here.")
            name = wanted.replace("\\", "/").rstrip("/").split("/")[-1]
            return paragraph(
                marked(text.format(name=name), CHECK, "●"), _("Import it, or choose another one above.")
            )
        if self._models:
            return marked(_("Choose a model above."), CHECK, "●")
        return _(
            "<b>There is no model yet.</b><br>Somebody gave you one? Press <i>Import…</i><br>"
            "You have labelled cases of your own? Train one in the module <i>EMIM Pretrain</i>; "
            "it will appear here."
        )

    def _choose(self, path: str) -> None:
        settings.setLastModel(path)
        if self.state.parameterNode:
            self.state.parameterNode.modelPath = path
        self.state.changed()
        self._onModel()

    def _onChosen(self, index: int) -> None:
        if 0 <= index < len(self._models):
            self._choose(str(self._models[index].path))

    def _onImportFile(self, checked: bool = False) -> None:
        title = _("Import a model package")
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), title, "", _("Model packages (*.zip)")
        )
        if path:
            self.importModel(path)

    def _onImportFolder(self, checked: bool = False) -> None:
        title = _("Import a model package or a fine-tuning run")
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if path:
            self.importModel(path)

    def _onRemove(self, checked: bool = False) -> None:
        model = self.state.model
        question = _("Delete the model “{name}” from this computer?\n\n{path}")
        if not slicer.util.confirmOkCancelDisplay(question.format(name=model.name, path=model.path)):
            return
        try:
            self.logic.registry.remove(model)
        except Exception as error:
            showError(error)
        self.state.parameterNode.modelPath = ""
        self.refresh()
        self.state.changed()

    def _onOpenFolder(self, checked: bool = False) -> None:
        folder = settings.modelsFolder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            showError(error)
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def _mayReplace(old, new) -> bool:
    """Ask whether an installed model is to be replaced by another of its name."""
    question = _(
        "A model of this name is installed already. Replace it with the new one?\n\n"
        "{name}\nInstalled: {old}\nNew: {new}"
    )
    versions = {"old": versionText(old.version) or _("damaged"), "new": versionText(new.version)}
    return slicer.util.confirmOkCancelDisplay(question.format(name=new.name, **versions))


def _title(model) -> str:
    """The name for the list, marked by what the model does."""
    if model.problem:
        return _("{name} (cannot be used)").format(name=model.name)
    tasks = {"segmentation": _("segmentation"), "classification": _("classification")}
    return f"{model.name} ({tasks[model.card.task]})"
