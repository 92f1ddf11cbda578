"""Stand-in for Slicer's I/O manager: reads and writes by the real storage nodes.

File types are those the modules and their tests use; another one is an error.
"""

import contextlib
import os
import re

import slicer

_LABELMAPS = (".nii.gz", ".nii", ".mha", ".mhd")  # read as segmentations by way of a label map
_SCENE = (".mrb", ".mrml")
_STORAGE = {
    "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
    "TransformFile": (None, "vtkMRMLTransformStorageNode"),  # the file decides the node's class
    "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    "ModelFile": ("vtkMRMLModelNode", "vtkMRMLModelStorageNode"),
    "TextFile": ("vtkMRMLTextNode", "vtkMRMLTextStorageNode"),
}
_BY_EXTENSION = {
    (".seg.nrrd", ".seg.nhdr"): "SegmentationFile",
    (".tfm", ".h5", ".mat"): "TransformFile",
    (".csv", ".tsv"): "TableFile",
    (".vtk", ".vtp", ".stl", ".ply", ".obj"): "ModelFile",
    (".txt",): "TextFile",
    _SCENE: "SceneFile",
}


class qSlicerCoreIOManager:
    """The part of Slicer's class of this name that slicer.util calls."""

    def fileType(self, path):
        for extensions, kind in _BY_EXTENSION.items():
            if path.lower().endswith(extensions):
                return kind
        return "VolumeFile"

    def loadNodes(self, filetype, properties, loaded=None, messages=None):
        path = properties["fileName"]
        if not os.path.exists(path):
            return False
        if filetype == "SceneFile":
            return _load_scene(path, bool(properties.get("clear")))
        name = properties.get("name") or _base_name(path)
        if filetype == "VolumeFile":
            node = _load_volume(path, name, properties)
        elif filetype == "SegmentationFile" and path.lower().endswith(_LABELMAPS):
            node = _load_labelmap_as_segmentation(path, name)
        else:
            node = _load_by_storage(filetype, path, name)
        if node and loaded is not None:
            loaded.AddItem(node)
        return node is not None

    def fileWriterFileType(self, node):
        for kind, (node_class, _storage) in _STORAGE.items():
            if node_class and node.IsA(node_class):
                return kind
        return "TransformFile" if node.IsA("vtkMRMLTransformNode") else "VolumeFile"

    def fileWriterExtensions(self, node):
        """Formats in which the node can be written: ("NRRD (.nrrd)", …)."""
        with _storage_of(node) as storage:
            types = storage.GetSupportedWriteFileTypes()
            return tuple(types.GetValue(i) for i in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, path, node):
        """The longest extension of the path that the node's storage knows, with its dot."""
        with _storage_of(node) as storage:
            return storage.GetSupportedFileExtension(path, False, True) or ""

    def saveNodes(self, filetype, properties, messages=None):
        path = properties["fileName"]
        if filetype == "SceneFile":
            return _save_scene(path)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if not node.AddDefaultStorageNode(path):
            return False
        return _write(node, node.GetStorageNode(), path, properties)

    def exportNodes(self, nodeIDs, paths, properties, hardenTransforms, messages=None):
        """Writes copies, so that neither the nodes nor their storage nodes change."""
        return all(
            _export(slicer.mrmlScene.GetNodeByID(node_id), path, properties, hardenTransforms)
            for node_id, path in zip(nodeIDs, paths, strict=True)
        )


def _base_name(path):
    return re.sub(r"(\.seg)?(\.nii\.gz|\.[^.]+)$", "", os.path.basename(path))


def _load_volume(path, name, properties):
    logic = slicer.modules.volumes.logic()
    node = logic.AddArchetypeVolume(path, name, 1 if properties.get("labelmap") else 0)
    if node and properties.get("show", True):
        application = slicer.app.applicationLogic()
        if properties.get("labelmap"):
            application.GetSelectionNode().SetActiveLabelVolumeID(node.GetID())
        else:
            application.GetSelectionNode().SetActiveVolumeID(node.GetID())
        application.PropagateVolumeSelection()
    return node


def _load_labelmap_as_segmentation(path, name):
    labelmap = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, 1)
    if not labelmap:
        return None
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelmap, node)
    slicer.mrmlScene.RemoveNode(labelmap)
    return node


def _load_by_storage(filetype, path, name):
    if filetype not in _STORAGE:
        raise NotImplementedError(f"the test host does not load files of type '{filetype}'")
    node_class, storage_class = _STORAGE[filetype]
    scene = slicer.mrmlScene
    if node_class is None:
        return slicer.modules.transforms.logic().AddTransform(path, scene)
    storage = scene.AddNewNodeByClass(storage_class)
    storage.SetFileName(path)
    node = scene.AddNewNodeByClass(node_class, name)
    node.SetAndObserveStorageNodeID(storage.GetID())
    if not storage.ReadData(node):
        scene.RemoveNode(node)
        scene.RemoveNode(storage)
        return None
    if hasattr(node, "CreateDefaultDisplayNodes"):
        node.CreateDefaultDisplayNodes()
    return node


def _load_scene(path, clear):
    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return scene.ReadFromMRB(path, clear)
    scene.SetURL(path)
    return bool(scene.Connect() if clear else scene.Import())


def _save_scene(path):
    scene = slicer.mrmlScene
    if path.endswith(".mrb"):
        return scene.WriteToMRB(path)
    scene.SetRootDirectory(os.path.dirname(path))
    return bool(scene.Commit(path))


@contextlib.contextmanager
def _storage_of(node):
    """The node's storage node, or a temporary one of the kind it would get."""
    storage = node.GetStorageNode()
    if storage:
        yield storage
        return
    # It must be in the scene: it asks there for its data node, and for the formats of volumes.
    storage = slicer.mrmlScene.AddNewNodeByClass(node.GetDefaultStorageNodeClassName())
    try:
        yield storage
    finally:
        slicer.mrmlScene.RemoveNode(storage)


def _write(node, storage, path, properties):
    storage.SetFileName(path)
    if "useCompression" in properties:
        storage.SetUseCompression(bool(properties["useCompression"]))
    return bool(storage.WriteData(node))


def _export(node, path, properties, hardenTransforms):
    scene = slicer.mrmlScene
    copy = scene.CreateNodeByClass(node.GetClassName())
    copy.UnRegister(None)
    copy.SetHideFromEditors(True)  # no selector and no subject hierarchy shows it
    scene.AddNode(copy)
    storage = scene.AddNewNodeByClass(node.GetDefaultStorageNodeClassName())
    try:
        copy.CopyContent(node)
        copy.SetName(node.GetName())
        if hardenTransforms and node.GetParentTransformNode():
            copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
            copy.HardenTransform()
        return _write(copy, storage, path, properties)
    finally:
        scene.RemoveNode(copy)
        scene.RemoveNode(storage)
