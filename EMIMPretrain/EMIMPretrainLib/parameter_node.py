"""What the panel's controls are set to, kept in the scene.

Where a value is 0 or empty, the preset decides, or the name is made up. Settings of the machine
(device, folders) are not here but in :mod:`EMIMLib.settings`.
"""

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, Minimum, WithinRange, parameterNodeWrapper

PRESETS = ("tiny", "base", "large")
TASKS = ("segmentation", "classification")
MODES = ("full", "linear", "knn")


@parameterNodeWrapper
class EMIMPretrainParameterNode:
    """Parameters of the panel.

    Attributes:
        cohortFolder: folder or datalist of the cohort.
        patterns: one ``MODALITY=PATTERN`` a line.
        excludedCases: one id a line.
        excludedOf: the folder of the cohort that they are of.
        runName: name of the next run; empty: made from cohort and time.
        maskRatio, positionShare, maskUnit, regulariserWeight, crop, steps, batch, seed: of
            pre-training.
        currentRun: folder of the run that is shown.
        init: where fine-tuning starts: empty (not chosen), "scratch", or a run or package.
        finetuneSteps, labelled: optimiser steps, and how many labelled cases to use (0: all).
        task: of fine-tuning.
        classesFile, classificationMode: of classification: the class of each case, and what is trained.
        structures: JSON list, see :mod:`EMIMPretrainLib.structures`.
        labelCase, labelSegmentation, labelReference: what is exported as labels.
    """

    cohortFolder: str = ""
    patterns: str = ""
    labelPattern: str = ""
    excludedCases: str = ""
    excludedOf: str = ""
    runName: str = ""
    preset: Annotated[str, Choice(list(PRESETS))] = "tiny"
    maskRatio: Annotated[float, WithinRange(0.05, 0.95)] = 0.75
    positionShare: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    regulariserWeight: Annotated[float, WithinRange(0.0, 10.0)] = 0.1
    maskUnit: Annotated[int, WithinRange(0, 64)] = 0
    crop: Annotated[int, WithinRange(0, 512)] = 0
    steps: Annotated[int, WithinRange(0, 10_000_000)] = 0
    batch: Annotated[int, WithinRange(0, 256)] = 0
    seed: Annotated[int, Minimum(0)] = 0
    currentRun: str = ""
    previewModality: str = ""
    init: str = ""
    finetuneSteps: Annotated[int, WithinRange(0, 10_000_000)] = 0
    labelled: Annotated[int, WithinRange(0, 100_000)] = 0
    task: Annotated[str, Choice(list(TASKS))] = "segmentation"
    classesFile: str = ""
    classificationMode: Annotated[str, Choice(list(MODES))] = "full"
    structures: str = ""
    modelName: str = ""
    modelDescription: str = ""
    intendedUse: str = ""
    licence: str = ""
    labelCase: str = ""
    labelSegmentation: vtkMRMLSegmentationNode
    labelReference: vtkMRMLScalarVolumeNode
