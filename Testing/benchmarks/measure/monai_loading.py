"""Reading crops as MONAI users do: every time from the files, or from a PersistentDataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import PersistentDataset
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
)

from emim.cohort.case import Cohort


class MonaiLoading:
    """Random crops of image and label, (M, crop, crop, crop), of the cases of a cohort."""

    def __init__(self, cohort: Cohort, spacing: float, crop: int, cache: Path) -> None:
        both = ("image", "label")
        prepare = [
            LoadImaged(both),
            EnsureChannelFirstd(both),
            EnsureTyped("image", dtype=np.float32),
            Orientationd(both, axcodes="RAS", labels=None),
            Spacingd(both, pixdim=(spacing,) * 3, mode=("bilinear", "nearest")),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            CropForegroundd(both, source_key="image", allow_smaller=True),
            SpatialPadd(both, (crop,) * 3),
        ]
        cut = RandSpatialCropd(both, (crop,) * 3, random_size=False)
        items = [{"image": [c.images[m] for m in cohort.modalities], "label": c.label} for c in cohort.cases]
        self._items, self._from_files = items, Compose([*prepare, cut])
        self._persistent = PersistentDataset(items, Compose([*prepare, cut]), cache_dir=str(cache))
        for n in range(len(items)):
            self._persistent[n]

    def from_files(self, case: int) -> Sequence[float]:
        return self._from_files(dict(self._items[case]))["image"]

    def persistent(self, case: int) -> Sequence[float]:
        return self._persistent[case]["image"]
