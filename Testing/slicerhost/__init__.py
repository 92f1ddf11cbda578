"""A test host for Slicer modules: Slicer's real core (wheel slicer-core), stand-ins for the rest.

    host = slicerhost.start()
    module = host.loadModule("EMIMSegment/EMIMSegment.py")
    widget = host.enter(module)
    host.screenshot("picture.png")

See Testing/README.md for what is real and what is not.
"""

import os
import sys

_host = None


def start():
    """The host of this process, started at the first call (some seconds)."""
    global _host
    if _host is None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
        os.environ.setdefault("MPLBACKEND", "Agg")
        from slicerhost import qt

        sys.modules["qt"] = qt
        from slicerhost import ctk

        sys.modules["ctk"] = ctk
        from slicerhost.host import Host

        _host = Host()
    return _host
