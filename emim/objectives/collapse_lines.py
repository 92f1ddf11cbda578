"""Collapse lines: the lowest masked L2 loss a network can reach without looking at its input.

For the masked foreground voxels of a cohort, an output that is the same for every input can be

* one scalar:                               L_a = Var[x]
* one unit shared by positions, modalities: L_b = E_i |x_i - mean unit|² / voxels per unit
* one template per position and modality:   L_c = E_{position, modality} Var_subjects[x]

L_c counts the voxels that at least two subjects have. It is measured on the subjects the template is
the mean of, so it is too low for others; ``L_c_unseen`` corrects each voxel's variance by n/(n-1): what
even a perfect template costs on subjects it was not made from.

A validation loss that settles on a line means complete collapse (arXiv 2407.10377); the lines
themselves are this project's derivation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from emim.masking.units import to_units

LINES = ("L_a", "L_b", "L_c", "L_c_unseen")


def collapse_lines(samples: Iterable[tuple[torch.Tensor, torch.Tensor]], unit: int) -> dict[str, float]:
    """Collapse lines of aligned samples.

    Args:
        samples: for each subject the target (M, Z, Y, X) and the weight of each voxel, same shape:
            0 where it never enters the loss, else how often the masks hide it. All samples have
            the same shape, a multiple of ``unit``, and are read one after the other.
        unit: side of a mask unit in voxels.

    Returns:
        ``L_a``, ``L_b``, ``L_c``, ``L_c_unseen``; NaN where there is nothing to compute.
    """
    weight = None
    for target, times in samples:
        if weight is None:
            weight, first, second = (torch.zeros(target.shape, dtype=torch.double) for _ in range(3))
            count = torch.zeros(target.shape, dtype=torch.int32)
        for m in range(len(target)):  # one by one, to need little memory
            x, w = target[m].double(), times[m].double()
            weight[m] += w
            count[m] += w > 0
            weighted = w * x
            first[m] += weighted
            second[m] += weighted.mul_(x)
    if weight is None or weight.sum() == 0:
        return dict.fromkeys(LINES, float("nan"))

    # Of weight, first and second, for each voxel of a unit.
    unit_sums = torch.zeros(3, unit**3, dtype=torch.double)
    inside = template = unbiased = torch.zeros((), dtype=torch.double)
    for m in range(len(weight)):
        w, a, b, n = (to_units(s[m], unit) for s in (weight, first, second, count))
        unit_sums += torch.stack([w.sum(0), a.sum(0), b.sum(0)])
        several = n > 1
        w, a, b, n = w[several], a[several], b[several], n[several]
        spread = b - a.square() / w
        inside = inside + w.sum()
        template = template + spread.sum()
        unbiased = unbiased + (spread * n / (n - 1)).sum()
    w, a, b = unit_sums
    everything = w.sum()
    lines = (
        (b.sum() - a.sum().square() / everything) / everything,
        (b - a.square() / w.clamp(min=1e-12)).sum() / everything,
        template / inside,
        unbiased / inside,
    )
    return {name: float(value) for name, value in zip(LINES, lines, strict=True)}
