"""Names of files, volumes and DICOM series, and the modality each tells."""

import pytest

from emim.cohort.patterns import (
    PATTERNS,
    canonical,
    card_patterns,
    check_patterns,
    find_modality,
    label_rest,
    match_modality,
    name_kind,
)
from emim.errors import EmimError

NAMES = {
    "T1": """t1.nii.gz; BraTS2021_00002_t1.nii.gz; BraTS-GLI-00012-000-t1n.nii.gz; sub-01_T1w.nii.gz
        study1_T1W.nii.gz; sub-01_ses-2_acq-highres_run-1_T1w.nii; T1.mha; t1_mprage_sag; MPRAGE
        AX T1; SAG T1 FLAIR; T1 pre contrast; T1 W/O; AX T1 without contrast; t1_native.nrrd
        T1 -C; T1-weighted; 3D T1 FSPGR BRAVO; T1_to_MNI; T1_in_FLAIR_space.nii.gz; SAG T1 SE
        T1 non-contrast; t1_tse_tra; IXI002-Guys-0828-T1.nii.gz; T1_brain.nii.gz; AX T1 C-SPINE
        T1 post-op; t1 w/o gd; Sag T1w_1; unenhanced T1; 5: AX T1 PRE
        sub-01_ses-post_T1w.nii.gz; sub-gd_ses-contrast_run-1_T1w.nii.gz
        sub_01_T1.nii.gz; t1_sub_01.nii.gz; T1 sub1; sub01_t1; study_sub-anna_T1w.nii.gz; subj_t1.nii
        sub_pat12_t1.nii.gz; sub 1 T1; sub_anna_T1.nii.gz; Sub_A_T1; sub.anna.t1; sub_mri_07_T1; loc_A_T1
        subject_3_T1.nii.gz; sT1W_3D_TFE""",
    "T1ce": """t1ce.nii.gz; BraTS2021_00002_t1ce.nii.gz; BraTS-GLI-00012-000-t1c.nii.gz; t1c.nii.gz
        T1Gd.nii.gz; t1gd.mhd; sub-01_ce-gadolinium_T1w.nii.gz; sub-01 T1 post contrast
        t1_mprage_sag_gd; T1 +C; T1+C; AX T1 POST; AX T1 POST GD; T1WKM; T1W_KM; t1_c
        t1-c.nii.gz; T1 C+; T1+; T1 +GD; T1 GAD; AX T1 FS +C; T1-weighted contrast-enhanced
        MPRAGE POST; BRAVO +C; POST_T1; t1 w gd; T1_postcontrast; preop T1 post Gd
        T1_CE_to_FLAIR; t1_vibe_fs_tra_gd; 7: SAG T1 C+ 3D; UCSF-PDGM-0004_T1c.nii.gz
        T1 Dotarem; sub-01_ses-pre_ce-gadolinium_T1w.nii.gz; sub-01_ses-2_acq-post_T1w.nii.gz
        1001: sT1W_3D_TFE_Gd; T1 post - pre op""",
    "T2": """t2.nii.gz; BraTS-GLI-00012-000-t2w.nii.gz; T2w_TSE; AX T2; t2_tse_tra
        10000_1000000_t2w.mha; T2 FRFSE; study2_T2W; T2_reg_to_T1.nii.gz; T2-weighted; sub-1_T2w
        AX T2 FS POST; t2_space_sag; IXI002-Guys-0828-T2.nii.gz; T2 PROPELLER
        sT2W_TSE""",
    "FLAIR": """flair.nii.gz; fla.nii.gz; AX T2 FLAIR; t2_flair; T2-FLAIR
        BraTS-GLI-00012-000-t2f.nii.gz; sub-01_FLAIR.nii.gz; study1_FLAIR.nii.gz
        t2_tirm_tra_dark-fluid; 3D FLAIR; FLAIR +C; FLAIR_to_T1.nii.gz
        sub-1_space-T1w_FLAIR.nii.gz; T2W_FLAIR; FLAIR_1; Sag 3D T2 FLAIR
        t2_space_flair_sag; t2_space_dark-fluid_sag_p2_iso; t2_spc_da-fl_sag""",
    "PD": "pd.nii.gz; PDw; proton_density; IXI002-Guys-0828-PD.nii.gz; sub-01_PDw.nii.gz",
    "T2star": "T2*; AX T2* GRE; t2star; sub-01_T2star.nii.gz; AX GRE; T2_star",
    "SWI": "swi.nii.gz; AX SWI; SWAN; sub-1_swi.nii.gz",
    "DWI": "dwi.nii.gz; ep2d_diff_b1000; AX DWI; b1000.nii.gz; sub-strokecase0001_dwi.nii.gz; DWI trace",
    "HBV": "10000_1000000_hbv.mha; high_b.nii.gz; DWI high b value",
    "ADC": "adc.nii.gz; 10000_1000000_adc.mha; ep2d_diff_tra_ADC; DWI_ADC; ADC map; ADC_to_T2.nii.gz",
    "STIR": "STIR; T2 STIR; SAG STIR",
    "CT": "ct.nii.gz; CT_001_ct.nii.gz",
}
NO_MODALITY = """mask_t1.nii.gz; brainmask.nii.gz; seg.nii.gz; t1_seg.nii.gz; image.nii.gz
        3-plane localizer; T1 map; t1rho; BRATS_001.nii.gz; rt1.nii.gz; patient12.nii.gz
        t1t2.nii.gz; T1 T2; PD T2; t10.nii.gz; at1b.nii.gz; mask_fla.nii.gz; abct.nii
        t1_vibe_fs_tra_dyn_SUB; Ax T1 Sub; T1_SUB; SUB T1 POST-PRE; T1 post - T1 pre; SUB 3D T1; T1 (SUB)
        T1 Subtraktion; T1w post-pre; t1_post_-_t1_pre; T1_SUB.nii.gz; eADC; dwi_eADC; Exponential ADC
        T1 mapping; t2_mapping; 3 plane t2 loc; T1 subtraction
        flairish.nii.gz; direct.nii.gz; MRHead; ; .nii.gz"""


def split(text):
    return [n.strip() for line in text.split("\n") for n in line.split(";")]


@pytest.mark.parametrize(("name", "modality"), [(n, m) for m, names in NAMES.items() for n in split(names)])
def test_name_tells_its_modality(name, modality):
    assert match_modality(name) == modality
    assert match_modality(name.upper()) == modality


@pytest.mark.parametrize("name", split(NO_MODALITY))
def test_name_without_modality(name):
    assert match_modality(name) is None


@pytest.mark.parametrize("modality", PATTERNS)
def test_every_canonical_name_is_recognised(modality):
    assert match_modality(f"pat07_{modality}.nii.gz") == modality
    assert canonical(modality.lower()) == modality


def test_canonical_names():
    assert [canonical(n) for n in ("t1gd", "T1CE", "t2f", "my contrast")] == [
        "T1ce",
        "T1ce",
        "FLAIR",
        "my contrast",
    ]


KINDS = {
    "label": """seg.nii.gz; BraTS2021_00002_seg.nii.gz; BraTS-GLI-00012-000-seg.nii.gz; label.nrrd
        lesion_mask.nii.gz; t1_lesion-mask.nii.gz; lesion.nii.gz; patient19_consensus_gt.nii.gz
        sub-1_label-lesion_mask.nii.gz; x.seg.nrrd; gt_commonspace.nii.gz; t1_seg.nii.gz; tumour.mha
        wmh.nii.gz; GTV.nrrd""",
    "mask": "mask_t1.nii.gz; brainmask_commonspace.nii.gz; brain_mask.nii.gz; mask.nii.gz",
    None: "t1.nii.gz; segment.nii.gz; lesion_FLAIR.nii.gz; t1_masked.nii.gz; a.nii",
}


@pytest.mark.parametrize(("name", "kind"), [(n, k) for k, names in KINDS.items() for n in split(names)])
def test_labels_and_masks(name, kind):
    assert name_kind(name) == kind


def test_rest_of_the_name():
    assert find_modality("BraTS-GLI-00012-000-t1c.nii.gz").rest == "BraTS-GLI-00012-000-"
    assert find_modality("CT_001_ct.nii.gz").rest == "CT_001_"
    assert find_modality("FLAIR_to_T1.nii.gz").rest == ""
    assert label_rest("pat07_t1_seg.nii.gz") == "pat07_"
    assert label_rest("pat07.nii.gz") == "pat07"


@pytest.mark.parametrize(
    ("pattern", "name", "folder", "rest"),
    [
        ("gadovist scan", "p1_Gadovist-Scan.nii.gz", "", "p1_"),
        ("gadovist", "p1_gadovistx.nii.gz", "", None),
        ("*_0000", "case_01_0000.nii.gz", "imagesTr", "case_01"),
        ("*_0000.nii.gz", "case_01_0000.nii.gz", "", "case_01"),
        ("*_000[12]", "case_01_0000.nii.gz", "", None),
        ("imagesTr/*", "hippo_001.nii.gz", "a/imagesTr", "hippo_001"),
        ("imagesTr/*", "hippo_001.nii.gz", "a/imagesTs", None),
        ("image*", "image.nii.gz", "sub-1", ""),
        ("re:img(\\d)$", "x", "", None),
        ("re:scan_(?P<case>\\d+)_a", "scan_12_a.mha", "", "12"),
        ("re:_a\\.mha$", "scan_12_a.mha", "folder", "scan_12"),
        ("re:^mr/", "x.nii", "mr", ""),
    ],
)
def test_users_patterns(pattern, name, folder, rest):
    found = find_modality(name, folder, {"X": pattern})
    assert (found.rest if found else None) == rest


def test_users_patterns_win_over_built_in_ones():
    assert match_modality("a_t1ce.nii.gz", {"T1": "*t1*"}) == "T1"
    assert match_modality("a_t1ce.nii.gz", {"T1": "*t1*", "T1ce": ["*t1ce*"]}) == "T1ce"  # the longer one
    assert match_modality("a_t1ce.nii.gz", {"T1ce": "*t1ce*", "T1": "*t1*"}) == "T1ce"
    assert match_modality("a_t1.nii.gz", {"T1": "mprage"}) is None  # those of T1 are replaced
    assert match_modality("a_flair.nii.gz", {"T1": "mprage"}) == "FLAIR"
    assert match_modality("a_t1ce.nii.gz", dict(PATTERNS)) == "T1ce"  # a model's card: not a wish


def test_users_patterns_leave_labels_alone_unless_they_name_them():
    assert match_modality("a_seg.nii.gz", {"MR": "*"}) is None
    assert match_modality("mask_t1.nii.gz", {"T1": "*t1*"}) is None
    assert match_modality("a_seg.nii.gz", {"MR": "*_seg*"}) == "MR"


def test_bad_patterns_are_refused():
    with pytest.raises(EmimError, match="not valid"):
        check_patterns({"T1": "re:("})
    with pytest.raises(EmimError, match="'T1'"):
        check_patterns({"T1": []})
    with pytest.raises(EmimError, match="'T1'"):
        check_patterns({"T1": ["t1", ""]})


def test_patterns_of_a_card_come_before_the_built_in_ones_and_leave_them_in_force():
    patterns = {"T1": card_patterns("T1", ["*_0000"]), "FLAIR": card_patterns("FLAIR")}
    patterns["APT"] = card_patterns("APT")
    assert patterns["T1"][0] == "*_0000" and "mprage" in patterns["T1"] and patterns["APT"] == ["APT"]
    for name, modality in (
        ("pat_0000.nii.gz", "T1"),
        ("AX MPRAGE", "T1"),
        ("T1 +C", "T1ce"),
        ("AX T2 FLAIR", "FLAIR"),
        ("pat APT", "APT"),
        ("pat_0001.nii.gz", None),
    ):
        assert match_modality(name, patterns) == modality, name
    assert match_modality("AX MPRAGE", {"T1": "*_0000"}) is None, "alone, they replace the built-in ones"
