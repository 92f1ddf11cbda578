"""nnU-Net's own preprocessing and reading of crops, set up as its planner would for four MRI sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from emim.cohort.case import Case

RESAMPLING = {"order_z": 0, "force_separate_z": None}


class NnUNet:
    """Cases of a cohort in nnU-Net's preprocessed format, in ``folder``."""

    def __init__(self, folder: Path, modalities: Sequence[str], spacing: float, crop: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.modalities, self.crop_size = folder, tuple(modalities), crop
        self.plans = PlansManager(plans_of(len(modalities), (spacing,) * 3, crop))
        self.configuration = self.plans.get_configuration("3d_fullres")
        self.description = {
            "channel_names": dict(enumerate(modalities)),
            "labels": {"background": 0, "tumour": 1},
            "file_ending": ".nii.gz",
        }

    def prepare(self, case: Case) -> None:
        """Read, crop, normalise, resample and write a case, as ``nnUNetv2_preprocess`` does."""
        for file in self.files(case.id):  # Blosc2 does not overwrite
            file.unlink(missing_ok=True)
        DefaultPreprocessor(verbose=False).run_case_save(
            str(self.folder / case.id),
            [case.images[m] for m in self.modalities],
            case.label,
            self.plans,
            self.configuration,
            self.description,
        )

    def crop(self, case: str, where: Sequence[float]) -> np.ndarray:
        """The image of a crop as its data loader reads it; it begins at a share ``where`` of the room."""
        data, seg, _, _ = nnUNetDatasetBlosc2(str(self.folder), [case]).load_case(case)
        free = [max(0, n - self.crop_size) for n in data.shape[1:]]
        box = [[round(w * f), round(w * f) + self.crop_size] for w, f in zip(where, free, strict=True)]
        image = np.asarray(crop_and_pad_nd(data, box, 0), np.float32)
        crop_and_pad_nd(seg, box, -1)
        return image

    def files(self, case: str) -> list[Path]:
        return [self.folder / f"{case}{end}" for end in (".b2nd", "_seg.b2nd", ".pkl")]


def plans_of(channels: int, spacing: Sequence[float], crop: int) -> dict:
    """nnU-Net's plans for ``channels`` sequences at ``spacing`` (mm, z, y, x), tiles of ``crop`` voxels."""

    def resampling(is_seg: bool, order: int) -> dict:
        return {"is_seg": is_seg, "order": order, **RESAMPLING}

    default = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): {} for c in range(channels)},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "spacing": list(spacing),
                "patch_size": [crop] * 3,
                "normalization_schemes": ["ZScoreNormalization"] * channels,
                "use_mask_for_norm": [True] * channels,
                "resampling_fn_data": default,
                "resampling_fn_data_kwargs": resampling(False, 3),
                "resampling_fn_seg": default,
                "resampling_fn_seg_kwargs": resampling(True, 1),
                "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
            }
        },
    }
