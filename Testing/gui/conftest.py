"""Tests on the host: see Testing/README.md."""

import sys

import pytest
from slicerhost.fixtures import *  # noqa: F403


@pytest.fixture
def reload(host, monkeypatch):
    """``reload(panel)`` does what the button Reload does, and returns the new panel."""
    import slicer

    def reload(panel):
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == panel.moduleName + "Lib":
                monkeypatch.setitem(sys.modules, name, module)  # put back afterwards: other tests hold it
        panel.onReload()
        return getattr(slicer.modules, panel.moduleName + "Widget")

    return reload
