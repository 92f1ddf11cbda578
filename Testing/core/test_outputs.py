"""Where results may be written: not over an input, whatever it is called, and not where nothing is."""

import os
from pathlib import Path

import pytest

from emim.errors import EmimError
from emim.inference.outputs import check_writable, existing_part


def test_an_input_is_known_by_every_name_it_has(tmp_path):
    """Where case does not count, it has several; two links stand for them here."""
    image, other = tmp_path / "T1.nii", tmp_path / "t1.nii.gz"
    image.write_bytes(b"voxels")
    os.link(image, other)
    with pytest.raises(EmimError, match="overwrite an input"):
        check_writable([other], [image], overwrite=True)
    check_writable([tmp_path / "seg.nii"], [image], overwrite=True)


def test_a_drive_that_is_not_there_is_told(tmp_path, monkeypatch):
    assert existing_part(tmp_path / "a" / "b") == tmp_path
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as below Z: of Windows
    with pytest.raises(EmimError, match="no such drive"):
        check_writable([tmp_path / "seg.nii"], [], overwrite=False)
