"""A case of files, and the result that a batch wrote for it, taken into the scene."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from EMIMLib import EmimError
from EMIMSegmentLib.load_result import readSegmentation, takeSegmentation
from EMIMSegmentLib.measured_content import noteEdited, noteMeasured
from EMIMSegmentLib.measurements_table import updateMeasurements
from EMIMSegmentLib.probability_maps import readProbability, updateProbabilities
from EMIMSegmentLib.segmentation_run import measurementsOf

IN_PLACE = np.eye(4)  # files of a folder are in the coordinates of the world


def loadVolume(name: str, path: str):
    """The volume node of an image file.

    Raises:
        EmimError: when it cannot be read.
    """
    try:
        # Without "singleFile", Slicer may take T1.nii.gz and T2.nii.gz for two slices of one image.
        volume = slicer.util.loadVolume(path, {"show": False, "singleFile": True})
    except RuntimeError as error:
        raise EmimError(
            _("Slicer cannot read the file."), path, _("Check that it is still there, and not damaged.")
        ) from error
    volume.SetName(name)
    return volume


def loadResult(result: dict, model, volumes: dict):
    """The segmentation node of a written result, with its measurements and probability maps.

    Where the file was corrected since it was measured, the node is one that was edited since.

    Args:
        result: of a case, as :func:`emim.inference.segment.segment` gives it.
        model: :class:`EMIMLib.models.InstalledModel` that made it.
        volumes: modality to volume node.

    Raises:
        EmimError: when a file cannot be read; nothing is added then.
    """
    from emim.inference.outputs import file_checksum

    file = Path(result["output"])
    read = _read(file, model.card)
    written = result.get("checksum")  # results of earlier versions have none
    note = noteMeasured if written in (None, file_checksum(file)) else noteEdited
    maps = {name: readProbability(Path(path), IN_PLACE) for name, path in result["probabilities"].items()}
    reference = volumes[result["reference"]]
    segmentation = takeSegmentation(read, None, model, reference, result["missing"], None)
    updateProbabilities(segmentation, maps, model.card.structures)
    updateMeasurements(segmentation, measurementsOf(result), list(volumes))
    note(segmentation)
    return segmentation


def _read(path: Path, card):
    """The segmentation of a file as a node outside the scene."""
    if path.name.lower().endswith(".seg.nrrd"):
        return readSegmentation(path, IN_PLACE)
    from emim.inference.seg_nrrd import write_seg_nrrd
    from emim.volumes.io import read_label_volume

    label, grid = read_label_volume(path)
    layers = label[None]
    if card.overlapping:
        layers = np.stack([_whole(structure, card, label) for structure in card.structures])
    with tempfile.TemporaryDirectory(prefix="emim-", ignore_cleanup_errors=True) as folder:
        named = Path(folder) / "result.seg.nrrd"  # with the names and colours of the model
        write_seg_nrrd(named, layers, grid, card.structures)
        return readSegmentation(named, IN_PLACE)


def _whole(structure, card, label: np.ndarray) -> np.ndarray:
    """The voxels of a structure of a label map: also those that structures within it lie over."""
    within = [s.output for s in card.structures if set(s.values) <= set(structure.values)]
    return np.isin(label, within) * label.dtype.type(structure.output)
