"""What all stand-ins of qMRML widgets share: the scene, and word of its changes."""

import shiboken6
import slicer


class SceneObserver:
    """Mixin. Subclasses fill in ``_scene_set`` (another scene) and ``_scene_changed`` (nodes come and go)."""

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
            events = (
                kind.NodeAddedEvent,
                kind.NodeRemovedEvent,
                kind.EndBatchProcessEvent,
                kind.EndCloseEvent,
                kind.EndImportEvent,
            )
            self._scene_tags = tuple(scene.AddObserver(event, self._scene_event) for event in events)
        self._scene_set()
        self._scene_changed()

    def _scene_event(self, caller, event):
        if not shiboken6.isValid(self):  # the widget was deleted; Slicer's widgets take their observers along
            for tag in self._scene_tags:
                caller.RemoveObserver(tag)
            self._scene_tags = ()
        elif not caller.IsBatchProcessing():
            self._scene_changed()

    def _scene_set(self):
        pass

    def _scene_changed(self):
        pass
