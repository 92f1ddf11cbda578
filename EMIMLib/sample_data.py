"""Entries of Slicer's Sample Data module that work offline: a synthetic case, made when asked for."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from EMIMLib.worker import Worker

CATEGORY = "EMIM"
NAME = "EMIMPracticeCase"
MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


def register(thumbnail: str) -> None:
    """Add the practice case to the Sample Data module; does nothing where that module is not there.

    Args:
        thumbnail: picture file shown on the button.
    """
    try:
        import SampleData
    except ImportError:  # Slicer was built or started without it
        return
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=thumbnail,
        uris="",
        fileNames="",
        nodeNames="",
        customDownloader=_load,
    )


def _load(source=None) -> list:
    """What the button does; of an exception alone Slicer would only write in the console."""
    try:
        return loadPracticeCase()
    except Exception as error:
        from EMIMLib.error_display import showError  # needs Qt

        showError(error)
        raise


def loadPracticeCase(seed: int = 7) -> list:
    """Make a synthetic head with a tumour and load its four sequences, which lie on four different grids.

    Returns:
        The volume nodes T1, T1ce, T2, FLAIR.

    Raises:
        EmimError: when the packages that draw the head are missing.
    """
    import slicer

    from EMIMLib import dependencies

    dependencies.require()
    folder = Path(tempfile.mkdtemp(prefix="emim-practice-"))
    try:
        heads = folder / "heads"
        arguments = ["--subjects", "1", "--labelled", "1", "--spacing", "1.5", "--own-grids"]
        worker = Worker(["phantom", "--out", str(heads), "--seed", str(seed), *arguments])
        worker.start()
        worker.wait(pump=slicer.app.processEvents)
        nodes = []
        for modality in MODALITIES:
            file = heads / "sub-001" / f"sub-001_{modality}.nii.gz"
            node = slicer.util.loadVolume(str(file), {"name": f"Practice {modality}"})
            # The file goes away: the node must not be saved as a reference to it.
            node.SetAndObserveStorageNodeID(None)
            node.SetDescription("Synthetic head made by EMIM; not a patient.")
            nodes.append(node)
        slicer.util.setSliceViewerLayers(background=nodes[-1], fit=True)
        return nodes
    finally:
        shutil.rmtree(folder, ignore_errors=True)
