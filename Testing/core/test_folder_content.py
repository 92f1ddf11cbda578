"""A folder that somebody only looked into is still empty."""

import pytest

from emim.errors import EmimError
from emim.phantom.generate import generate
from emim.run import refuse_existing
from emim.volumes.cache import _claim


@pytest.mark.parametrize("left", [".DS_Store", "desktop.ini"])
def test_what_file_browsers_leave_does_not_make_a_folder_full(left, tmp_path):
    (tmp_path / left).touch()
    refuse_existing(tmp_path, overwrite=False)
    generate(tmp_path, subjects=1, spacing=5.0)
    with pytest.raises(EmimError, match="exists already"):
        refuse_existing(tmp_path, overwrite=False)
    with pytest.raises(EmimError, match="not a cache"):
        _claim(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / left).touch()
    _claim(cache)
