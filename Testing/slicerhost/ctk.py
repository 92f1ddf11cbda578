"""Stand-in for Slicer's ``ctk`` module: the few CTK widgets the modules use, drawn plainly."""

from slicerhost import ctk_buttons, ctk_paths, ctk_values  # noqa: F401  (declare the classes)
from slicerhost.widget_classes import stand_ins

globals().update(stand_ins("ctk"))
