"""Slice and 3-D views, drawn offscreen by Slicer's own displayable managers. No Qt.

Stand-in is only the window around them, in Slicer a qMRMLSliceWidget or qMRMLThreeDWidget.
"""

import slicer
import vtk

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)


class View:
    """A render window without a screen. Use SliceView or ThreeDView."""

    def __init__(self, size):
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self.window)

    def _add_managers(self, factory, names, applicationLogic):
        factory = factory.GetInstance()
        factory.SetMRMLApplicationLogic(applicationLogic)
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers = factory.InstantiateDisplayableManagers(self.renderer)
        # With an observer the managers ask for a rendering instead of rendering at every change.
        self._managers.AddObserver(vtk.vtkCommand.UpdateEvent, lambda caller, event: None)

    def render(self):
        self.window.Render()

    def resize(self, width, height):
        self.window.SetSize(width, height)

    def pixels(self):
        """The rendered picture as an array (row from the top, column, RGB), uint8."""
        from vtk.util.numpy_support import vtk_to_numpy

        self.render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.SetInputBufferTypeToRGB()
        grabber.ReadFrontBufferOff()
        grabber.Update()
        width, height, _ = grabber.GetOutput().GetDimensions()
        flat = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars())
        return flat.reshape(height, width, 3)[::-1].copy()


class SliceView(View):
    """The view of one slice node: image layers below, segmentations and others above."""

    def __init__(self, applicationLogic, sliceNode, size=(500, 500)):
        super().__init__(size)
        self.node = sliceNode
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self._background = vtk.vtkRenderer()  # below, so that segmentations are blended with the image
        self.renderer.SetLayer(1)
        self.window.SetNumberOfLayers(2)
        self.window.AddRenderer(self._background)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._add_managers(slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, applicationLogic)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        applicationLogic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(sliceNode.GetScene())
        self.logic.SetSliceNode(sliceNode)
        self._managers.SetMRMLDisplayableNode(sliceNode)
        self.resize(*size)

    @property
    def composite(self):
        """The node that says which volumes are shown."""
        return self.logic.GetSliceCompositeNode()

    def resize(self, width, height):
        super().resize(width, height)
        self.logic.ResizeSliceNode(width, height)

    def fit(self):
        """Turns the slice into the background volume's planes and shows all of it."""
        self.logic.RotateSliceToLowestVolumeAxes(False)
        self.logic.FitSliceToBackground()

    def render(self):
        pixels = self.logic.GetImageDataConnection()
        self._mapper.SetInputConnection(pixels)
        shown = bool(self._background.HasViewProp(self._image))
        if pixels and not shown:
            self._background.AddViewProp(self._image)
        elif shown and not pixels:
            self._background.RemoveViewProp(self._image)
        super().render()


class ThreeDView(View):
    """The view of one 3-D view node."""

    def __init__(self, applicationLogic, viewNode, size=(500, 500)):
        super().__init__(size)
        self.node = viewNode
        self._add_managers(
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, applicationLogic
        )
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(applicationLogic)
        applicationLogic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(viewNode.GetScene())
        self.logic.AddViewNode(viewNode.GetLayoutName())  # finds the one that exists
        self._managers.SetMRMLDisplayableNode(viewNode)

    def fit(self):
        """Looks at the patient from the front, with everything in sight."""
        self.render()
        self.camera().RotateTo(slicer.vtkMRMLCameraNode.Anterior)
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()

    def camera(self):
        """The view's camera node."""
        manager = self._managers.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager")
        return manager.GetCameraNode()
