"""Cases, subjects and labels told from the names in a folder; no file is read here."""

from pathlib import Path

import pytest

from emim.cohort.folder import find_in_folder, subjects_of


def found_in(tmp_path, paths, **options):
    for path in paths.split():
        file = tmp_path / "data set" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return find_in_folder(tmp_path / "data set", **options)


def described(found):
    """One line per case: id, subject, modalities (with the number of files), number of labels."""
    return [
        f"{c.id} {c.subject} "
        + ",".join(m if len(p) == 1 else f"{m}*{len(p)}" for m, p in sorted(c.images.items()))
        + " label" * len(c.labels)
        for c in found.cases
    ]


def test_names_of_folders_tell_subjects_as_a_scan_does(tmp_path):
    names = ["case-001", "case-001_ses-2", "a1_2020-01-02", "a1", "b7_v2", "b7_v1", "anna", "anna_ses-2"]
    names += ["sub-03_ses-pre", "sub-03_ses-post", "BraTS-GLI-00012-000", "ses-1"]
    cases = found_in(tmp_path, " ".join(f"{name}/T1.nrrd" for name in names)).cases
    scanned = {Path(c.images["T1"][0]).parent.name: c.subject for c in cases}
    assert subjects_of(names) == scanned
    assert scanned["case-001_ses-2"] == "case-001" and scanned["anna_ses-2"] == "anna_ses-2"


LAYOUTS = {
    "BraTS 2021": (
        "B_02/B_02_t1.nii.gz B_02/B_02_t1ce.nii.gz B_02/B_02_seg.nii.gz B_3/B_3_flair.nii.gz",
        ["B_02 B_02 T1,T1ce label", "B_3 B_3 FLAIR"],
    ),
    "BraTS 2023 has time points": (
        "BraTS-GLI-00012-000/BraTS-GLI-00012-000-t1c.nii.gz "
        "BraTS-GLI-00012-000/BraTS-GLI-00012-000-t1n.nii.gz "
        "BraTS-GLI-00012-001/BraTS-GLI-00012-001-t2f.nii.gz "
        "BraTS-GLI-00012-001/BraTS-GLI-00012-001-seg.nii.gz",
        ["BraTS-GLI-00012-000 BraTS-GLI-00012 T1,T1ce", "BraTS-GLI-00012-001 BraTS-GLI-00012 FLAIR label"],
    ),
    "plain names": (
        "sub-01/t1ce.nii.gz sub-01/label.nrrd sub-02/T2.mha",
        ["sub-01 sub-01 T1ce label", "sub-02 sub-02 T2"],
    ),
    "BIDS": (
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz "
        "sub-01/ses-1/anat/sub-01_ses-1_acq-3D_FLAIR.nii.gz "
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz "
        "sub-01/ses-2/anat/sub-01_ses-2_ce-gadolinium_T1w.nii.gz "
        "sub-02/anat/sub-02_T1w.nii "
        "derivatives/manual/sub-01/ses-2/anat/sub-01_ses-2_label-lesion_mask.nii.gz",
        ["sub-01_ses-1 sub-01 FLAIR,T1", "sub-01_ses-2 sub-01 T1,T1ce label", "sub-02 sub-02 T1"],
    ),
    "BIDS sessions before and after surgery": (
        "sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii.gz "
        "sub-01/ses-pre/anat/sub-01_ses-pre_ce-gadolinium_T1w.nii.gz "
        "sub-01/ses-post/anat/sub-01_ses-post_T1w.nii.gz sub-01/ses-post/anat/sub-01_ses-post_dseg.nii.gz "
        "sub-02_ses-post_acq-3D_T1w.nii.gz sub-02_ses-pre_T1w.nii.gz",
        ["sub-01_ses-post sub-01 T1 label", "sub-01_ses-pre sub-01 T1,T1ce"]
        + ["sub-02_ses-post sub-02 T1", "sub-02_ses-pre sub-02 T1"],
    ),
    "sessions without BIDS names": (
        "p1/2019-01-02/t1.nii p1/2020-01-02/t1.nii p2/baseline/t1.nii",
        ["p1_2019-01-02 p1 T1", "p1_2020-01-02 p1 T1", "p2_baseline p2 T1"],
    ),
    "sessions known by repetition": (
        "p1/A/t1.nii p1/B/t1.nii p2/A/t1.nii p2/B/t1.nii p3/A/t1.nii p3/B/t1.nii",
        ["p1_A p1 T1", "p1_B p1 T1", "p2_A p2 T1", "p2_B p2 T1", "p3_A p3 T1", "p3_B p3 T1"],
    ),
    "folders of groups": (
        "HGG/B_1/B_1_t1.nii HGG/B_2/B_2_t1.nii HGG/B_3/B_3_t1.nii LGG/B_4/B_4_t1.nii LGG/B_5/B_5_t1.nii",
        [f"B_{n} B_{n} T1" for n in range(1, 6)],
    ),
    "as many groups as subjects in each": (
        "HGG/anna/t1.nii HGG/ben/t1.nii LGG/carl/t1.nii LGG/dora/t1.nii",
        [f"{n} {n} T1" for n in ("anna", "ben", "carl", "dora")],
    ),
    "sites by other names": (
        " ".join(f"{s}/{s}{p}/t1.nii" for s in "abcdefg" for p in range(6)),
        [f"{s}{p} {s}{p} T1" for s in "abcdefg" for p in range(6)],
    ),
    "few patients with examinations of names of their own": (
        "p1/98211/t1.nii p1/98355/t1.nii p2/97110/t1.nii p2/99018/t1.nii",
        ["p1_98211 p1 T1", "p1_98355 p1 T1", "p2_97110 p2 T1", "p2_99018 p2 T1"],
    ),
    "labels of parts of a brain stay a question": (
        "p1/p1_T1.nii p1/p1_seg.nii p1/p1_brain_metastasis_seg.nii p1/p1_head_hippocampus_seg.nii",
        ["p1 p1 T1 label label label"],
    ),
    "sites": (
        " ".join(f"site{s}/s{s}p{p}/t1.nii" for s in range(6) for p in range(4)),
        [f"s{s}p{p} s{s}p{p} T1" for s in range(6) for p in range(4)],
    ),
    "examinations with names of their own": (
        " ".join(f"p{n}/acc{n}7{k}/t1.nii" for n in range(6) for k in range(2)),
        [f"p{n}_acc{n}7{k} p{n} T1" for n in range(6) for k in range(2)],
    ),
    "what is sought is the label": (
        "p1/p1_T1.nii.gz p1/p1_brain_segmentation.nii.gz p1/p1_tumor_segmentation.nii.gz",
        ["p1 p1 T1 label"],
    ),
    "groups with the same subject names": (
        "siteA/sub-01/t1.nii siteB/sub-01/t1.nii siteB/sub-02/t1.nii",
        ["siteA_sub-01 siteA_sub-01 T1", "siteB_sub-01 siteB_sub-01 T1", "sub-02 sub-02 T1"],
    ),
    "two studies in one folder; the label belongs to neither": (
        "patient12/study1_FLAIR.nii.gz patient12/study1_T1W.nii.gz "
        "patient12/study2_T1W.nii.gz patient12/gt_x.nii.gz",
        ["patient12_study1 patient12 FLAIR,T1", "patient12_study2 patient12 T1"],
    ),
    "one study in a folder; the label is its": (
        "p4/study1_FLAIR.nii.gz p4/gt_commonspace.nii.gz",
        ["p4_study1 p4 FLAIR label"],
    ),
    "flat": (
        "pat01_t1.nii.gz pat01_t1gd.nii.gz pat01_lesion_mask.nii.gz pat02_AX_T1.nii.gz pat02_3D_FLAIR.nii.gz",
        ["pat01 pat01 T1,T1ce label", "pat02 pat02 FLAIR,T1"],
    ),
    "flat with sessions": (
        "pat01_visit1_t1.nii pat01_visit2_t1.nii",
        ["pat01_visit1 pat01 T1", "pat01_visit2 pat01 T1"],
    ),
    "follow-ups by numbers of their own": (
        "OAS2_0001_MR1/t1.nii OAS2_0001_MR2/t1.nii OAS2_0002_MR1/t1.nii",
        [f"OAS2_000{n} OAS2_000{n[0]} T1" for n in ("1_MR1", "1_MR2", "2_MR1")],
    ),
    "flat with follow-ups": (
        "pat01_bl_T1.nii pat01_bl_seg.nii pat01_m12_T1.nii pat02_v1_T1.nii pat02_v2_T1.nii pat03_V1_T1.nii",
        ["pat01_bl pat01 T1 label", "pat01_m12 pat01 T1"]
        + ["pat02_v1 pat02 T1", "pat02_v2 pat02 T1", "pat03_V1 pat03 T1"],
    ),
    "follow-ups in folders of groups": (
        "siteA/sub01_v1/t1.nii siteA/sub01_v2/t1.nii siteB/sub01_v1/t1.nii siteB/sub02_v1/t1.nii",
        [f"site{n} site{n[:-3]} T1" for n in ("A_sub01_v1", "A_sub01_v2", "B_sub01_v1")]
        + ["sub02_v1 sub02 T1"],
    ),
    "volunteers of two sites": (
        " ".join(f"site{s}_v{n:02}/t1.nii" for s in (1, 2) for n in range(6)),
        [f"site{s}_v{n:02} site{s}_v{n:02} T1" for s in (1, 2) for n in range(6)],
    ),
    "numbers of different people": (
        "BraTS2021_00006/t1.nii BraTS2021_00739/t1.nii case_1/t1.nii case_2/t1.nii v1/t1.nii v2/t1.nii",
        [f"{n} {n} T1" for n in ("BraTS2021_00006", "BraTS2021_00739", "case_1", "case_2", "v1", "v2")],
    ),
    "flat in a group's folder": (
        "siteA/pat01_t1.nii siteA/pat01_t2.nii siteA/pat02_t1.nii siteB/pat03_t1.nii siteB/pat04_t1.nii",
        ["pat01 pat01 T1,T2", "pat02 pat02 T1", "pat03 pat03 T1", "pat04 pat04 T1"],
    ),
    "the folder of one case": ("t1.nii t2.nii seg.nii", ["data set data set T1,T2 label"]),
    "prostate, two studies of a patient": (
        "10000/10000_1000000_t2w.mha 10000/10000_1000000_adc.mha 10000/10000_1000000_hbv.mha "
        "10000/10000_1000424_t2w.mha 10001/10001_1000001_t2w.mha",
        ["10000_1000000 10000 ADC,HBV,T2", "10000_1000424 10000 T2", "10001_1000001 10001 T2"],
    ),
    "a folder per modality": (
        "T1/p1.nii.gz FLAIR/p1.nii.gz T1/p2.nii.gz labels/p1.nii.gz",
        ["p1 p1 FLAIR,T1 label", "p2 p2 T1"],
    ),
    "a folder per modality in each subject": (
        "p1/T1/p1.nii.gz p1/T2_FLAIR/p1.nii.gz p2/T1/T1.nii.gz",
        ["p1 p1 FLAIR,T1", "p2 p2 T1"],
    ),
    "images and labels side by side": (
        "images/p1/t1.nii labels/p1/seg.nii images/p2/t1.nii",
        ["p1 p1 T1 label", "p2 p2 T1"],
    ),
    "sessions in folder names": (
        "U-0138_FU001d_nifti/U-0138_FU001d_T1.nii U-0138_nifti/U-0138_T1.nii",
        ["U-0138_nifti U-0138_nifti T1", "U-0138_nifti_FU001d U-0138_nifti T1"],
    ),
    "duplicates": (
        "p1/t1.nii.gz p1/T1_copy.nii p1/seg.nii p1/lesion_mask.nii p1/3_AX_T2.nii p1/9_SAG_T2.nii",
        ["p1 p1 T1*2,T2*2 label label"],
    ),
    "a label without images": ("p1/t1.nii.gz p2/seg.nii.gz", ["p1 p1 T1", "p2 p2  label"]),
    "other alphabets": (
        "Пациент-1/Пациент-1_t1.nii.gz 患者2/t1.nii.gz",
        ["Пациент-1 Пациент-1 T1", "患者2 患者2 T1"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    paths, expected = LAYOUTS[layout]
    assert described(found_in(tmp_path, paths)) == expected


def test_every_other_file_is_listed_with_the_reason(tmp_path):
    found = found_in(
        tmp_path,
        "p1/t1.nii.gz p1/mask_t1.nii.gz p1/notes.txt p1/x.dcm p1/other.nii.gz p1/._t1.nii.gz p1/t1.raw "
        "p2/study1_t1.nii p2/study2_t1.nii p2/gt.nii derivatives/x/p1/t1.nii",
    )
    reasons = {path.split("data set/")[1]: why for path, why in found.ignored}
    assert set(reasons) == {
        *("p1/mask_t1.nii.gz", "p1/notes.txt", "p1/x.dcm", "p1/other.nii.gz", "p1/._t1.nii.gz", "p1/t1.raw"),
        *("p2/gt.nii", "derivatives/x/p1/t1.nii"),
    }
    assert "mask" in reasons["p1/mask_t1.nii.gz"]
    assert "no pattern" in reasons["p1/other.nii.gz"]
    assert "DICOM" in reasons["p1/x.dcm"]
    assert "2 cases" in reasons["p2/gt.nii"]


def test_users_patterns(tmp_path):
    images = "imagesTr/hip_001_0000.nii.gz imagesTr/hip_001_0001.nii.gz imagesTr/hip_2_0000.nii.gz"
    found = found_in(
        tmp_path, images + " labelsTr/hip_001.nii.gz", patterns={"T1": "*_0000", "T2": ["*_0001"]}
    )
    assert described(found) == ["hip_001 hip_001 T1,T2 label", "hip_2 hip_2 T1"]


def test_single_modality_with_one_pattern_for_all(tmp_path):
    found = found_in(tmp_path, "a/image.nii.gz b/image.nii.gz b/seg.nii.gz", patterns={"Xe": "image*"})
    assert described(found) == ["a a Xe", "b b Xe label"]
    found = found_in(
        tmp_path / "2", "imagesTr/p1.nii.gz imagesTr/p2.nii.gz labelsTr/p1.nii.gz", patterns={"CT": "*"}
    )
    assert described(found) == ["p1 p1 CT label", "p2 p2 CT"]


def test_label_pattern_replaces_the_built_in_recognition(tmp_path):
    found = found_in(tmp_path, "a/t1.nii.gz a/seg.nii.gz a/mask.nii.gz", label=("mask*",))
    assert described(found) == ["a a T1 label"]
    assert found.cases[0].labels[0].endswith("mask.nii.gz")
    assert "label pattern" in found.ignored[0][1]


def test_linked_folders_are_followed_once(tmp_path):
    found_in(tmp_path / "1", "p1/t1.nii.gz")
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "p1").symlink_to(tmp_path / "1/data set/p1")
    (folder / "p1/loop").symlink_to(folder)
    assert described(find_in_folder(folder)) == ["p1 p1 T1"]


def test_what_is_only_assumed_of_people_is_said(tmp_path):
    paths = " ".join(f"p{n}/acc{n}7{k}/t1.nii" for n in range(3) for k in range(2))
    assert found_in(tmp_path / "a", paths).assumed.endswith("of one person (so in 3 folders).")
    for number, sure in enumerate(("p1/ses-1/t1.nii p1/ses-2/t1.nii p2/ses-1/t1.nii", "p1/t1.nii p2/t1.nii")):
        assert not found_in(tmp_path / str(number), sure).assumed


def test_people_whose_names_differ_in_a_short_end_are_told(tmp_path):
    """They may be examinations of one person, who then is in training and validation at once."""
    for number, (paths, names, times) in enumerate(
        (
            ("U-01_11 U-01_21 U-02_11 U-02_21 U-03_11", "U-01_11 and U-01_21", 2),
            ("U-01_11 U-02_11 U-03_11 U-03_21", "U-03_11 and U-03_21", 1),
            ("P1a P1b P2a P2b", "P1a and P1b", 2),
            ("sub-01 sub-02 sub-03 sub-04", None, 0),
            ("case_1 case_2 case_3 case_4", None, 0),
            ("BraTS21_006 BraTS21_039 BraTS21_101", None, 0),
            ("U-01_11 U-02_11 U-03_11", None, 0),
            (" ".join(f"{site}_{n:03}" for site in (1, 2) for n in range(6)), None, 0),
            ("p01_v1 p01_v2 p02_v1 p02_v2", None, 0),
        )
    ):
        found = found_in(tmp_path / str(number), " ".join(f"{p}/t1.nii" for p in paths.split()))
        expected = f"{names} are taken for different people (so {times} times)." if names else ""
        assert found.assumed == expected
        assert len({c.subject for c in found.cases}) == (2 if "_v1" in paths else len(paths.split()))
