"""The words by which modalities, labels and masks are told in names of files and of DICOM series."""

from __future__ import annotations

import re

# In the order in which the modalities of a cohort are listed.
PATTERNS: dict[str, tuple[str, ...]] = {
    "T1": (
        *("t1", "t1w", "t1wi", "t1 weighted", "t1n", "t1pre", "t1native", "t1 se", "t1 tse", "t1 fse"),
        *("t1 gre", "t1 3d", "t1 fs", "t1 vibe", "t1 flash", "t1 space", "t1 tfe", "t1 ffe", "t1 flair"),
        *("t1 mpr", "t1 mprage", "mprage", "mp rage", "t1 spgr", "spgr", "fspgr", "bravo"),
    ),
    "T1ce": (
        *("t1c", "t1ce", "t1cem", "t1gd", "t1gad", "t1gado", "t1km", "t1post", "t1pc", "t1contrast"),
        *("t1wc", "t1wce", "t1wgd", "t1wpost", "t1wkm", "t1ic", "cet1", "cet1w", "t1enh", "t1postcontrast"),
        "re:(?<![^\\W_])t1w?[\\W_]*c(?![^\\W_])(?![\\W_]*spine)",
        "re:(?<![^\\W_])t1w?c?\\+(?=[\\W_]*$)",
    ),
    "T2": (
        *("t2", "t2w", "t2wi", "t2 weighted", "t2 se", "t2 tse", "t2 fse", "t2 frfse", "t2 3d", "t2 fs"),
        *("t2 space", "t2 spc", "t2 cube", "t2 blade", "t2 propeller", "t2 haste"),
    ),
    "FLAIR": ("flair", "fla", "t2f", "t2 flair", "t2w flair", "3dflair", "flair 3d", "dark fluid", "da fl"),
    "PD": ("pd", "pdw", "pdwi", "pdfs", "proton density"),
    "STIR": ("stir",),
    "DIR": ("dir", "double inversion recovery"),
    "T2star": ("t2 star", "t2starw", "t2s", "t2gre", "gre", "re:(?<![^\\W_])t2w?\\*"),
    "SWI": ("swi", "swan", "swip", "susceptibility"),
    "QSM": ("qsm",),
    "DWI": ("dwi", "dw", "diff", "diffusion", "trace", "tracew", "re:(?<![^\\W_])b ?\\d{3,4}(?![^\\W_])"),
    "HBV": ("hbv", "high b", "high bvalue", "high b value", "highbval"),
    "ADC": ("adc", "adcmap", "dadc", "apparent diffusion"),
    "ASL": ("asl", "pcasl"),
    "CBF": ("cbf", "rcbf"),
    "CBV": ("cbv", "rcbv"),
    "DCE": ("dce",),
    "TOF": ("tof", "mra"),
    "LGE": ("lge",),
    "CT": ("ct",),
    "PET": ("pet",),
}

# A name with words of several modalities is the one that overrides: a "T2 FLAIR" is a FLAIR.
OVERRIDES = {
    "T1": ("FLAIR", "T2star"),
    "T1ce": ("T1", "FLAIR", "T2star"),
    "FLAIR": ("T2",),
    "STIR": ("T2",),
    "DIR": ("T2", "FLAIR"),
    "T2star": ("T2",),
    "SWI": ("T2", "T2star"),
    "QSM": ("T2", "T2star", "SWI"),
    "HBV": ("DWI",),
    "ADC": ("DWI", "HBV"),
    "CBF": ("ASL",),
    "DCE": ("T1", "T1ce"),
    "TOF": ("T1", "T2"),
}

BEGIN, END, GAP = r"(?<![^\W_])", r"(?![^\W_])", r"[\W_]*"
_AGENT = r"(?:c|ce|gd|gad|gado|gadolinium|contrast|km)"
_NOT_A_TREATMENT = rf"(?!{GAP}(?:op|surg|rt|treat|proc|chemo))"
CONTRAST = re.compile(
    rf"{BEGIN}(?:ce|gd|gad|gado|gadolinium|gadavist|gadovist|dotarem|magnevist|prohance|multihance|km|mdc"
    rf"|contrast|enhanced|enh|c{GAP}\+|post{_NOT_A_TREATMENT}|post{GAP}{_AGENT}){END}"
    rf"|\+{GAP}{_AGENT}{END}|{BEGIN}c\+",
    re.I,
)
NO_CONTRAST = re.compile(
    rf"{BEGIN}(?:native?|unenhanced|pre{_NOT_A_TREATMENT}|pre{GAP}{_AGENT}"
    rf"|(?:without|wo|w/o|no|non|sans|ohne){GAP}(?:{_AGENT}|enh\w*)){END}|\s-c\s*$",
    re.I,
)
# "FLAIR_to_T1" and "space-T1w_FLAIR" name the image that another was registered to.
REGISTERED_TO = re.compile(
    rf"{BEGIN}(?:(?:to|onto|in|reg|coreg)[\W_]+|space-)(?:t1\w?\w?|t2w?|flair|fla|dwi|adc)(?:[\W_]*space)?{END}",
    re.I,
)
# Whose examination it is and which, in names of BIDS: "ses-post" is after surgery, not after contrast.
EXAMINATION = re.compile(rf"{BEGIN}(?:sub|ses)-[a-z0-9]+", re.I)
# "T1_SUB" and "SUB T1" are differences of two images; "sub-anna_T1" and "sub_01" are whose image it is.
_SUBTRACTION = (
    rf"sub(?={GAP}$|[ _](?:[23]d[ _])?t1)|subtr[a-z]*"
    rf"|post[ _]*-[ _]*(?:t1w?[ _]*)?pre{_NOT_A_TREATMENT}"
)
NO_MODALITY = re.compile(
    rf"{BEGIN}(?:scout|localizer|localiser|loc(?={GAP}$)|survey|{_SUBTRACTION}|mip|phase|pha|t1rho|t[12]{GAP}map(?:s|ping)?"
    rf"|eadc|exponential){END}",  # an eADC is bright where the ADC is low
    re.I,
)
# Philips puts an s before the names of some scans: "sT1W_3D_TFE".
PHILIPS_S = re.compile(rf"{BEGIN}s(?=t[12]w)", re.I)
SURE_LABEL = re.compile(
    rf"{BEGIN}(?:seg|dseg|segm|segmentations?|labels?|labelmap|lbl|msk|gt|ground{GAP}truth|truth"
    rf"|annotations?|consensus|delineations?){END}",
    re.I,
)
TARGET = re.compile(
    rf"{BEGIN}(?:[a-z0-9]*lesions?|wmh|tumou?rs?|infarct|stroke|cancer|gtv|ctv|roi|manual"
    rf"|rater[a-z0-9]*|expert[a-z0-9]*){END}",
    re.I,
)
MASK = re.compile(rf"{BEGIN}(?:[a-z0-9]*masks?|msk){END}", re.I)
# The brain as a whole, beside which the label of something in it lies: "brain_parenchyma_segmentation".
BRAIN_LABEL = re.compile(
    rf"{BEGIN}brain{GAP}(?:parenchyma|tissue|extraction)?{GAP}(?:d?seg|segm|segmentation|label|labelmap)$",
    re.I,
)
BRAIN = re.compile(rf"{BEGIN}(?:brain|brainmask|skull|head|body|foreground|bet){END}", re.I)
