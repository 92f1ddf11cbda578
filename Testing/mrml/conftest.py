"""Tests on the host: see Testing/README.md."""

from segment_model import threshold_model  # noqa: F401
from slicerhost.fixtures import *  # noqa: F403
