"""Guessing the modalities of loaded volumes, and refusing volumes that do not go together."""

import slicerhost

slicerhost.start()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from EMIMPretrainLib import preview_volumes  # noqa: E402
from EMIMSegmentLib.input_checks import checkInputs  # noqa: E402
from EMIMSegmentLib.logic import EMIMSegmentLogic  # noqa: E402

from emim.config import NetworkConfig, PreprocessConfig, Structure  # noqa: E402
from emim.package.model import ModelCard  # noqa: E402
from EMIMLib.guessing import guessInputs, loadedStudies  # noqa: E402
from EMIMLib.patient import patientItem  # noqa: E402

CARD = ModelCard(
    name="glioma",
    modalities=("T1", "T1ce", "T2", "FLAIR"),
    optional=("T2",),
    structures=(Structure("tumour", (1,), 1, (255, 0, 0)),),
    overlapping=False,
    preprocess=PreprocessConfig(spacing=(1.0, 1.0, 1.0)),
    network=NetworkConfig(filters=4, blocks=(1, 1)),
    crop=32,
)


def volume(name, shape=(6, 6, 6), **options):
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return slicer.util.addVolumeFromArray(values, name=name, **options)


def hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def study(patient, name, volumes, patient_id=None):
    items = hierarchy()
    if isinstance(patient, str):
        patient = items.CreateSubjectItem(items.GetSceneItemID(), patient)
        if patient_id:
            items.SetItemAttribute(patient, "DICOM.PatientID", patient_id)
    item = items.CreateStudyItem(patient, name)
    for node in volumes:
        items.SetItemParent(items.GetItemByDataNode(node), item)
    return patient


def names(guesses):
    return {modality: guess.node.GetName() for modality, guess in guesses.items()}


def whats(problems):
    return " | ".join(p.what for p in problems if p.blocking)


def test_names_of_files_of_one_case():
    for name in ("BraTS2021_00000_t1ce", "BraTS2021_00000_flair", "BraTS2021_00000_t2", "BraTS2021_00000_t1"):
        volume(name)
    volume("BraTS2021_00000_seg")
    assert names(guessInputs(CARD)) == {
        "T1": "BraTS2021_00000_t1",
        "T1ce": "BraTS2021_00000_t1ce",
        "T2": "BraTS2021_00000_t2",
        "FLAIR": "BraTS2021_00000_flair",
    }
    assert "BraTS2021_00000_t1ce" in guessInputs(CARD)["T1ce"].reason


def test_two_cases_are_not_mixed():
    for name in ("Pat07_t1", "Pat07_flair", "pat12_t1ce", "pat12_t2", "pat12_flair"):
        volume(name)
    assert set(names(guessInputs(CARD)).values()) == {"pat12_t1ce", "pat12_t2", "pat12_flair"}
    found = {s.name: (sorted(s.inputs), s.missing) for s in loadedStudies(CARD)}
    assert found == {"Pat07": (["FLAIR", "T1"], ("T1ce",)), "pat12": (["FLAIR", "T1ce", "T2"], ("T1",))}


def test_loose_names_are_put_together():
    for name in ("AX T1 +C", "SAG FLAIR", "COR T2"):
        volume(name)
    assert names(guessInputs(CARD)) == {"T1ce": "AX T1 +C", "FLAIR": "SAG FLAIR", "T2": "COR T2"}


def folder(name, *volumes):
    items = hierarchy()
    item = items.CreateFolderItem(items.GetSceneItemID(), name)
    for node in volumes:
        items.SetItemParent(items.GetItemByDataNode(node), item)


def test_patients_in_one_folder_are_not_mixed():
    smith = [volume("smith_t1"), volume("smith_flair")]
    jones = [volume("jones_t1"), volume("jones_t1ce"), volume("AX jones_t2")]
    folder("cases", *smith, *jones)
    assert set(names(guessInputs(CARD)).values()) == {"jones_t1", "jones_t1ce", "AX jones_t2"}
    found = {s.name: sorted(s.inputs) for s in loadedStudies(CARD)}
    assert found == {"cases / smith": ["FLAIR", "T1"], "cases / jones": ["T1", "T1ce", "T2"]}
    assert set(names(guessInputs(CARD, smith[:1])).values()) == {"smith_t1", "smith_flair"}


def test_a_folder_of_one_patient_is_one_examination():
    folder("Meier", volume("a_t1"), volume("b_flair"), volume("b_flair scout", (2, 6, 6)))
    assert names(guessInputs(CARD)) == {"T1": "a_t1", "FLAIR": "b_flair"}
    assert [s.name for s in loadedStudies(CARD)] == ["Meier"]


def test_cases_are_named_by_files_and_folders_but_not_after_patients():
    volume("pat07_t1")
    folder("Day 1", volume("a_t1"))
    items = hierarchy()
    patient = items.CreateSubjectItem(items.GetSceneItemID(), "Huber")
    items.SetItemParent(items.GetItemByDataNode(volume("t1")), patient)  # straight below, without a study
    patient = items.CreateSubjectItem(items.GetSceneItemID(), "Meier")
    day = items.CreateFolderItem(patient, "Day 1")
    items.SetItemParent(items.GetItemByDataNode(volume("t1")), day)
    study(patient, "2020", [volume("t1")])
    found = loadedStudies(CARD)
    assert [s.title for s in found] == ["pat07", "Day 1", "Huber", "Day 1", "Meier / 2020"]
    assert [s.name for s in found[:2]] == ["pat07", "Day 1"]
    codes = [s.name for s in found[2:]]
    assert len(set(codes)) == 3 and all(code.startswith("case-") for code in codes)
    assert [s.name for s in loadedStudies(CARD)[2:]] == codes


def test_series_description_of_dicom():
    first, second = volume("Volume 3"), volume("Volume 4")
    first.SetAttribute("DICOM.SeriesDescription", "t2_tirm_tra_dark-fluid")
    hierarchy().SetItemAttribute(
        hierarchy().GetItemByDataNode(second), "DICOM.SeriesDescription", "T1 MPRAGE post Gd"
    )
    guesses = guessInputs(CARD)
    assert names(guesses) == {"FLAIR": "Volume 3", "T1ce": "Volume 4"}
    assert "T1 MPRAGE post Gd" in guesses["T1ce"].reason


def test_dicom_database_is_asked(monkeypatch):
    class Database:
        def instanceValue(self, uid, tag):
            return {("1.2.3", "0008,103E"): "AX FLAIR"}.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    volume("Volume 3").SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert names(guessInputs(CARD)) == {"FLAIR": "Volume 3"}


def test_file_name_is_the_last_resort(tmp_path):
    path = str(tmp_path / "case_t2.nii.gz")
    slicer.util.saveNode(volume("x"), path, {})
    slicer.mrmlScene.Clear(False)
    node = slicer.util.loadVolume(path)
    node.SetName("Volume")
    assert names(guessInputs(CARD)) == {"T2": "Volume"}


def test_the_study_with_most_modalities_wins_and_the_largest_volume_in_it():
    old = [volume("T1"), volume("FLAIR"), volume("T2"), volume("FLAIR scout", (2, 6, 6))]
    new = [volume("T1 "), volume("FLAIR ")]
    patient = study("Müller", "2020", old)
    study(patient, "2024", new)
    guesses = guessInputs(CARD)
    assert {g.node.GetID() for g in guesses.values()} == {n.GetID() for n in old[:3]}
    assert [s.title for s in loadedStudies(CARD)] == ["Müller / 2020", "Müller / 2024"]


def test_of_several_largest_ones_of_one_size_it_is_told():
    for name in ("Ax T1", "T1 tra", "FLAIR"):
        volume(name)
    volume("T1 low", (4, 6, 6))
    volume("FLAIR low", (4, 6, 6))
    reasons = {m: guess.reason for m, guess in guessInputs(CARD).items()}
    assert "3 fit, the largest of one size" in reasons["T1"] and "the largest of 2" in reasons["FLAIR"]


def test_the_number_of_a_dicom_series_is_no_case():
    for name in ("5: t1_mprage", "12: t1_mprage_KM", "501: t2_flair"):
        volume(name)
    assert names(guessInputs(CARD)) == {
        "T1": "5: t1_mprage",
        "T1ce": "12: t1_mprage_KM",
        "FLAIR": "501: t2_flair",
    }
    assert [sorted(s.inputs) for s in loadedStudies(CARD)] == [["FLAIR", "T1", "T1ce"]]
    inputs = {m: guess.node for m, guess in guessInputs(CARD).items()}
    assert checkInputs(CARD, inputs) == []


def test_a_number_without_colon_is_that_of_a_series_only_where_dicom_instances_are_known(tmp_path):
    for name in ("5 t1_mprage", "12 t1_mprage_KM"):
        node, storage = volume("x"), slicer.vtkMRMLNRRDStorageNode()
        node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
        storage.SetFileName(str(tmp_path / f"{name}.nrrd"))
        assert storage.WriteData(node)
        slicer.mrmlScene.RemoveNode(node)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        assert storage.ReadData(node)
    assert set(names(guessInputs(CARD))) == {"T1", "T1ce"}
    for name in ("007 t1", "008 t1", "008 flair"):
        volume(name)
    assert [s.name for s in loadedStudies(CARD)][1:] == ["007", "008"]


def test_a_processed_series_outside_its_study_leaves_the_other_guesses():
    inStudy = [volume("5: t1_mprage"), volume("12: t1_mprage_KM"), volume("501: t2_flair")]
    study("Meier", "2024", inStudy, patient_id="4711")
    processed = volume("12: t1_mprage_KM N4")
    inputs = {m: guess.node for m, guess in guessInputs(CARD, [processed]).items()}
    assert inputs["T1"] is inStudy[0] and inputs["FLAIR"] is inStudy[2]
    assert checkInputs(CARD, {**inputs, "T1ce": processed}) == []
    volume("flair_other")  # there is more beside the study, which may be of somebody else
    assert names(guessInputs(CARD, [processed])) == {"T1ce": "12: t1_mprage_KM N4", "FLAIR": "flair_other"}


def test_what_lies_directly_below_a_patient_is_of_the_only_study():
    patient = study("Meier", "2020", [volume("t1")])
    items = hierarchy()
    beside = volume("flair")
    items.SetItemParent(items.GetItemByDataNode(beside), patient)
    assert [(s.title, sorted(s.inputs)) for s in loadedStudies(CARD)] == [("Meier / 2020", ["FLAIR", "T1"])]
    study(patient, "2024", [volume("t1 ")])  # now it may be of either
    assert [sorted(s.inputs) for s in loadedStudies(CARD)] == [["T1"], ["FLAIR"], ["T1"]]


def showAsSequence(node):
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "perfusion")
    for i in range(3):
        sequence.SetDataNodeAtValue(node, str(i))
    browser = slicer.mrmlScene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(node, sequence, False)


def test_a_frame_of_a_sequence_is_guessed_only_where_nothing_else_fits():
    frame, flair = volume("t1_twist", (8, 8, 8)), volume("FLAIR")
    showAsSequence(frame)
    assert names(guessInputs(CARD)) == {"T1": "t1_twist", "FLAIR": "FLAIR"}
    plain = volume("t1_se")
    assert guessInputs(CARD)["T1"].node is plain
    assert [s.inputs for s in loadedStudies(CARD)] == [{"T1": plain, "FLAIR": flair}]


def test_what_is_no_plain_image_is_not_guessed():
    volume("T1 label", nodeClassName="vtkMRMLLabelMapVolumeNode")
    slicer.util.addVolumeFromArray(
        np.zeros((4, 4, 4, 3)), name="FLAIR", nodeClassName="vtkMRMLVectorVolumeNode"
    )
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")  # no voxels
    volume("T1ce").SetAttribute("EMIM.Structure", "tumour")  # a probability map of EMIM
    volume("T1ce hidden").SetHideFromEditors(True)
    assert guessInputs(CARD) == {}


def test_previews_of_a_training_run_are_no_patients():
    for name in ("EMIM original FLAIR", "EMIM masked FLAIR", "EMIM reconstruction FLAIR"):
        volume(name).SetAttribute(preview_volumes.ATTRIBUTE, name.split()[1])
    assert guessInputs(CARD) == {} and loadedStudies(CARD) == []


def test_no_guess_is_left_over_from_another_patient():
    for name in ("anna_t1", "anna_flair"):
        volume(name)
    parameters = EMIMSegmentLogic().getParameterNode()
    parameters.applyGuesses(guessInputs(CARD), CARD.modalities)
    assert parameters.inputNode("FLAIR").GetName() == "anna_flair"
    for name in ("bob_t1", "bob_t1ce", "bob_t2"):
        volume(name)
    parameters.applyGuesses(guessInputs(CARD), CARD.modalities)
    assert {n.GetName() for n in parameters.inputs(CARD).values()} == {"bob_t1", "bob_t1ce", "bob_t2"}
    assert parameters.inputState("FLAIR") == "unset"


def test_guesses_do_not_overrule_the_user():
    first, second = volume("T1"), volume("other")
    parameters = EMIMSegmentLogic().getParameterNode()
    parameters.setInputNode("T1", second)
    parameters.setNotAvailable("FLAIR")
    volume("FLAIR")
    parameters.applyGuesses(guessInputs(CARD), CARD.modalities)
    assert parameters.inputNode("T1") is second and parameters.inputState("T1") == "chosen"
    assert parameters.inputNode("FLAIR") is None and parameters.inputState("FLAIR") == "notAvailable"
    parameters.setInputNode("T1", None)
    parameters.applyGuesses(guessInputs(CARD), CARD.modalities)
    assert parameters.inputNode("T1") is first and parameters.inputState("T1") == "guess"
    assert "T1" in parameters.inputReason("T1")
    slicer.mrmlScene.RemoveNode(first)
    assert parameters.inputState("T1") == "unset"


def test_guesses_are_of_the_patient_of_what_was_chosen():
    for name in ("Smith_t1", "Smith_flair", "Jones_t1", "Jones_t1ce", "Jones_flair"):
        volume(name)
    get = slicer.util.getNode
    assert set(names(guessInputs(CARD)).values()) == {"Jones_t1", "Jones_t1ce", "Jones_flair"}
    smith = {"T1": "Smith_t1", "FLAIR": "Smith_flair"}
    assert names(guessInputs(CARD, [get("Smith_t1")])) == smith
    assert names(guessInputs(CARD, [volume("Smith 3")])) == smith  # told by the words, though not what it is
    assert guessInputs(CARD, [get("Smith_t1"), get("Jones_t1")]) == {}
    assert guessInputs(CARD, [volume("Output Volume")]) == {}
    study("Huber", "1", [huber := volume("Huber")])
    assert guessInputs(CARD, [huber]) == {}


def test_a_chosen_volume_that_tells_no_patient_leaves_the_guesses_to_the_only_one():
    volume("pat07_flair")
    assert names(guessInputs(CARD, [volume("Output Volume")])) == {"FLAIR": "pat07_flair"}
    study("Huber", "1", [huber := volume("Huber")])
    assert guessInputs(CARD, [huber]) == {}


def test_guesses_are_of_the_study_of_what_was_chosen():
    old, new = [volume("T1"), volume("FLAIR"), volume("series 7")], [volume("T1 "), volume("FLAIR ")]
    patient = study("Meier", "2020", old)
    study(patient, "2024", new)
    for chosen in (old[0], old[2]):
        assert {g.node.GetID() for g in guessInputs(CARD, [chosen]).values()} == {n.GetID() for n in old[:2]}


def test_parameters_survive_a_scene_file(tmp_path):
    node = volume("FLAIR")
    parameters = EMIMSegmentLogic().getParameterNode()
    parameters.modelPath, parameters.quality, parameters.segmentationOpacity = "Modèle", "best", 0.25
    parameters.setInputNode("FLAIR", node, "guess", "ist so “schön”")
    parameters.setInputNode("T2* a:b;c", node)  # nothing in a name may break the file
    parameters.setNotAvailable("T1")
    path = str(tmp_path / "scène.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(False)
    assert EMIMSegmentLogic().getParameterNode().modelPath == ""
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(path)
    parameters = EMIMSegmentLogic().getParameterNode()
    assert (parameters.modelPath, parameters.quality, parameters.segmentationOpacity) == (
        "Modèle",
        "best",
        0.25,
    )
    assert parameters.inputNode("FLAIR").GetName() == "FLAIR"
    assert parameters.inputState("FLAIR") == "guess" and parameters.inputReason("FLAIR") == "ist so “schön”"
    assert parameters.inputNode("T2* a:b;c").GetName() == "FLAIR"
    assert parameters.inputState("T1") == "notAvailable"
    parameters.clearInputs()
    assert parameters.inputState("T1") == "unset" and parameters.inputNode("FLAIR") is None


def test_one_event_for_each_choice():
    node = volume("FLAIR")
    parameters = EMIMSegmentLogic().getParameterNode()
    events = []
    parameters.AddObserver("ModifiedEvent", lambda *_: events.append(1))
    parameters.setInputNode("FLAIR", node)
    parameters.setNotAvailable("FLAIR")
    assert len(events) == 2


def complete():
    return {m: volume(m) for m in CARD.modalities}


def test_a_complete_set_is_accepted():
    assert checkInputs(CARD, complete()) == []
    assert checkInputs(CARD, {m: n for m, n in complete().items() if m != "T2"}) == []


def test_missing_and_duplicate_and_unknown():
    inputs = complete()
    del inputs["T1ce"]
    inputs["FLAIR"] = inputs["T1"]
    inputs["PD"] = volume("PD")
    problems = checkInputs(CARD, inputs)
    assert {p.modality for p in problems} == {"T1ce", "FLAIR", "PD"} and all(p.blocking for p in problems)
    assert "needs T1ce" in whats(problems) and "both as T1 and as FLAIR" in whats(problems)
    assert "No volume is chosen" in whats(checkInputs(CARD, {}))


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: slicer.util.addVolumeFromArray(np.full((4, 4, 4), 7.0), name="x"), "same value"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "x"), "no voxels"),
        (lambda: volume("x", nodeClassName="vtkMRMLLabelMapVolumeNode"), "is a segmentation"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "x"), "is a segmentation"),
        (
            lambda: slicer.util.addVolumeFromArray(
                np.random.default_rng(0).random((4, 4, 4, 3)),
                name="x",
                nodeClassName="vtkMRMLVectorVolumeNode",
            ),
            "several values",
        ),
        (
            lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLDiffusionWeightedVolumeNode", "x"),
            "several values",
        ),
    ],
)
def test_what_is_no_image_is_refused(make, what):
    node = make()
    problems = checkInputs(CARD, {**complete(), "T1": node})
    assert [p.modality for p in problems if p.blocking] == ["T1"]
    assert what in whats(problems) and "“x”" in whats(problems)


def test_volumes_apart_in_the_world_are_refused():
    inputs = complete()
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = 100.0
    slicer.util.updateTransformMatrixFromArray(shift, matrix)
    inputs["FLAIR"].SetAndObserveTransformNodeID(shift.GetID())
    assert whats(checkInputs(CARD, inputs)) == "FLAIR and T1 do not overlap in space."
    for node in inputs.values():  # moved together they are together again
        node.SetAndObserveTransformNodeID(shift.GetID())
    assert checkInputs(CARD, inputs) == []


def test_volumes_of_different_patients_are_refused():
    inputs = complete()
    study("Meier", "1", [inputs["T1"], inputs["T1ce"], inputs["T2"]])
    study("Huber", "1", [inputs["FLAIR"]])
    (problem,) = [p for p in checkInputs(CARD, inputs) if "different patients" in p.what]
    assert problem.blocking and "Meier and Huber" in problem.hint
    assert "Meier" not in problem.what, "it goes into files"


def test_the_same_patient_twice_is_one_patient():
    inputs = complete()
    study("Meier", "2020", [inputs["T1"], inputs["T1ce"], inputs["T2"]], patient_id="4711")
    study("MEIER^A", "2024", [inputs["FLAIR"]], patient_id="4711")
    problems = checkInputs(CARD, inputs)
    assert not whats(problems) and "different studies: 2020 and 2024" in problems[0].what


def dicomStudyWithoutPatientID(uid, *volumes):
    """As Slicer loads a study whose Patient ID is empty: it makes one up, and so a patient of the study."""
    items, made = hierarchy(), f"Patient-{uid}"
    patient = study(f"No name ({made})", "MRI head", volumes, patient_id=made)
    items.SetItemUID(patient, "DICOM", made)
    items.SetItemUID(items.GetItemParent(items.GetItemByDataNode(volumes[0])), "DICOM", uid)


def test_studies_without_patient_id_may_be_of_one_patient():
    inputs = complete()
    dicomStudyWithoutPatientID("1.2.1", inputs["T1"], inputs["T1ce"], inputs["T2"])
    dicomStudyWithoutPatientID("1.2.2", inputs["FLAIR"])
    (problem,) = checkInputs(CARD, inputs)
    assert not problem.blocking and "different studies" in problem.what and "Patient ID" in problem.hint
    # The user says that it is one person, by moving the study.
    items = hierarchy()
    moved = items.GetItemParent(items.GetItemByDataNode(inputs["FLAIR"]))
    items.SetItemParent(moved, patientItem(inputs["T1"]))
    (problem,) = checkInputs(CARD, inputs)
    assert "different studies" in problem.what and "Patient ID" not in problem.hint


def test_numbers_in_the_names_of_one_study_without_patient_id_are_no_cases():
    first, second = volume("64ch 32 T1"), volume("20 FLAIR")
    dicomStudyWithoutPatientID("1.2.1", first, second)
    inputs = {"T1": first, "FLAIR": second}
    assert [p for p in checkInputs(CARD, inputs) if p.modality != "T1ce"] == []


def test_a_patient_id_that_looks_like_a_made_up_one_is_kept():
    inputs = complete()
    study("Meier", "1", [inputs["T1"], inputs["T1ce"], inputs["T2"]], patient_id="Patient-12")
    study("Huber", "1", [inputs["FLAIR"]], patient_id="Patient-13")
    assert "different patients" in whats(checkInputs(CARD, inputs))


def test_names_of_different_cases_are_a_warning():
    inputs = {m: volume(f"BraTS2021_0000{i}_{m}") for i, m in enumerate(CARD.modalities)}
    problems = checkInputs(CARD, inputs)
    assert not whats(problems) and "different cases" in problems[0].what


def test_a_frame_of_a_sequence_is_a_warning():
    inputs = complete()
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "perfusion")
    for i in range(3):
        sequence.SetDataNodeAtValue(inputs["FLAIR"], str(i))
    browser = slicer.mrmlScene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    assert checkInputs(CARD, inputs) == [], "none of the volumes shows the sequence"
    browser.AddProxyNode(inputs["FLAIR"], sequence, False)
    browser.SetSelectedItemNumber(1)
    (problem,) = checkInputs(CARD, inputs)
    assert problem.modality == "FLAIR" and not problem.blocking
    name = inputs["FLAIR"].GetName()
    assert problem.what == f"“{name}” shows frame 2 of 3 of the sequence “perfusion”."
    for value in "02":
        sequence.RemoveDataNodeAtValue(value)
    assert checkInputs(CARD, inputs) == [], "a single frame is a volume as any other"


def test_process_refuses_before_it_starts_anything(threshold_model):
    logic = EMIMSegmentLogic()
    with pytest.raises(Exception, match="needs FLAIR") as error:
        logic.process({"T1": volume("T1")}, str(threshold_model), device="cpu")
    assert error.value.where == "FLAIR" and error.value.hint
    with pytest.raises(Exception, match="no model 'nonesuch'"):
        logic.process({"FLAIR": volume("FLAIR")}, "nonesuch", device="cpu")
    with pytest.raises(Exception, match="cannot be the reference"):
        logic.process({"FLAIR": volume("FLAIR")}, str(threshold_model), reference="T1", device="cpu")
    assert logic.run is None
