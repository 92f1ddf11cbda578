"""Collapse lines: the lowest masked L2 loss a network can reach without looking at its input.

For the masked foreground voxels of a cohort, an output that is the same for every input can be

* one scalar:                               L_a = Var[x]
* one unit shared by positions, modalities: L_b = E_i |x_i - mean unit|² / voxels per unit
* one template per position and modality:   L_c = E_{position, modality} Var_subjects[x]

and L_c <= L_b <= L_a; L_c counts the voxels that at least two subjects have. ``L_c_unseen`` is what the
best template of n subjects costs on further subjects, estimated by the factor (n+1)/(n-1) at each
voxel: 1/(1-1/n) for the variance's bias and (1+1/n) for the template's own error.

A validation loss that settles on a line means complete collapse (arXiv 2407.10377); the lines
themselves are this project's derivation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from emim.masking.units import to_units


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
    weight = first = second = count = None
    for target, w in samples:
        x = to_units(target.double(), unit)
        w = to_units(w.double(), unit)
        if weight is None:
            weight, first, second, count = (torch.zeros_like(x) for _ in range(4))
        weight += w
        first += w * x
        second += w * x.square()
        count += w > 0
    if weight is None or weight.sum() == 0:
        return dict.fromkeys(("L_a", "L_b", "L_c", "L_c_unseen"), float("nan"))

    def spread(dims: tuple[int, ...]) -> torch.Tensor:
        """Weighted squared distance to the weighted mean over ``dims``, summed over these."""
        total = weight.sum(dims).clamp(min=1e-12)
        return second.sum(dims) - first.sum(dims).square() / total

    everything = weight.sum()
    template = second - first.square() / weight.clamp(min=1e-12)
    several = count > 1
    factor = (count + 1) / (count - 1).clamp(min=1)
    unseen = (template * factor)[several].sum() / weight[several].sum()
    lines = {
        "L_a": spread((0, 1, 2)) / everything,
        "L_b": spread((0, 1)).sum() / everything,
        "L_c": template[several].sum() / weight[several].sum(),
        "L_c_unseen": unseen,
    }
    return {name: float(value) for name, value in lines.items()}
