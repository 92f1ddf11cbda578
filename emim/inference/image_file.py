"""Writing an array as an image file that lies exactly where its reference lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emim.errors import EmimError
from emim.volumes.grid import Grid

_NIFTI = (".nii", ".nii.gz")


def write_like(reference: str | Path, grid: Grid, array: np.ndarray, path: Path) -> None:
    """Write ``array`` (Z, Y, X) on the grid of the image file ``reference``.

    From NIfTI to NIfTI the header is taken over, so shape, sform, qform and their codes stay the
    file's bit for bit, left-handed and oblique ones too. Other formats go through SimpleITK.

    Args:
        grid: the reference's grid as SimpleITK reads it.
    """
    if str(reference).lower().endswith(_NIFTI) and str(path).lower().endswith(_NIFTI):
        from nibabel.filebasedimages import ImageFileError

        try:
            return _write_nifti_like(reference, array, path)
        except ImageFileError:  # named .nii.gz and not packed, or the reverse; ITK does not mind
            pass
    import SimpleITK as sitk

    sitk.WriteImage(grid.to_image(array), str(path), useCompression=True)


def _write_nifti_like(reference: str | Path, array: np.ndarray, path: Path) -> None:
    import nibabel

    source = nibabel.load(reference)
    header = source.header.copy()
    if source.shape[:3] != array.shape[::-1]:
        raise EmimError("The reference image has changed while it was being segmented.", reference)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    # What describes the reference's intensities, its acquisition or the patient stays behind.
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"], header["aux_file"], header["db_name"], header["intent_name"] = b"EMIM", b"", b"", b""
    header["intent_code"] = 0
    header.extensions.clear()
    data = np.ascontiguousarray(array.transpose(2, 1, 0)).reshape(source.shape)
    # No affine: the header already holds it, and setting one would rewrite sform and qform.
    nibabel.save(nibabel.Nifti1Image(data, None, header), path)
