"""What each tissue is to the scanner: relaxation times and proton density.

Sources. T1 of white matter, grey matter and CSF: Rooney et al., Magn Reson Med 57:308 (2007). T2 of white
and grey matter: Stanisz et al., Magn Reson Med 54:507 (2005). T1 of blood: Sharma et al., J Magn Reson
Imaging 23:323 (2006). Proton density, fat and muscle: the BrainWeb tissue model, Collins et al., IEEE Trans
Med Imaging 17:463 (1998), densities of brain tissue lowered to the usual 0.7 and 0.8 of water.
Pathological tissue varies too much for one number; the values for oedema, tumour, necrosis, blood products
and gliosis are our choice, made so that the contrasts are those that radiologists describe.
"""

from __future__ import annotations

from dataclasses import dataclass

# Longitudinal relaxivity of gadobutrol in plasma, L/(mmol s), at 1.5 and 3 T:
# Szomolanyi et al., Invest Radiol 54:559 (2019).
RELAXIVITY = {1.5: 4.78, 3.0: 4.97}
FIELDS = tuple(RELAXIVITY)


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Attributes:
        t1: longitudinal relaxation time in ms at each of :data:`FIELDS`.
        t2: transverse relaxation time in ms (it hardly depends on the field between 1.5 and 3 T).
        density: protons relative to water.
        gadolinium: concentration of contrast agent after injection, mmol/L. That of enhancing tumour
            shortens T1 by about 0.8 s, as measured by Nöth et al., NMR Biomed 33 (2020), "Quantitative T1
            mapping indicates tumor infiltration beyond the enhancing part of glioblastomas".
    """

    t1: tuple[float, float]
    t2: float
    density: float
    gadolinium: float = 0.0


TISSUES: dict[str, Tissue] = {
    "scalp": Tissue((350, 380), 70, 0.8),
    "muscle": Tissue((900, 1200), 47, 0.8, gadolinium=0.05),
    "bone": Tissue((400, 450), 5, 0.1),
    "CSF": Tissue((4300, 4300), 1500, 1.0),
    "grey matter": Tissue((1188, 1545), 97, 0.82, gadolinium=0.01),
    "white matter": Tissue((656, 838), 71, 0.70),
    "deep grey matter": Tissue((950, 1230), 80, 0.78, gadolinium=0.01),
    "pallidum": Tissue((800, 1050), 58, 0.74),  # its iron shortens T2
    "choroid plexus": Tissue((1350, 1600), 130, 0.9, gadolinium=0.30),
    "vessel": Tissue((1580, 1660), 35, 0.75, gadolinium=0.50),  # T2 shortened: stands for the flow void
    "gliosis": Tissue((1050, 1300), 125, 0.80),
    "oedema": Tissue((1250, 1500), 145, 0.86),
    "tumour": Tissue((1450, 1700), 140, 0.86, gadolinium=0.01),
    "enhancing tumour": Tissue((1350, 1550), 120, 0.86, gadolinium=0.22),
    "necrosis": Tissue((2100, 2400), 280, 0.95, gadolinium=0.02),
    "blood products": Tissue((520, 580), 110, 0.85),  # methaemoglobin: bright without enhancement
}


def with_gadolinium(t1: float, concentration: float, field: float) -> float:
    """T1 in ms of a tissue that holds contrast agent: 1/T1' = 1/T1 + r1 c."""
    return 1.0 / (1.0 / t1 + RELAXIVITY[field] * concentration / 1000.0)
