"""Tests on the host: see Testing/README.md."""

from slicerhost.fixtures import *  # noqa: F403
