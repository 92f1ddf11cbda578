"""From relaxation times to image brightness: the signal equations and the settings of a scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emim.phantom.tissues import FIELDS, TISSUES, with_gadolinium

MODALITIES = ("T1", "T1ce", "T2", "FLAIR")


def spin_echo(t1: float, t2: float, density: float, tr: float, te: float) -> float:
    """Signal of a spin echo, in units of fully relaxed water; times in ms.

    Source: Haacke et al., Magnetic Resonance Imaging: Physical Principles and Sequence Design (1999), with
    TE much shorter than TR.
    """
    return density * (1.0 - np.exp(-tr / t1)) * np.exp(-te / t2)


def inversion_recovery(t1: float, t2: float, density: float, tr: float, te: float, ti: float) -> float:
    """Signal of an inversion recovery spin echo (FLAIR); negative before the null. Same source."""
    return density * (1.0 - 2.0 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def null_time(t1: float, tr: float) -> float:
    """Inversion time in ms at which a tissue gives no signal."""
    return t1 * np.log(2.0 / (1.0 + np.exp(-tr / t1)))


@dataclass(frozen=True)
class Sequence:
    """Settings of one acquisition; times in ms. ``ti`` None is a spin echo without inversion."""

    field: float
    tr: float
    te: float
    ti: float | None = None
    contrast_agent: bool = False

    def signal(self, tissue: str) -> float:
        """Signal of a named tissue, in units of fully relaxed water."""
        t = TISSUES[tissue]
        t1 = t.t1[FIELDS.index(self.field)]
        if self.contrast_agent:
            t1 = with_gadolinium(t1, t.gadolinium, self.field)
        if self.ti is None:
            return float(spin_echo(t1, t.t2, t.density, self.tr, self.te))
        return float(inversion_recovery(t1, t.t2, t.density, self.tr, self.te, self.ti))


def draw_protocol(rng: np.random.Generator) -> dict[str, Sequence]:
    """The settings one subject is scanned with: field strength, and TR, TE and TI of each modality."""
    field = float(rng.choice(FIELDS))
    tr, te = rng.uniform(450, 620), rng.uniform(9, 14)
    flair_tr = rng.uniform(8500, 10000)
    csf = TISSUES["CSF"].t1[FIELDS.index(field)]
    return {
        "T1": Sequence(field, tr, te),
        "T1ce": Sequence(field, tr * rng.uniform(0.9, 1.1), te, contrast_agent=True),
        "T2": Sequence(field, rng.uniform(4000, 6000), rng.uniform(85, 110)),
        "FLAIR": Sequence(
            field, flair_tr, rng.uniform(95, 130), ti=null_time(csf, flair_tr) * rng.uniform(0.97, 1.02)
        ),
    }
