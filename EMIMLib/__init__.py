"""What the modules EMIMSegment and EMIMPretrain share: worker processes, models, settings, loaded volumes.

Importing this package is cheap and needs neither Qt nor Slicer. ``worker``, ``models``, ``interpreter``
and ``dependencies.missing`` also work in plain Python.
"""

from emim.errors import Cancelled, EmimError

__all__ = ["Cancelled", "EmimError"]
