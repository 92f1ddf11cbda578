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
    sums: list[torch.Tensor] = []
    for target, weight in samples:
        x, w = target.double(), weight.double()
        if not sums:
            sums = [torch.zeros_like(x) for _ in range(4)]
        sums[0] += w
        sums[1] += w * x
        sums[2] += w * x.square()
        sums[3] += w > 0
    if not sums or sums[0].sum() == 0:
        return dict.fromkeys(LINES, float("nan"))
    weight, first, second, count = (to_units(s, unit) for s in sums)

    def spread(dims: tuple[int, ...]) -> torch.Tensor:
        """Weighted squared distance to the weighted mean over ``dims``, summed over these."""
        total = weight.sum(dims).clamp(min=1e-12)
        return second.sum(dims) - first.sum(dims).square() / total

    everything = weight.sum()
    template = second - first.square() / weight.clamp(min=1e-12)
    several = count > 1
    unbiased = template * count / (count - 1).clamp(min=1)
    lines = (
        spread((0, 1, 2)) / everything,
        spread((0, 1)).sum() / everything,
        template[several].sum() / weight[several].sum(),
        unbiased[several].sum() / weight[several].sum(),
    )
    return {name: float(value) for name, value in zip(LINES, lines, strict=True)}
