"""A folder of DICOM is called so, also where its files have no ending."""

from __future__ import annotations

import pytest

from emim.cohort.dicom import LOOKED_INTO, find_dicom
from emim.cohort.scan import scan
from emim.errors import EmimError

DICOM = bytes(128) + b"DICM" + bytes(8)


def fill(folder, name, content=DICOM):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return str(folder / name)


@pytest.mark.parametrize(
    "name", ["IM000001", "a/1.2.840.113619.2.5", "a/b/I.0007", "DICOMDIR", "x/dicomdir", "a.DCM", "b.IMA"]
)
def test_dicom_is_named_with_what_to_do(name, tmp_path):
    named = not name.rpartition("/")[2].startswith(("I", "1"))  # those that names tell need no content
    fill(tmp_path, name, b"" if named else DICOM)
    fill(tmp_path, "LIESMICH", b"short")
    with pytest.raises(EmimError, match="holds DICOM files") as caught:
        scan(tmp_path)
    assert f"Saw {name}." in caught.value.hint
    assert "DICOM module" in caught.value.hint and "dcm2niix" in caught.value.hint


def test_other_files_are_no_dicom(tmp_path):
    fill(tmp_path, "IM000001", b"x" * 200)
    fill(tmp_path, "viewer.exe")  # whatever it begins with
    fill(tmp_path, ".hidden")
    with pytest.raises(EmimError, match="holds no image") as caught:
        scan(tmp_path)
    assert "DICOM" not in caught.value.hint and "IM000001" in caught.value.hint


def test_few_files_are_looked_into_of_each_folder_one_first(tmp_path):
    files = [fill(tmp_path, f"a/{n:04}", b"") for n in range(3 * LOOKED_INTO)]
    assert find_dicom([*files, fill(tmp_path, "b/IM1")]) == str(tmp_path / "b/IM1")
    assert find_dicom([*files, fill(tmp_path, "a/IM1")]) is None
    assert find_dicom([str(tmp_path / "gone"), fill(tmp_path, "IM2")]) == str(tmp_path / "IM2")
