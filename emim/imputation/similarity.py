"""How near a made-up volume comes to the true one: mean squared error, PSNR and SSIM, by MONAI."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

KERNEL, SIGMA = 11, 1.5  # voxels; those of Wang et al. 2004


class Similarity(NamedTuple):
    """Within a mask.

    Attributes:
        mse: mean squared difference in z-scores; the mean of the foreground alone gives about 1.
        psnr: dB, 10 log10(range² / mse), by the range of the truth in the mask.
        ssim: at most 1; mean over the mask of the local SSIM (Wang et al. 2004: Gaussian window of sigma
            1.5 voxels, K1 = 0.01, K2 = 0.03). Outside the mask both volumes have the lowest value of the
            truth, which becomes 0, as in air, because SSIM needs values that are not negative; windows
            at the border of the mask see that common air, which raises it there.
        voxels: how many.
    """

    mse: float
    psnr: float
    ssim: float
    voxels: int


def similarity(volume: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> Similarity:
    """Compare z-scores (Z, Y, X) at the voxels of a boolean ``mask``, some of which must be true."""
    import torch
    from monai.metrics.regression import PSNRMetric, compute_ssim_and_cs

    low, high = float(truth[mask].min()), float(truth[mask].max())
    inside = [torch.from_numpy(a[mask].astype(np.float32))[None, None] for a in (volume, truth)]
    mse = float(((inside[0] - inside[1]) ** 2).mean(dtype=torch.float64))
    psnr = float(PSNRMetric(max_val=high - low)(*inside)) if mse > 0 else math.inf
    margin = KERNEL // 2  # the window at the border needs voxels beyond it
    padded = [
        torch.from_numpy(np.pad(np.where(mask, np.maximum(a - low, 0), 0).astype(np.float32), margin))
        for a in (volume, truth)
    ]
    local, _ = compute_ssim_and_cs(
        padded[0][None, None], padded[1][None, None], 3, (KERNEL,) * 3, (SIGMA,) * 3, data_range=high - low
    )
    ssim = float(local[0, 0][torch.from_numpy(mask)].mean(dtype=torch.float64))
    return Similarity(mse, psnr, ssim, int(mask.sum()))
