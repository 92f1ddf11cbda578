"""ITK in several Python threads."""

from __future__ import annotations


def prepare_itk() -> None:
    """Run one small filter in this thread, so that ITK makes its thread pool and its registers now.

    To be called before threads use ITK: its first use in two at once can crash or hang (SimpleITK issue 74).
    """
    import SimpleITK as sitk

    image = sitk.Image([8, 8, 8], sitk.sitkFloat32)
    sitk.Resample(sitk.SmoothingRecursiveGaussian(image, 1.0), image)
