"""Loaded studies become cases of a cohort: whole, nameless, never twice, and what is left out is told."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
from EMIMPretrainLib import add_studies  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from segment_scene import grid, rotation, transform  # noqa: E402

from emim.cohort.patterns import match_modality  # noqa: E402
from emim.cohort.scan import scan  # noqa: E402
from emim.cohort.vocabulary import PATTERNS  # noqa: E402
from EMIMLib import EmimError  # noqa: E402

logic = EMIMPretrainLogic


def volume(name, seed=0, shape=(6, 8, 10), **options):
    values = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    ijk_to_ras = grid((1.5, 2.0, 3.0), shape[::-1], axes=rotation(20) @ np.diag([-1.0, -1.0, 1.0]))
    return slicer.util.addVolumeFromArray(values, ijk_to_ras, name, **options)


def study(patient, uid, **series):
    """Volumes in the subject hierarchy as Slicer's DICOM module puts them, by name."""
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    nodes = {name: volume(name, seed) for name, seed in series.items()}
    item = items.GetItemByUID("DICOM", patient)
    if not item:
        item = items.CreateSubjectItem(items.GetSceneItemID(), f"Smith^Anna ({patient})")
        items.SetItemUID(item, "DICOM", patient)
        items.SetItemAttribute(item, "DICOM.PatientID", patient)
    ofStudy = items.CreateStudyItem(item, "MRI head (20240131)")
    items.SetItemUID(ofStudy, "DICOM", uid)
    for node in nodes.values():
        items.SetItemParent(items.GetItemByDataNode(node), ofStudy)
        node.SetAttribute("DICOM.instanceUIDs", f"{uid}.7")
    return nodes


def plan(studies):
    return {s.name: [(v.name, v.modality) for v in s.volumes] for s in studies}


def written(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def add(folder, **options):
    return logic().addStudies(logic().loadedStudies(folder), folder, **options)


def test_studies_become_cases_that_a_scan_finds(tmp_path):
    folder = tmp_path / "Köhorte"
    nodes = study("4711", "1.2.1", t1_mprage=1, t2_flair=2)
    study("4712", "1.2.2", t1_mprage=3)
    study("4711", "1.2.3", t1_km=4)
    cases = add(folder)
    assert [case.name for case in cases] == ["case-001", "case-002", "case-001_ses-2"]
    assert written(folder) == [
        "case-001/FLAIR.nrrd",
        "case-001/T1.nrrd",
        "case-001_ses-2/T1ce.nrrd",
        "case-002/T1.nrrd",
    ]
    found = {row.id: (row.subject, sorted(row.images), row.problems) for row in scan(folder).rows}
    assert found == {
        "case-001": ("case-001", ["FLAIR", "T1"], []),
        "case-001_ses-2": ("case-001", ["T1ce"], []),
        "case-002": ("case-002", ["T1"], []),
    }
    image = sitk.ReadImage(str(folder / "case-001" / "T1.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(image), slicer.util.arrayFromVolume(nodes["t1_mprage"]))
    for file in folder.rglob("*.nrrd"):
        header = file.read_bytes().split(b"\n\n")[0].lower()
        assert not any(word in header for word in (b"smith", b"4711", b"1.2.", b"dicom", b"mprage"))


def test_further_rounds_go_on_and_nothing_is_added_twice(tmp_path):
    study("4711", "1.2.1", t1=1)
    add(tmp_path)
    study("4712", "1.2.2", t1=2)
    again = logic().loadedStudies(tmp_path)
    assert [(s.name, s.included) for s in again] == [("case-001", False), ("case-002", True)]
    assert "case-001" in again[0].note
    logic().addStudies(again, tmp_path)
    slicer.mrmlScene.Clear()
    study("4712", "1.2.2", t1=2)  # nothing tells that it is known but its voxels
    study("4713", "1.2.4", t1=3)
    before = written(tmp_path)
    with pytest.raises(EmimError, match="same image as case-002/T1.nrrd"):
        add(tmp_path)
    assert written(tmp_path) == before == ["case-001/T1.nrrd", "case-002/T1.nrrd"]
    studies = logic().loadedStudies(tmp_path)
    studies[0].included = False
    assert [case.name for case in logic().addStudies(studies, tmp_path)] == ["case-004"]


def test_who_is_which_case_is_known_until_the_scene_is_closed_and_not_saved(tmp_path):
    nodes = study("4711", "1.2.1", t1=1)
    add(tmp_path / "one")
    add(tmp_path / "two")
    for folder in ("one", "two"):
        assert [s.added for s in logic().loadedStudies(tmp_path / folder)] == ["case-001"]
    attributes = [n.GetAttribute(a) for n in slicer.util.getNodesByClass("vtkMRMLNode")
                  for a in n.GetAttributeNames()]  # fmt: skip
    assert not any("case-001" in (value or "") for value in attributes)
    storage = slicer.vtkMRMLNRRDStorageNode()  # Slicer's own for this file, which writes attributes
    storage.SetFileName(str(tmp_path / "own.nrrd"))
    assert storage.WriteData(nodes["t1"])
    header = (tmp_path / "own.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"instanceUIDs" in header and b"case-001" not in header

    before = nodes["t1"].GetID()
    for another in (slicer.mrmlScene.RemoveNode, lambda _node: slicer.mrmlScene.Clear()):
        another(nodes["t1"])
        nodes = study("4713", "1.2.9", t1=9)
        assert [s.added for s in logic().loadedStudies(tmp_path / "one")] == [""]
    assert nodes["t1"].GetID() == before, "else the test shows nothing"
    add(tmp_path / "one")
    assert [s.added for s in logic().loadedStudies(tmp_path / "one")] == ["case-002"]


def test_what_is_left_out_and_why():
    study("4711", "1.2.1", scout=1, t1=2, t1_tra=3, FLAIR=4)
    big = volume("t1_sag", 5, (7, 8, 10))
    items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = items.GetItemParent(items.GetItemByDataNode(slicer.util.getNode("scout")))
    others = [big, volume("t2_seg", nodeClassName="vtkMRMLLabelMapVolumeNode"), volume("T2 again")]
    others.append(slicer.util.addVolumeFromArray(np.zeros((6, 6, 6)), name="T2"))
    others[2].SetAttribute("EMIM.case", "case-009")
    for node in others:
        items.SetItemParent(items.GetItemByDataNode(node), parent)
    volume("nobody knows")
    first, last = logic().loadedStudies("/no/folder")
    assert {v.name: v.modality for v in first.volumes if v.modality} == {"t1_sag": "T1", "FLAIR": "FLAIR"}
    reasons = {v.name: v.reason for v in first.volumes}
    assert "largest of 3" in reasons["t1_sag"] and "larger" in reasons["t1"] == reasons["t1_tra"]
    assert "no modality" in reasons["scout"] and "segmentation" in reasons["t2_seg"]
    assert "same value" in reasons["T2"] and "case-009" in reasons["T2 again"]
    assert [v.name for v in first.volumes if not v.usable] == ["T2", "t2_seg"]
    assert (last.title, last.included) == ("nobody knows", False) and "no volume" in last.note
    slicer.mrmlScene.RemoveNode(big)
    equal = {v.name: v for v in logic().loadedStudies("/no/folder")[0].volumes}
    assert equal["t1"].modality == equal["t1_tra"].modality == "" and "choose" in equal["t1"].reason


def test_one_frame_of_a_series_goes_in_only_when_the_user_says_so(tmp_path):
    nodes = study("4711", "1.2.1", t1=1, flair=2)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "perfusion")
    for n in range(3):
        sequence.SetDataNodeAtValue(nodes["t1"], str(n))
    browser = slicer.mrmlScene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(nodes["t1"], sequence, False)
    (one,) = logic().loadedStudies(tmp_path)
    volumes = {v.name: v for v in one.volumes}
    frame = volumes[nodes["t1"].GetName()]
    assert (frame.modality, frame.usable) == ("", True) and volumes["flair"].modality == "FLAIR"
    assert "frame 1 of 3 of the sequence “perfusion”" in frame.reason
    frame.modality = "T1"
    logic().addStudies([one], tmp_path)
    assert written(tmp_path) == ["case-001/FLAIR.nrrd", "case-001/T1.nrrd"]


def test_names_that_make_two_patients_of_one_are_refused(tmp_path):
    study("4711", "1.2.1", t1=1)
    study("4711", "1.2.2", t1=2)
    study("4712", "1.2.3", t1=3)
    studies = logic().loadedStudies(tmp_path)

    def named(*names):
        for one, name in zip(studies, names, strict=True):
            one.name = name
        logic().checkStudies(studies, tmp_path)

    for names in (("tumour-01", "case-001_ses-2"), ("anna", "anna_ses-2")):
        with pytest.raises(EmimError, match="“" + "” and “".join(names) + "” are one patient") as error:
            named(*names, "case-002")
        assert "case-001_ses-2" in error.value.hint
    for first, second in (("tumour-01", "tumour-01_ses-2"), ("sub-1_ses-pre", "sub-1_ses-post")):
        named(first, second, "case-002")
        cases = [path.name for path in logic().addStudies(studies, tmp_path / "new" / first)]
        subjects = {row.id: row.subject for row in scan(tmp_path / "new" / first).rows}
        assert cases == [first, second, "case-002"] and subjects[first] == subjects[second]
    studies[0].included = False  # what is not written counts for nothing
    named("tumour-01", "case-001", "case-002")

    # In the folder already: known from the scene, or from the list of patients.
    logic().addStudies(studies, tmp_path, keepPatients=True)
    for forget in (False, True):
        if forget:
            slicer.mrmlScene.Clear()
            study("4711", "1.2.1", t1=1)
        last = next(s for s in logic().loadedStudies(tmp_path) if not s.added)
        assert last.name == "case-001_ses-2"
        last.name = "tumour-01"
        with pytest.raises(EmimError, match="“case-001” and “tumour-01” are one patient"):
            logic().addStudies([last], tmp_path)


def test_a_patient_without_id_is_not_known_and_it_is_told(tmp_path):
    study("Patient-1.2.1", "1.2.1", t1=1)  # of an empty ID, Slicer makes this
    study("Patient-1.2.2", "1.2.2", t1=2)
    studies = logic().loadedStudies(tmp_path)
    assert [s.patient for s in studies] == ["", ""] and all("no Patient ID" in s.note for s in studies)
    studies[1].name = "case-001_ses-2"  # the user knows that they are of one person
    logic().addStudies(studies, tmp_path, keepPatients=True)
    assert (tmp_path / "patients.csv").read_text().splitlines()[1:] == [
        "case-001,,1.2.1",
        "case-001_ses-2,,1.2.2",
    ]
    study("4711", "1.2.3", t1=3)
    assert [s.note for s in logic().loadedStudies(tmp_path)][2] == ""


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    with pytest.raises(EmimError, match="No volume") as error:
        logic().loadedStudies(tmp_path)
    assert "DICOM" in error.value.hint
    study("4711", "1.2.1", t1=1, t2=2, scout=3)
    (tmp_path / "Case-007").mkdir()

    def refused(match, patterns=None, **changes):
        (one,) = logic().loadedStudies(tmp_path, patterns)
        assert one.name == "case-008"
        for name, value in changes.items():
            setattr(one, name, value)
        with pytest.raises(EmimError, match=match):
            logic().addStudies([one], tmp_path, patterns)

    refused("No study", included=False)
    refused("no volume is chosen", volumes=[])
    for name in ("", "a/b", "..", ".hidden", "con", "a\\b"):
        refused("cannot be the name", name=name)
    refused("taken", name="case-007")
    refused("name of a file", patterns={"a/b": ["*t1*"]})
    refused("T1.nrrd is not recognised", patterns={"T1": ["*mprage*", "re:^t1$"]})
    (one,) = logic().loadedStudies(tmp_path)
    one.volumes[1].modality = "T1"
    with pytest.raises(EmimError, match="2 volumes are chosen as T1"):
        logic().addStudies([one], tmp_path)
    (tmp_path / "phantom.json").touch()
    refused("practice cohort")
    assert written(tmp_path) == ["phantom.json"]


def test_a_write_that_fails_adds_no_case(tmp_path, monkeypatch):
    study("4711", "1.2.1", t1=1)
    study("4712", "1.2.2", t1=2)
    exportVolume, count = add_studies.exportVolume, []

    def fails(node, path):
        count.append(path)
        if len(count) == 2:
            raise OSError(28, "No space left on device", str(path))
        exportVolume(node, path)

    monkeypatch.setattr(add_studies, "exportVolume", fails)
    with pytest.raises(EmimError, match="No space left"):
        add(tmp_path / "new", keepPatients=True)
    assert count[0].parents[1] == count[1].parents[1] != tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == []


def test_a_list_of_patients_is_kept_on_demand_and_knows_them_again(tmp_path):
    study("0815", "1.2.1", t1=1)
    add(tmp_path, keepPatients=True)
    slicer.mrmlScene.Clear()
    study("0815", "1.2.1", t1=5)  # resampled meanwhile, say
    study("0815", "1.2.2", t1=2)
    volume("file_t1", 3)
    studies = logic().loadedStudies(tmp_path)
    assert [(s.name, s.included) for s in studies] == [
        ("case-001", False),
        ("case-001_ses-2", True),
        ("case-002", True),
    ]
    logic().addStudies(studies, tmp_path, keepPatients=True)
    lines = (tmp_path / "patients.csv").read_text().splitlines()
    assert lines == ["case,patient,study", "case-001,0815,1.2.1", "case-001_ses-2,0815,1.2.2", "case-002,,"]
    assert [row.id for row in scan(tmp_path).rows] == ["case-001", "case-001_ses-2", "case-002"]
    (tmp_path / "patients.csv").write_text("Fall;Patient\n1;2\n")
    with pytest.raises(EmimError, match="list of patients"):
        logic().loadedStudies(tmp_path)


def test_transforms_are_applied(tmp_path):
    node = volume("t1")
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(30, 0), (5, -6, 7)
    node.SetAndObserveTransformNodeID(transform(matrix).GetID())
    (case,) = add(tmp_path)
    corner = sitk.ReadImage(str(case / "T1.nrrd")).GetOrigin()
    seen = matrix @ [*node.GetOrigin(), 1]
    assert np.allclose(np.array(corner) * [-1, -1, 1], seen[:3], atol=1e-4)


def test_every_modality_is_recognised_by_the_name_of_its_file():
    assert [m for m in PATTERNS if match_modality(add_studies.fileName(m)) != m] == []
