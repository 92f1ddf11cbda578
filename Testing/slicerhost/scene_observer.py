"""What all stand-ins of qMRML widgets share: the scene, and word of its changes."""

import shiboken6
import slicer


class SceneObserver:
    """Mixin. Subclasses fill in what concerns them.

    ``_scene_set``: another scene; ``_scene_changed``: nodes come and go; ``_scene_replaced``: a scene was
    imported or closed, also amid a batch.
    """

    _scene, _scene_tags = None, ()

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        for tag in self._scene_tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._scene_tags = scene, ()
        if scene:
            kind = slicer.vtkMRMLScene
            replaced = (kind.EndCloseEvent, kind.EndImportEvent)
            changed = (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndBatchProcessEvent, *replaced)
            self._scene_tags = (
                *(scene.AddObserver(event, self._on_replaced) for event in replaced),
                *(scene.AddObserver(event, self._on_changed) for event in changed),
            )
        self._scene_set()
        self._scene_changed()

    def _on_replaced(self, caller, event):
        if self._is_alive(caller):
            self._scene_replaced()

    def _on_changed(self, caller, event):
        if self._is_alive(caller) and not caller.IsBatchProcessing():
            self._scene_changed()

    def _is_alive(self, scene):
        """Whether the widget was not deleted; Slicer's widgets take their observers along."""
        alive = shiboken6.isValid(self)
        if not alive:
            for tag in self._scene_tags:
                scene.RemoveObserver(tag)
            self._scene_tags = ()
        return alive

    def _scene_set(self):
        pass

    def _scene_changed(self):
        pass

    def _scene_replaced(self):
        pass
