"""Whose volume it is and of which study, as the subject hierarchy and the DICOM database tell."""

from __future__ import annotations

import slicer
import vtk

_DESCRIPTION = "0008,103E"  # DICOM: Series Description


def hierarchy():
    """The subject hierarchy; fetched anew each time, because closing the scene replaces it."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def seriesDescription(volume) -> str:
    """The DICOM series description of a volume, or "" when it is not known."""
    key = "DICOM.SeriesDescription"
    items = hierarchy()
    item = items.GetItemByDataNode(volume)
    described = volume.GetAttribute(key) or (items.GetItemAttribute(item, key) if item else "")
    return described or _fromDatabase(volume)


def patientItem(volume) -> int:
    """Subject hierarchy item of the volume's patient; 0 when it has none."""
    return _ancestor(volume, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient())


def studyItem(volume) -> int:
    """Subject hierarchy item of the volume's study; 0 when it has none.

    What lies directly below a patient is of the patient's study, where there is only one.
    """
    patient = patientItem(volume)
    if patient and folderItem(volume) == patient:
        studies = _studiesOf(patient)
        return studies[0] if len(studies) == 1 else 0
    return _ancestor(volume, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy())


def folderItem(volume) -> int:
    """Subject hierarchy item that the volume lies in: study, folder; 0 at the top of the scene."""
    items = hierarchy()
    item = items.GetItemByDataNode(volume)
    parent = items.GetItemParent(item) if item else 0
    return 0 if parent == items.GetSceneItemID() else parent


def patientNumber(volume) -> str:
    """The DICOM Patient ID of the volume's patient; "" when it is not known."""
    item = patientItem(volume)
    return "" if not item or _isMadeUp(item) else _number(item)


def patientKey(volume) -> str:
    """Equal for two volumes of the same patient; "" when the patient is not known.

    Where the Patient ID is empty, Slicer makes a patient of each study: only one to whom the user has moved a
    further study is known.
    """
    item = patientItem(volume)
    if not item or (_isMadeUp(item) and len(_studiesOf(item)) < 2):
        return ""
    return patientNumber(volume) or f"item {item}"


def studyUID(volume) -> str:
    """The DICOM Study Instance UID of the volume's study; "" when it is not known."""
    item, name = studyItem(volume), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    return hierarchy().GetItemUID(item, name) if item else ""


def itemName(item: int) -> str:
    return hierarchy().GetItemName(item) if item else ""


def putBeside(node, volume) -> None:
    """Move ``node`` to where ``volume`` lies in the subject hierarchy, so into the same study.

    It also notes the DICOM instances it was made from, which an export as DICOM SEG looks for.
    """
    items = hierarchy()
    ofVolume = items.GetItemByDataNode(volume)
    if not ofVolume:
        return
    parent = items.GetItemParent(ofVolume)
    item = items.GetItemByDataNode(node)
    if item:
        items.SetItemParent(item, parent)
    else:
        item = items.CreateItem(parent, node)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    name = constants.GetDICOMReferencedInstanceUIDsAttributeName()
    instances = volume.GetAttribute("DICOM.instanceUIDs") or ""
    if instances or items.GetItemAttribute(item, name):  # those of what was shown there before
        items.SetItemAttribute(item, name, instances)


def _number(patient: int) -> str:
    """The Patient ID that the item of a patient has, or Slicer has made up."""
    items, constants = hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants
    number = items.GetItemAttribute(patient, constants.GetDICOMPatientIDAttributeName())
    return number or items.GetItemUID(patient, constants.GetDICOMUIDName())


def _isMadeUp(patient: int) -> bool:
    """Whether the Patient ID is not that of the images, where it is empty, but of Slicer's making."""
    # DICOMPlugin.addSeriesInSubjectHierarchy: "Patient-" and the Study Instance UID
    number, name = _number(patient), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    study = number.removeprefix("Patient-")
    return study != number and bool(hierarchy().GetItemByUID(name, study))


def _studiesOf(patient: int) -> list[int]:
    """The items of the studies directly below that of a patient."""
    items, below = hierarchy(), vtk.vtkIdList()
    items.GetItemChildren(patient, below)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
    children = [below.GetId(i) for i in range(below.GetNumberOfIds())]
    return [child for child in children if items.GetItemLevel(child) == level]


def _ancestor(volume, level: str) -> int:
    items = hierarchy()
    item = items.GetItemByDataNode(volume)
    return items.GetItemAncestorAtLevel(item, level) if item else 0


def _fromDatabase(volume) -> str:
    database = getattr(slicer, "dicomDatabase", None)
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return ""
    return database.instanceValue(uids[0], _DESCRIPTION) or ""
