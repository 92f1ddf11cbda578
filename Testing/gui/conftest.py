"""Tests on the host: see Testing/README.md."""

import sys

import pytest
from slicerhost.fixtures import *  # noqa: F403


@pytest.fixture
def reload(host, monkeypatch):
    """``reload(panel)`` does what the button Reload does, and returns the new panel."""
    import slicer

    def reload(panel):
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == panel.moduleName + "Lib":
                monkeypatch.setitem(sys.modules, name, module)  # put back afterwards: other tests hold it
        panel.onReload()
        return getattr(slicer.modules, panel.moduleName + "Widget")

    return reload


@pytest.fixture
def otherScene(tmp_path):
    """The file of a scene that knows nothing of EMIM: an image, a segmentation and a table."""
    import slicer
    import vtk

    scene = slicer.vtkMRMLScene()
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_SHORT, 1)
    image.GetPointData().GetScalars().Fill(7)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other_T1")
    volume.SetAndObserveImageData(image)
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(tmp_path / "other_T1.nrrd"))
    volume.SetAndObserveStorageNodeID(storage.GetID())
    assert storage.WriteData(volume)
    scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other segmentation")
    scene.AddNewNodeByClass("vtkMRMLTableNode", "other table")
    scene.SetRootDirectory(str(tmp_path))
    file = tmp_path / "other.mrml"
    assert scene.Commit(str(file))
    return file
